"""Cells in bags of one field each, of which only the bag has labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.scoring.metrics import Truth

CELLS = 16
"""Cells of a field that go through the network in a step, drawn again each epoch."""
GATE = 128
"""Width of the attention (Ilse et al. 2018, L)."""
EVENLY = 2.0
"""Weight of a second loss where attention pools, on the plain mean of a field's cells. Where most
show the label, attention to a few calls the field, and the others would be taught nothing."""


@dataclass(frozen=True)
class Bags:
    """`field` int64 `(n,)`: the field of each cell, counted from 0; none is without cells."""

    field: npt.NDArray[np.int64]
    pool: Literal["mean", "attention"]

    @property
    def width(self) -> int:
        """Most cells of a field that are seen together."""
        return int(min(CELLS, np.bincount(self.field).max()))

    def drawn(self, generators: Sequence[torch.Generator]) -> "Drawn":
        """Cells for an epoch, chosen for each generator (fold) by itself."""
        field = torch.from_numpy(self.field)
        size = field.bincount()
        random = [torch.rand(len(field), generator=g, dtype=torch.float64) for g in generators]
        order = torch.stack([(field + one).argsort() for one in random])
        return Drawn(order, size.cumsum(0) - size, size, self.width)


@dataclass(frozen=True)
class Drawn:
    """Cells in the order of their fields, in each field at random: `order` `(fold, n)`."""

    order: Tensor
    start: Tensor
    size: Tensor
    width: int

    def cells(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Cells of `fields` `(fold, m)`, int64 `(fold, m, width)`, and which of them there are."""
        place = torch.arange(self.width)
        inside = place < self.size[fields][..., None]
        where = (self.start[fields][..., None] + place).where(inside, self.start[fields][..., None])
        cells = self.order.gather(1, where.flatten(1)).view(where.shape)
        return cells, inside


def limits(
    logits: npt.NDArray[np.float32],
    truth: Truth,
    field: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float32]:
    """The logit from which a cell is called, float32 `(fold, label)`.

    Only sums over a field's cells were taught, so that a cell's own logit has no zero. But this is
    known: cells of fields without a label do not show it, and in a field with it the highest does.
    The limit lies halfway between the medians of the two. It is 0 where a fold lacks either.

    `logits` `(fold, n, label)` are of cells of fields `field` `(n,)`; `truth` is of fields, and
    `train` bool `(fold, field)`.
    """
    found = np.zeros((len(logits), logits.shape[2]), np.float32)
    for fold, (own, rows) in enumerate(zip(logits, train, strict=True)):
        highest = np.full((len(rows), own.shape[1]), -np.inf, np.float32)
        np.maximum.at(highest, field, own)
        for label in range(own.shape[1]):
            known = rows & truth.known[:, label]
            without = own[(known & ~truth.positive[:, label])[field], label]
            having = highest[known & truth.positive[:, label], label]
            if len(without) and len(having):
                found[fold, label] = (np.median(without) + np.median(having)) / 2
    return found
