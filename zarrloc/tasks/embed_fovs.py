"""Embedding fields of view: one feature vector a field.

A block is one shard of fields. Its pixels go to the device as stored; cropping the padding,
resizing, normalising and mapping channels happen there, in batches of fields of one size.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zarrloc.engine.block import Block, Output
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import read_fovs
from zarrloc.models.classic import Classic
from zarrloc.models.forward import Forward, inference
from zarrloc.store.location import Location, StoreClock
from zarrloc.tasks import rows


class Fields(NamedTuple):
    """A block's fields as stored."""

    error: npt.NDArray[Any]
    """`(fov,)` text; not empty where a field has no pixels here."""
    groups: list[tuple[list[int], Tensor]]
    """Fields of one size: their places in the block, and `(n, channel, y, x)`."""


class Features(NamedTuple):
    """What the backbone made of a block's fields."""

    features: npt.NDArray[np.float32]
    """`(fov, feature)`, NaN where there is none."""
    largest: npt.NDArray[np.float32]
    """`(fov,)`, the largest absolute value that went in."""
    error: npt.NDArray[Any]


@dataclass(frozen=True)
class EmbedFovs:
    """The stage's work on one block. `height`, `width`, `dtype` are those of the store's fields."""

    location: Location
    group: str
    forward: Forward | Classic
    height: int
    width: int
    dtype: str
    precision: str
    array: str | None = "embedding"

    def settle(self) -> dict[str, Any]:
        """How this worker executes it."""
        return self.forward.settle(self.height, self.width, self.dtype, self.precision)

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""
        return replace(self, forward=replace(self.forward, execution=execution))

    @property
    def on_device(self) -> bool:
        """Whether a GPU worker helps."""
        return self.forward.on_device

    def open(self) -> None:
        """Load the backbone."""
        self.forward.load()

    def read(self, block: Block[None], clock: StoreClock) -> Fields:
        """The block's errors, and its fields by size."""
        found = read_fovs(self.location, block.start, block.stop, block.part.expect[FOVS], clock)
        error = np.array(
            [f"fovs: {text}" if text else "" for text in found.error], np.dtypes.StringDType()
        )
        sizes: dict[tuple[int, int], list[int]] = {}
        for at in range(len(block)):
            if not error[at]:
                sizes.setdefault((int(found.height[at]), int(found.width[at])), []).append(at)
        for row, reason in block.skip.items():
            # Its place in the batch stays, blank: the neighbours' values must not depend on it.
            found.image[row - block.start] = 0
            error[row - block.start] = reason
        groups = [
            (rows, self.forward.upload(found.image[rows, :, :height, :width]))
            for (height, width), rows in sizes.items()
        ]
        return Fields(error, groups)

    def device(self, data: Fields) -> Features:
        """Features of all fields."""
        error, groups = data
        features = np.full((len(error), self.forward.width), np.nan, np.float32)
        largest = np.zeros(len(error), np.float32)
        with inference(self.forward.execution["threads"]):
            for rows, images in groups:
                features[rows], largest[rows] = self.forward.fitting(
                    partial(self.forward.batches, images)
                )
        return Features(features, largest, error)

    def finish(self, block: Block[None], state: Features) -> Output:
        """The block's rows."""
        features, largest, error = state
        return rows.embedded(features, largest, error, error != "")
