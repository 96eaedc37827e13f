"""Embedding fields of view: one feature vector a field.

A block is one shard of fields. Its pixels go to the device as stored; cropping the padding,
resizing, normalising and mapping channels happen there, in batches of fields of one size.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np

from zarrloc.engine.block import Block, Output
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import read_fovs
from zarrloc.models.classic import Classic
from zarrloc.models.forward import Forward, inference
from zarrloc.store.location import Location, StoreClock
from zarrloc.tasks import rows


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

    def read(self, block: Block, clock: StoreClock) -> Any:
        """The block's errors, and its fields by size: (rows in the block, pixels)."""
        found = read_fovs(self.location, block.start, block.stop, block.expect[FOVS], clock)
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
        return error, [
            (rows, self.forward.upload(found.image[rows, :, :height, :width]))
            for (height, width), rows in sizes.items()
        ]

    def device(self, data: Any) -> Any:
        """Features of all fields."""
        error, groups = data
        features = np.full((len(error), self.forward.width), np.nan, np.float32)
        largest = np.zeros(len(error), np.float32)
        with inference(self.forward.execution["threads"]):
            for rows, images in groups:
                features[rows], largest[rows] = self.forward.fitting(
                    partial(self.forward.batches, images)
                )
        return features, largest, error

    def finish(self, block: Block, state: Any) -> Output:
        """The block's rows."""
        features, largest, error = state
        return rows.embedded(features, largest, error, error != "")
