"""What stages read of `segmentations/<name>`, and of the fields beneath, FOV by FOV."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zarrloc.errors import StoreError
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs, read_fovs
from zarrloc.groups.receipts import ROW_DIGEST, check_rows, digest_of_rows
from zarrloc.store.attrs import GroupAttrs
from zarrloc.store.columns import read_column, read_columns
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.read import need, stage_attrs
from zarrloc.store.template import PENDING, Variable

COLUMNS = ("cell_count", "error")
RECEIPTS = (*COLUMNS, ROW_DIGEST)
MASK_DTYPE = "uint16"


class SegmentationAttrs(GroupAttrs):
    """Attributes of `segmentations/<name>`."""


def template(fovs: Fovs) -> dict[str, Variable]:
    """The arrays of a segmentation of `fovs`."""
    return {
        "mask": Variable(
            ("fov", "y", "x"),
            MASK_DTYPE,
            (fovs.rows, fovs.height, fovs.width),
            grid_chunk=1,
            grid_shard=fovs.shard,
            attrs={"long_name": "0 background, 1..n the objects of the field"},
        ),
        "cell_count": Variable(("fov",), "int32", (fovs.rows,)),
        "error": Variable(("fov",), "string", (fovs.rows,), PENDING),
        **{name: Variable.like(("fov",), values) for name, values in fovs.coords.items()},
    }


@dataclass(frozen=True)
class Masks:
    """A segmentation without its pixels."""

    name: str
    fingerprint: str
    cell_count: npt.NDArray[np.int64]
    block_output: npt.NDArray[np.uint64]
    shard: int
    receipts: dict[str, npt.NDArray[Any]]
    """The columns that blocks' digests cover."""

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
        receipts = {name: read_column(group, name) for name in RECEIPTS}
        count = receipts["cell_count"].astype(np.int64)
        return cls(name, attrs.fingerprint, count, output, attrs.block_rows, receipts)

    def expect(self, start: int, stop: int) -> int:
        """What `read_fields` must find in rows `start` to `stop`."""
        return digest_of_rows(self.receipts, start, stop)


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
    location: Location,
    name: str,
    start: int,
    stop: int,
    expect: Mapping[str, int],
    clock: StoreClock,
) -> FieldRun:
    """Fields `start` to `stop` and their masks, each read once.

    Raises
    ------
    DamageError
        Where they are not what `expect` says: group -> `Fovs.expect`, `Masks.expect`.
    """
    path = f"segmentations/{name}"
    found = read_fovs(location, start, stop, expect[FOVS], clock)
    with clock.running():
        group = location.group(path, mode="r")
        mask = read_column(group, "mask", stop, start)
        columns = read_columns(group, RECEIPTS, stop, start)
    clock.bytes += mask.nbytes
    check_rows(path, mask, columns, start, expect[path])
    return FieldRun(start, found.image, mask, found.background, found.height, found.width)
