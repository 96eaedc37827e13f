"""What later stages read of `fovs`: its description once, its blocks whole and checked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.engine.block import Block, BlockFailure, output_digest
from zarrloc.errors import StoreError
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import array_of, need, read_column, stage_attrs

GROUP = "fovs"
DIGESTED = ("height", "width", "error", "background")


@dataclass(frozen=True)
class Fovs:
    """The fields of a store, without their pixels."""

    rows: int
    roles: tuple[str, ...]
    shard: int
    height: int
    width: int
    dtype: str
    pixel_size_um: float | None
    fingerprint: str
    block_output: npt.NDArray[np.uint64]
    coords: dict[str, npt.NDArray[Any]]
    """`fov`, `protein`, `ensg`, `cell_line`, for groups that stand on these rows."""

    @classmethod
    def of(cls, location: Location) -> "Fovs":
        """Read the description. `StoreError` where fields are absent or not all ingested."""
        group = need(location, GROUP, "ingest SOURCE STORE")
        attrs = stage_attrs(group)
        output = read_column(group, "block_output")
        undone = int((output == 0).sum())
        if undone:
            raise StoreError(
                f"{undone} of {len(output)} blocks of 'fovs' are not ingested yet; "
                "run the same `zarrloc ingest` again"
            )
        names = ("fov", "protein", "ensg", "cell_line")
        return cls(
            rows=array_of(group, "image").shape[0],
            roles=tuple(map(str, read_column(group, "channel"))),
            shard=attrs.block_rows,
            height=attrs.config["height"],
            width=attrs.config["width"],
            dtype=attrs.config["dtype"],
            pixel_size_um=attrs.config["pixel_size_um"],
            fingerprint=attrs.fingerprint,
            block_output=output,
            coords={name: read_column(group, name) for name in names},
        )


@dataclass(frozen=True)
class FovBlock:
    """The pixels of consecutive fields, and what is known of each."""

    image: npt.NDArray[Any]
    """`(fov, channel, y, x)`, padded; `height` and `width` say what is real."""
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]
    error: npt.NDArray[Any]


def read_fovs(location: Location, start: int, stop: int, clock: StoreClock) -> FovBlock:
    """Rows `start` to `stop` of `fovs`, read as one contiguous slice."""
    group = location.group(GROUP, mode="r", clock=clock)
    return FovBlock(
        **{name: read_column(group, name, stop, start) for name in ("image", *DIGESTED)}
    )


def read_fov_block(location: Location, block: Block, clock: StoreClock) -> FovBlock:
    """The block's fields, checked against the receipt its ingest left.

    Raises `BlockFailure` where they differ: the store changed meanwhile, or is damaged.
    """
    found = read_fovs(location, block.start, block.stop, clock)
    columns = {name: getattr(found, name) for name in DIGESTED}
    if output_digest("image", found.image, columns) != block.expect[GROUP]:
        raise BlockFailure(
            f"'fovs' block {block.index} is not what its receipt says: it is damaged, or was "
            "ingested anew meanwhile; `zarrloc verify STORE --deep --repair` tells and mends"
        )
    return found
