"""Ingesting one block: its files are read one by one into whole fields.

A file that cannot be used leaves a zero field and its reason in `error`. Fields that stand in the
store already are taken from it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.engine.block import Block, Output
from zarrloc.errors import DamageError, SourceError
from zarrloc.groups.fovs import DIGESTED, GROUP
from zarrloc.groups.receipts import ROW_DIGEST, check_array, read_row
from zarrloc.images import dtypes, files, find, read, tiff
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import Channels
from zarrloc.images.shape import same_pixel
from zarrloc.pixels import background
from zarrloc.store.columns import read_column, read_columns
from zarrloc.store.location import Location, StoreClock

COLUMNS = (*DIGESTED, "source_digest", "source_hash")

REMOVED = (
    "the stored copy is damaged and its file is not in this SOURCE; ingest the one that has it"
)

PASSED = (REMOVED, find.CHANGED)
"""Errors that say nothing of a file's bytes: read again as soon as the file is there."""


@dataclass(frozen=True)
class Job:
    """What to do for one row."""

    source: FovSource | None
    identity: int
    keep: bool
    """Take the row from the store, if it is what was written."""


@dataclass(frozen=True)
class ReadImages:
    """Reads a block's files into `(fov, channel, y, x)`."""

    location: Location
    channels: Channels
    dtype: str
    height: int
    width: int
    axes: str | None
    project: str | None
    pixel_size_um: float | None = None
    """A file that says another size of a pixel is refused."""
    any_dtype: bool = False
    """The user chose the store's dtype, for files of any."""
    lossy: bool = False
    """Values that the dtype cannot hold are rounded and clipped."""
    unsigned: bool = False
    reader: tiff.Reader | None = None
    group: str = GROUP
    array: str | None = "image"
    on_device: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, block: Block[Sequence[Job]], clock: StoreClock) -> "Rows":
        """Fields and columns of the block, read from files or kept from the store."""
        rows = Rows.of(len(block), len(self.channels.roles), self.height, self.width, self.dtype)
        jobs = block.part.payload
        kept = self._stored(block, clock) if any(job.keep for job in jobs) else {}
        for at, (row, job) in enumerate(zip(block.rows, jobs, strict=True)):
            if row in block.skip:
                rows.error[at] = block.skip[row]
            elif at in kept:
                rows.copy(at, kept[at])
            else:
                with clock.running():
                    self._read_row(rows, at, job)
                clock.bytes += rows.image[at].nbytes
        return rows

    def device(self, data: "Rows") -> "Rows":
        """Nothing to compute."""
        return data

    def finish(self, block: Block[Sequence[Job]], state: "Rows") -> Output:
        """The block's rows."""
        aside = {"source_digest": state.source_digest, "source_hash": state.source_hash}
        columns = {"height": state.height, "width": state.width, "error": state.error}
        return Output(state.image, {**columns, "background": state.background}, aside)

    def _read_row(self, rows: "Rows", at: int, job: Job) -> None:
        source = job.source
        rows.source_digest[at] = job.identity
        if source is None:
            rows.error[at] = REMOVED
            return
        try:
            pixels, content = self.read_field(source), 0
            # An object's ETag speaks of its content already; a second download would tell no more.
            if not files.is_remote(source.paths[0]):
                content = find.content_hash(source, unsigned=self.unsigned)
            find.refuse_changed(source, unsigned=self.unsigned)
            rows.put(at, pixels)
            rows.source_hash[at] = content
        except SourceError as error:
            rows.error[at] = str(error)

    def read_field(self, source: FovSource) -> npt.NDArray[Any]:
        """One field `(channel, y, x)` in the store's dtype and channel order. SourceError."""
        pixels = read.read_field(
            source,
            self.channels,
            project=self.project,
            reader=self.reader
            or partial(
                read.read_uri,
                axes=self.axes,
                channels=len(self.channels.roles),
                unsigned=self.unsigned,
                check=partial(self._check_header, source),
            ),
        )
        self._check(pixels.dtype.name, *pixels.shape[1:])
        return dtypes.convert(pixels, self.dtype, lossy=self.lossy)

    def _check_header(self, source: FovSource, about: tiff.Header) -> None:
        # A small file may declare gigabytes: what can't be a field here is never decoded.
        tiff.check_stack(about.size("T"), about.size("Z"), self.project)
        if about.size("C") > len(self.channels.roles) and not self.channels.some:
            raise SourceError(
                f"has {about.size('C')} channels, expected {len(self.channels.roles)} "
                f"({', '.join(self.channels.roles)})"
            )
        self._check(about.dtype, about.size("Y"), about.size("X"))
        pixel = source.pixel_size_um or about.pixel_size_um
        if pixel and self.pixel_size_um and not same_pixel(pixel, self.pixel_size_um):
            raise SourceError(
                f"has pixels of {pixel:g} um, those of the store are {self.pixel_size_um:g} um; "
                "ingest it into a store of its own, or pass --pixel-size-um to take all as one size"
            )

    def _check(self, dtype: str, height: int, width: int) -> None:
        if not self.any_dtype and dtypes.STORED.get(dtype) != self.dtype:
            raise SourceError(
                f"has dtype {dtype}, the store holds {self.dtype}; ingest again with --dtype and "
                "--overwrite, or into a store of its own"
            )
        if height > self.height or width > self.width:
            raise SourceError(
                f"is {height}x{width} px, larger than the store's {self.height}x{self.width}; "
                "ingest again with --overwrite and --field-size "
                f"{max(height, self.height)}x{max(width, self.width)}"
            )

    def _stored(
        self, block: Block[Sequence[Job]], clock: StoreClock
    ) -> dict[int, dict[str, npt.NDArray[Any]]]:
        """The rows to be kept as the store has them, by place; those that are damaged left out."""
        keep = [at for at, job in enumerate(block.part.payload) if job.keep]
        with clock.running():
            group = self.location.group(self.group, mode="r")
            columns = read_columns(group, (ROW_DIGEST, *COLUMNS), block.stop, block.start)
            image = _sound(group, block.start, keep, columns.pop(ROW_DIGEST))
        clock.bytes += sum(pixels.nbytes for pixels in image.values())
        return {
            at: {"image": pixels, **{name: values[at] for name, values in columns.items()}}
            for at, pixels in image.items()
        }


def _sound(
    group: zarr.Group, start: int, keep: Sequence[int], digests: npt.NDArray[np.uint64]
) -> dict[int, npt.NDArray[Any]]:
    """Place -> pixels of the rows that are what was written: in one read, else row by row."""
    first, last = keep[0], keep[-1] + 1
    try:
        image = read_column(group, "image", start + last, start + first)
        check_array(GROUP, image, digests[first:last], start + first)
    except DamageError:
        found = {}
        for at in keep:
            with suppress(DamageError):
                found[at] = read_row(group, "image", start + at, digests, at)
        return found
    return {at: image[at - first] for at in keep}


@dataclass
class Rows:
    """A block's rows while they are filled."""

    image: npt.NDArray[Any]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]
    error: npt.NDArray[Any]
    source_digest: npt.NDArray[np.uint64]
    source_hash: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, rows: int, channels: int, height: int, width: int, dtype: str) -> "Rows":
        return cls(
            np.zeros((rows, channels, height, width), dtype),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros((rows, channels), np.float32),
            np.full(rows, "", np.dtypes.StringDType()),
            np.zeros(rows, np.uint64),
            np.zeros(rows, np.uint64),
        )

    def put(self, at: int, pixels: npt.NDArray[Any]) -> None:
        height, width = pixels.shape[1:]
        self.image[at, :, :height, :width] = pixels
        self.height[at], self.width[at] = height, width
        self.background[at] = background.measure(pixels)

    def copy(self, at: int, stored: Mapping[str, Any]) -> None:
        for name, value in stored.items():
            getattr(self, name)[at] = value
