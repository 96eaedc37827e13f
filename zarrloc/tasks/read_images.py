"""Ingesting one block: its files are read one by one into whole fields.

A file that cannot be used leaves a zero field and its reason in `error`. Fields that stand in the
store already are taken from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.engine.block import Block, Output
from zarrloc.errors import SourceError
from zarrloc.groups.fovs import DIGESTED, GROUP
from zarrloc.images import files, find, read, tiff
from zarrloc.images.find import FovSource
from zarrloc.pixels import background
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import read_column

COLUMNS = (*DIGESTED, "source_digest", "source_hash")

REMOVED = "its file is no longer in SOURCE, and the store's copy was marked as damaged"


@dataclass(frozen=True)
class Job:
    """What to do for one row: read these files, or, where None, keep what the store has."""

    source: FovSource | None
    identity: int
    keep: bool


@dataclass(frozen=True)
class IngestStage:
    """Reads a block's files into `(fov, channel, y, x)`."""

    location: Location
    roles: tuple[str, ...]
    by_name: bool
    """Channels are put in order by their names in the file, not by place."""
    dtype: str
    height: int
    width: int
    axes: str | None
    project: str | None
    unsigned: bool = False
    reader: tiff.Reader | None = None
    group: str = GROUP
    array: str | None = "image"
    on_device: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, block: Block, clock: StoreClock) -> Any:
        """Fields and columns of the block, read from files or kept from the store."""
        rows = _Rows.of(len(block), len(self.roles), self.height, self.width, self.dtype)
        jobs: Sequence[Job] = block.payload
        kept = self._stored(block, clock) if any(job.keep for job in jobs) else None
        for at, (row, job) in enumerate(zip(block.rows, jobs, strict=True)):
            if row in block.skip:
                rows.error[at] = block.skip[row]
            elif job.keep and kept is not None:
                rows.copy(at, kept)
            else:
                self._read_row(rows, at, job)
        return rows

    def device(self, data: Any) -> Any:
        """Nothing to compute."""
        return data

    def finish(self, block: Block, state: Any) -> Output:
        """The block's rows."""
        aside = {"source_digest": state.digest, "source_hash": state.content}
        columns = {"height": state.height, "width": state.width, "error": state.error}
        return Output(state.image, {**columns, "background": state.background}, aside)

    def _read_row(self, rows: "_Rows", at: int, job: Job) -> None:
        source = job.source
        rows.digest[at] = job.identity
        if source is None:
            rows.error[at] = REMOVED
            return
        try:
            rows.put(at, self.read_field(source))
            # An object's ETag speaks of its content already; a second download would tell no more.
            if not files.is_remote(source.paths[0]):
                rows.content[at] = find.content_hash(source, unsigned=self.unsigned)
        except SourceError as error:
            rows.error[at] = str(error)

    def read_field(self, source: FovSource) -> npt.NDArray[Any]:
        """One field `(channel, y, x)` in the store's dtype and channel order. SourceError."""
        pixels = read.read_field(
            source,
            self.roles,
            channels_given=not self.by_name,
            project=self.project,
            reader=self.reader
            or partial(
                read.read_uri,
                axes=self.axes,
                channels=len(self.roles),
                unsigned=self.unsigned,
                check=self._check_header,
            ),
        )
        self._check(pixels.dtype.name, *pixels.shape[1:])
        return pixels

    def _check_header(self, about: tiff.Header) -> None:
        # A small file may declare gigabytes: what can't be a field here is never decoded.
        tiff.check_stack(about.size("T"), about.size("Z"), self.project)
        if about.size("C") > len(self.roles):
            raise SourceError(
                f"has {about.size('C')} channels, expected {len(self.roles)} "
                f"({', '.join(self.roles)})"
            )
        self._check(about.dtype, about.size("Y"), about.size("X"))

    def _check(self, dtype: str, height: int, width: int) -> None:
        if dtype != self.dtype:
            raise SourceError(f"has dtype {dtype}, the store holds {self.dtype}")
        if height > self.height or width > self.width:
            raise SourceError(
                f"is {height}x{width} px, larger than the store's {self.height}x{self.width}; "
                f"ingest anew with --field-size {max(height, self.height)}x{max(width, self.width)}"
            )

    def _stored(self, block: Block, clock: StoreClock) -> "_Rows":
        group = self.location.group(GROUP, mode="r", clock=clock)
        values = {
            name: read_column(group, name, block.stop, block.start) for name in ("image", *COLUMNS)
        }
        return _Rows(
            values["image"],
            values["height"],
            values["width"],
            values["background"],
            values["error"],
            values["source_digest"],
            values["source_hash"],
        )


@dataclass
class _Rows:
    """A block's rows while they are filled."""

    image: npt.NDArray[Any]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]
    error: npt.NDArray[Any]
    digest: npt.NDArray[np.uint64]
    content: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, rows: int, channels: int, height: int, width: int, dtype: str) -> "_Rows":
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

    def copy(self, at: int, other: "_Rows") -> None:
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[at] = theirs[at]
