"""Leave-one-out k nearest neighbours by cosine, in bounded memory (paper, section 2.6.2)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from zarrloc.scoring.metrics import Truth

BLOCK_BYTES = 128 * 2**20
"""Memory of one block of similarities."""


@dataclass(frozen=True)
class Neighbours:
    """Each row's neighbours, nearest first; where fewer than k were allowed, index -1.

    `similarity` float32 `(n, k)`, `-inf` where there is none; `index` int64 `(n, k)`.
    """

    similarity: npt.NDArray[np.float32]
    index: npt.NDArray[np.int64]

    @property
    def short(self) -> int:
        """How many rows have fewer than k neighbours."""
        return int((self.index < 0).any(axis=1).sum())


def neighbours(
    features: npt.NDArray[np.float32],
    k: int,
    exclude: Sequence[npt.NDArray[Any]] = (),
    device: str = "cpu",
    block_bytes: int = BLOCK_BYTES,
) -> list[Neighbours]:
    """The k nearest other rows of every row of `features` `(n, f)`, by cosine similarity.

    `exclude` holds groupings `(n,)`, such as the field and the protein of each row. The first
    result leaves out the row itself; every further one also leaves out the rows of its own group
    in the next grouping. All come from one pass over the similarities, so a second answer costs
    little. Equal neighbours are ordered by row; which of several equal ones is the k-th is open.

    Memory beyond the features' normalised copy: `block_bytes` for similarities, whatever n is.
    """
    n = len(features)
    k = min(k, n)
    unit = torch.nn.functional.normalize(torch.from_numpy(features).to(device), dim=1)
    groups = [_members(grouping) for grouping in exclude]
    found = [
        Neighbours(np.empty((n, k), np.float32), np.empty((n, k), np.int64))
        for _ in range(len(groups) + 1)
    ]
    step = max(1, min(n, block_bytes // (4 * max(n, 1))))
    buffer = torch.empty(step, n, device=device)
    for start in range(0, n, step):
        rows = range(start, min(start + step, n))
        similarity = torch.mm(unit[start : rows.stop], unit.T, out=buffer[: len(rows)])
        similarity[:, start : rows.stop].fill_diagonal_(-torch.inf)
        _keep_nearest(similarity, found[0], rows)
        for members, result in zip(groups, found[1:], strict=True):
            for own in members(rows):
                inside = own[(own >= start) & (own < rows.stop)] - start
                similarity[inside[:, None], own] = -torch.inf
            _keep_nearest(similarity, result, rows)
    return found


def _members(grouping: npt.NDArray[Any]) -> Callable[[range], Iterator[npt.NDArray[np.int64]]]:
    """A function from a range of rows to the members of each group that has a row in it."""
    _, code, size = np.unique(grouping, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(size)[:-1])
    return lambda rows: (members[group] for group in np.unique(code[rows.start : rows.stop]))


def _keep_nearest(similarity: torch.Tensor, result: Neighbours, rows: range) -> None:
    value, index = (found.cpu().numpy() for found in similarity.topk(result.index.shape[1]))
    index[value == -np.inf] = -1
    order = np.lexsort((index, -value))
    result.similarity[rows.start : rows.stop] = np.take_along_axis(value, order, axis=1)
    result.index[rows.start : rows.stop] = np.take_along_axis(index, order, axis=1)


def vote(
    found: Neighbours,
    truth: Truth,
    k: int,
    temperature: float = 0.07,
    norm: Literal["sum", "max"] = "sum",
) -> npt.NDArray[np.float32]:
    """Soft votes of the first k neighbours: scores in [0, 1], float32 `(n, label)`.

    A neighbour weighs exp(similarity / temperature) (paper, equation 4) and votes only on labels
    that are known of it. `sum` divides by the weights of those who voted; `max` by the row's
    largest score. A label nobody voted on gets 0.
    """
    shape = (len(found.index), truth.positive.shape[1])
    votes, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for similarity, index in zip(found.similarity.T[:k], found.index.T[:k], strict=True):
        weight = np.exp(similarity / temperature)[:, None]  # exp(-inf) = 0: no neighbour, no vote
        votes += weight * truth.positive[index]
        weights += weight * truth.known[index]
    total = weights if norm == "sum" else votes.max(axis=1, keepdims=True)
    return np.divide(votes, total, out=np.zeros(shape, np.float32), where=total > 0)
