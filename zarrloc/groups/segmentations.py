"""What stages read of `segmentations/<name>`, and of the fields beneath, FOV by FOV."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zarrloc.errors import StoreError
from zarrloc.groups.fovs import read_fovs
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import need, read_column, stage_attrs


@dataclass(frozen=True)
class Masks:
    """A segmentation without its pixels."""

    name: str
    fingerprint: str
    cell_count: npt.NDArray[np.int64]
    block_output: npt.NDArray[np.uint64]
    shard: int

    @classmethod
    def of(cls, location: Location, name: str) -> "Masks":
        """Read the description. `StoreError` where it is absent or not complete."""
        path = f"segmentations/{name}"
        group = need(location, path, f"segment STORE --name {name}")
        output = read_column(group, "block_output")
        if (output == 0).any():
            raise StoreError(
                f"{int((output == 0).sum())} of {len(output)} blocks of '{path}' are not done; "
                "run the same `zarrloc segment` again"
            )
        attrs = stage_attrs(group)
        count = read_column(group, "cell_count").astype(np.int64)
        return cls(name, attrs.fingerprint, count, output, attrs.block_rows)


class Parts(NamedTuple):
    """One field: `image (channel, y, x)`, `mask (y, x)`, `background (channel,)`."""

    image: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    background: npt.NDArray[np.float32]


@dataclass(frozen=True)
class FieldRun:
    """Consecutive fields with their masks, read as one slice."""

    start: int
    image: npt.NDArray[Any]
    mask: npt.NDArray[Any]
    background: npt.NDArray[np.float32]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]

    @property
    def fovs(self) -> range:
        """Rows of `fovs` in this run."""
        return range(self.start, self.start + len(self.image))

    def field(self, fov: int) -> Parts:
        """The real part of one field, its padding cut off."""
        at = fov - self.start
        height, width = int(self.height[at]), int(self.width[at])
        return Parts(
            self.image[at, :, :height, :width],
            self.mask[at, :height, :width],
            self.background[at],
        )


def read_fields(
    location: Location, name: str, fovs: npt.NDArray[np.integer[Any]], clock: StoreClock
) -> Iterator[FieldRun]:
    """The fields `fovs` (sorted, distinct) and their masks, in runs of consecutive rows."""
    masks = location.group(f"segmentations/{name}", mode="r", clock=clock)
    for run in np.split(fovs, np.flatnonzero(np.diff(fovs) != 1) + 1):
        if len(run):
            start, stop = int(run[0]), int(run[-1]) + 1
            found = read_fovs(location, start, stop, clock)
            mask = read_column(masks, "mask", stop, start)
            yield FieldRun(start, found.image, mask, found.background, found.height, found.width)
