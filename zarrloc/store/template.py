"""What the arrays of a group look like before they hold anything."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

COLUMN_CHUNK = 8192
"""Rows of a per-row column in one chunk: fixed, so that appending never rewrites old layouts."""

PENDING = "pending"
"""The `error` of a row that no run has reached yet."""

# By benchmarks/codecs.py on real 16-bit fields: writes 1.6 to 3.4 times as fast as blosc's zstd at
# levels 1 to 5, for 2 to 5 % more bytes. The checksum makes any reader, not only zarrloc, notice
# a damaged chunk.
PIXELS = (BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec())
COLUMNS = (BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"), Crc32cCodec())


@dataclass(frozen=True)
class Variable:
    """One array of a group: `dims` name its axes; `grid` arrays are written by workers."""

    dims: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    fill: Any = 0
    grid_chunk: int = 0
    """0: a column, written by the coordinator. Else rows in one chunk of a worker's array."""
    grid_shard: int = 0
    """Rows in one shard, where it differs from the chunk."""
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def like(cls, dims: tuple[str, ...], values: npt.NDArray[Any], **rest: Any) -> "Variable":
        """The variable that holds `values`, `string` where they are text."""
        text = values.dtype.kind in "TUO"
        return cls(dims, "string" if text else values.dtype.str, values.shape, **rest)

    def metadata(self, separator: str = "/") -> dict[str, Any]:
        """The array's Zarr metadata; `separator` stands between the parts of a chunk's key."""
        rows, *rest = self.shape or (1,)
        shards: tuple[int, ...] | None = None
        if self.grid_chunk:
            chunks = (self.grid_chunk, *rest)
            shards = (self.grid_shard, *rest) if self.grid_shard else None
        else:
            chunks = (COLUMN_CHUNK, *rest)
        text = self.dtype == "string"
        written: dict[str, Buffer] = {}  # by zarr itself, so that the form is its business
        zarr.create_array(
            MemoryStore(written),
            shape=(rows, *rest),
            dtype=zarr.dtype.VariableLengthUTF8() if text else self.dtype,  # type: ignore[arg-type]
            chunks=tuple(max(1, size) for size in chunks),
            shards=shards,
            compressors=PIXELS if self.grid_chunk else COLUMNS,
            fill_value="" if text and self.fill == 0 else self.fill,
            dimension_names=self.dims,
            attributes=dict(self.attrs),
            chunk_key_encoding={"name": "default", "separator": separator},
        )
        return dict(json.loads(written["zarr.json"].to_bytes()))


def separator_of(metadata: Mapping[str, Any]) -> str:
    """What stands between the parts of an array's chunk keys."""
    return str(metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/"))
