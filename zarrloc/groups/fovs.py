"""What later stages read of `fovs`: its description once, its rows checked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zarrloc.errors import StoreError
from zarrloc.groups.receipts import ROW_DIGEST, check_rows, digest_of_rows
from zarrloc.pixels import background
from zarrloc.store.attrs import GroupAttrs
from zarrloc.store.columns import array_of, read_column, read_columns
from zarrloc.store.info import known_roles
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.read import need, stage_attrs
from zarrloc.store.template import PENDING, Variable

GROUP = "fovs"
DIGESTED = ("height", "width", "error", "background")
GRADES = "3 prominent, 2 less so, 1 weak, 0 not seen"


class FovsAttrs(GroupAttrs):
    """Attributes of `fovs`."""

    pixel_size_um: float | None = Field(gt=0, description="Side of a pixel in micrometres.")
    shard_fovs: int = Field(ge=1, description="Fields in one shard, the rows of one block.")


def template(
    rows: int, channels: int, height: int, width: int, dtype: str, shard: int
) -> dict[str, Variable]:
    """The arrays that `ingest` fills, before the names and facts that stand beside them."""
    return {
        "image": Variable(
            ("fov", "channel", "y", "x"),
            dtype,
            (rows, channels, height, width),
            grid_chunk=1,
            grid_shard=shard,
        ),
        "height": _pixels("rows of the image that are real, the rest is padding", rows),
        "width": _pixels("columns of the image that are real, the rest is padding", rows),
        "error": Variable(("fov",), "string", (rows,), PENDING),
        "background": Variable(
            ("fov", "channel"), "float32", (rows, channels), attrs={"method": background.METHOD}
        ),
        "source_digest": Variable(("fov",), "uint64", (rows,)),
        "source_hash": Variable(("fov",), "uint64", (rows,)),
    }


def _pixels(meaning: str, rows: int) -> Variable:
    return Variable(("fov",), "int32", (rows,), attrs={"units": "pixel", "long_name": meaning})


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
    receipts: dict[str, npt.NDArray[Any]]
    """The columns that blocks' digests cover."""
    coords: dict[str, npt.NDArray[Any]]
    """`fov`, `protein`, `ensg`, `cell_line`, for groups that stand on these rows."""

    @property
    def megapixels(self) -> float:
        """Pixels of a field in one channel, in millions."""
        return self.height * self.width / 1e6

    @classmethod
    def of(cls, location: Location) -> "Fovs":
        """Read the description. `StoreError` where fields are absent or not all ingested."""
        group = need(location, GROUP, "ingest SOURCE STORE")
        attrs = stage_attrs(group)
        names = ("fov", "protein", "ensg", "cell_line")
        receipts = (*DIGESTED, ROW_DIGEST)
        known = known_roles(group)
        wanted = [n for n in ("block_output", "channel", *receipts, *names) if n not in known]
        held = known | read_columns(group, wanted)
        output = held["block_output"]
        undone = int((output == 0).sum())
        if undone:
            raise StoreError(
                f"{undone} of {len(output)} blocks of 'fovs' are not ingested yet; "
                "run the same `zarrloc ingest` again"
            )
        return cls(
            rows=array_of(group, "image").shape[0],
            roles=tuple(map(str, held["channel"])),
            shard=attrs.block_rows,
            height=attrs.config["height"],
            width=attrs.config["width"],
            dtype=attrs.config["dtype"],
            pixel_size_um=group.attrs["pixel_size_um"],  # type: ignore[arg-type]
            fingerprint=attrs.fingerprint,
            block_output=output,
            receipts={name: held[name] for name in receipts},
            coords={name: held[name] for name in names},
        )

    def expect(self, start: int, stop: int) -> int:
        """What `read_fovs` must find in rows `start` to `stop`; of a block, its `block_output`."""
        return digest_of_rows(self.receipts, start, stop)


@dataclass(frozen=True)
class FovBlock:
    """The pixels of consecutive fields, and what is known of each."""

    image: npt.NDArray[Any]
    """`(fov, channel, y, x)`, padded; `height` and `width` say what is real."""
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]
    error: npt.NDArray[Any]


def read_fovs(
    location: Location, start: int, stop: int, expect: int, clock: StoreClock
) -> FovBlock:
    """Rows `start` to `stop` of `fovs`, read as one contiguous slice.

    Raises
    ------
    DamageError
        Where they are not what `expect`, from `Fovs.expect`, says.
    """
    with clock.running():
        group = location.group(GROUP, mode="r")
        columns = read_columns(group, (*DIGESTED, ROW_DIGEST), stop, start)
        image = read_column(group, "image", stop, start)
    clock.bytes += image.nbytes
    check_rows(GROUP, image, columns, start, expect)
    return FovBlock(image, **{name: columns[name] for name in DIGESTED})
