"""TIFF files in, checked before a pixel is decoded: the Reader seam and the built-in reader.

OpenCell's ImageJ hyperstacks, OME-TIFF and plain (multi-page) TIFF, classic or big, compressed or
not. Every refusal is a SourceError whose message stands alone as a field's `error`.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tifffile

from zarrloc.errors import SourceError
from zarrloc.images import dtypes, micromanager
from zarrloc.images.tiff_metadata import channels_and_pixel_size
from zarrloc.pixels import project as projection
from zarrloc.store import retry

AXES = "TZCYX"

_BINARY_ONLY = re.compile(r"<BinaryOnly\b[^>]*\bMetadataFile=\"([^\"]*)\"")

# Deflate reaches 1032:1. A blank field packs tighter with other codecs, but is small.
MOST_COMPRESSED = 1100
ALWAYS_ALLOWED_BYTES = 64 << 20
MOST_BYTES = 4 << 30  # of one file's decoded pixels: a stack is held whole


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels are decoded. `dtype` is a numpy name."""

    shape: tuple[int, ...]
    axes: str
    dtype: str
    channel_names: tuple[str, ...] | None
    pixel_size_um: float | None
    """Width of a pixel."""
    pixel_height_um: float | None = None

    def size(self, axis: str) -> int:
        """Length along one of `TZCYX`; 1 where the file has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def approve(self, check: "Check | None") -> None:
        """Refuse what is not to be decoded: what `check` refuses, and what is too large to hold."""
        if check is not None:
            check(self)
        nbytes = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if nbytes > MOST_BYTES:
            raise SourceError(
                f"declares {nbytes:,} bytes of pixels, more than the {MOST_BYTES:,} that are read "
                "from one file; split it"
            )


Check = Callable[[Header], None]
"""Sees what a file declares before a pixel is decoded, and refuses it with a `SourceError`."""


@dataclass(frozen=True)
class Image:
    """One file's pixels with the meaning of their axes, a string over `TZCYX`."""

    pixels: npt.NDArray[Any]
    axes: str
    channel_names: tuple[str, ...] | None = None
    pixel_size_um: float | None = None


class Reader(Protocol):
    """Anything that turns a path or address into an Image; raises SourceError."""

    def __call__(self, uri: str, /) -> Image:
        """Read one file."""
        ...


@retry.persistent
def header(
    file: bytes | str | Path, *, axes: str | None = None, channels: int | None = None
) -> Header:
    """Describe an image without decoding it; arguments and errors as in `read`."""
    with _opened(file) as tif:
        return _header(tif, _checked_series(tif), axes, channels)


@retry.persistent
def read(
    file: bytes | str | Path,
    *,
    axes: str | None = None,
    channels: int | None = None,
    check: Check | None = None,
) -> Image:
    """Read a TIFF (a path, or a file's bytes) in its own dtype and native byte order.

    `axes` names the dimensions where the file does not ("CYX", "YXC", "ZCYX", "CZYX") and
    overrides it where it does. With `channels` given, pages of one flat sequence are folded into
    two leading axes. `check` sees what the file declares before a pixel is decoded, and refuses
    it with a SourceError. Raises SourceError: empty, not a TIFF, truncated or damaged, several
    images in one file, a dtype outside `dtypes.STORED`, unknown axes, over `MOST_BYTES`.
    """
    with _opened(file) as tif:
        series = _checked_series(tif)
        about = _header(tif, series, axes, channels)
        about.approve(check)
        pixels = series.asarray(maxworkers=1)
        layout = micromanager.layout(tif) if axes is None else None
        if layout is not None:
            pixels = pixels.reshape(-1, *about.shape[-2:])[list(layout.pages)]
        pixels = pixels.reshape(about.shape)
    native = np.ascontiguousarray(pixels, dtype=about.dtype)
    return Image(native, about.axes, about.channel_names, about.pixel_size_um)


def to_stack(image: Image) -> npt.NDArray[Any]:
    """Bring an image to `(z, channel, y, x)`, a view where possible, dtype unchanged.

    Raises SourceError on a time axis, a dtype outside `dtypes.STORED`, NaN or infinity.
    """
    pixels, axes = image.pixels, image.axes
    _check_axes(axes, pixels.shape)
    dtypes.check(pixels.dtype)
    for axis in AXES:
        if axis not in axes:
            pixels, axes = pixels[np.newaxis], axis + axes
    full = pixels.transpose([axes.index(axis) for axis in AXES])
    check_stack(full.shape[0], 1, None)
    if full.dtype.kind == "f":
        wrong = full.size - np.count_nonzero(np.isfinite(full))
        if wrong:
            raise SourceError(f"holds {wrong} pixels that are NaN or infinite")
    stack: npt.NDArray[Any] = full[0]
    return stack


def project(stack: npt.NDArray[Any], how: str | None) -> npt.NDArray[Any]:
    """One plane `(channel, y, x)` of `(z, channel, y, x)`, C-contiguous.

    Raises SourceError where there are several planes, and not `how` they become one.
    """
    check_stack(1, len(stack), how)
    plane = projection.project(stack, how) if how and len(stack) > 1 else stack[0]
    return np.ascontiguousarray(plane)


def check_stack(times: int, planes: int, project: str | None) -> None:
    """Raise SourceError for a time series, or for a stack that is not to be projected."""
    if times > 1:
        raise SourceError(f"has {times} time points, expected one; split the file")
    if planes > 1 and project is None:
        raise SourceError(
            f"is a stack of {planes} z planes; pass --project max (or mean, or focus)"
        )


@contextmanager
def _opened(file: bytes | str | Path) -> Iterator[tifffile.TiffFile]:
    # Hostile files make the parser raise anything at all: each becomes one SourceError.
    _check_magic(file)
    complaints: list[str] = []
    logging.getLogger("tifffile").addFilter(_COLLECT)
    token = _complaints.set(complaints)
    try:
        with ExitStack() as stack:
            source = io.BytesIO(file) if isinstance(file, bytes) else file
            tif = stack.enter_context(tifffile.TiffFile(source))
            if micromanager.TAG in tif.pages[0].tags:
                # Its OME-XML and its index speak of other files, too: pages are taken as they are.
                flags = {"is_ome": False, "is_imagej": False, "is_micromanager": False}
                tif = stack.enter_context(tifffile.TiffFile(source, **flags))
            yield tif
    except SourceError:
        raise
    except MemoryError as error:
        raise SourceError(retry.row_error(error)) from error
    except Exception as error:
        if not retry.is_of_a_row(error):
            raise
        raise SourceError(f"is truncated or damaged: {retry.detail(error)}") from error
    finally:
        _complaints.reset(token)


def _check_magic(file: bytes | str | Path) -> None:
    if isinstance(file, bytes):
        start = file[:4]
    else:
        try:
            with open(file, "rb") as opened:
                start = opened.read(4)
        except OSError as error:
            if not retry.is_of_a_row(error):
                raise
            raise SourceError(f"{retry.CANNOT_BE_OPENED}: {retry.reason(error)}") from error
    if not start:
        raise SourceError("is empty (0 bytes)")
    if start not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise SourceError(f"is not a TIFF (it begins with {start!r})")


def _checked_series(tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    found = [series for series in tif.series if not series.keyframe.is_reduced]
    _ = tif.pages[-1]  # parsed only when asked for; a cut-off tail shows here
    complaints = _complaints.get()
    if complaints:
        raise SourceError(f"is truncated or damaged: {complaints[0]}")
    if len(found) != 1:
        shapes = ", ".join(str(series.shape) for series in found)
        raise SourceError(
            f"holds {len(found)} images of shapes {shapes}; write one field of view a file"
        )
    series = found[0].levels[0]
    companion = tif.is_ome and _BINARY_ONLY.search(tif.ome_metadata)
    if companion:
        raise SourceError(
            f"is one of several files of an OME-TIFF that {companion[1]!r} describes; ingest the "
            "folder that holds this file too"
        )
    if series.is_multifile:
        raise SourceError("is one of several files of an OME-TIFF; write one field of view a file")
    dtypes.check(series.dtype)
    _check_extent(series, tif.filehandle.size)
    return series


def _check_extent(series: tifffile.TiffPageSeries, file_size: int) -> None:
    # Before anything is allocated: the data must lie inside the file and be able to hold the
    # pixels that are declared.
    if series.dataoffset is not None:
        missing = series.dataoffset + series.nbytes - file_size
        if missing > 0:
            raise SourceError(
                f"is truncated: {missing:,} of {series.nbytes:,} bytes of pixels are missing"
            )
        return
    stored = 0
    for page in series.pages:
        if page is None or 0 in page.databytecounts:
            raise SourceError("is truncated or damaged: some planes are missing")
        stored += sum(page.databytecounts)
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > file_size:
            raise SourceError("is truncated: it ends before its pixels do")
    page = series.keyframe
    most = stored * page.dtype.itemsize * 8 // page.bitspersample  # samples may be packed bits
    if page.compression != 1:
        most = max(MOST_COMPRESSED * stored, ALWAYS_ALLOWED_BYTES)
    if series.nbytes > most:
        raise SourceError(
            f"is truncated or damaged: it declares {series.nbytes:,} bytes of pixels "
            f"and stores {stored:,}"
        )


def _header(
    tif: tifffile.TiffFile,
    series: tifffile.TiffPageSeries,
    axes: str | None,
    channels: int | None,
) -> Header:
    shape = tuple(int(size) for size in series.shape)
    layout = micromanager.layout(tif) if axes is None else None
    if layout is not None:
        shape, dtype = (*layout.sizes, *shape[-2:]), np.dtype(series.dtype).name
        return Header(shape, "TZCYX", dtype, layout.names, layout.pixel_size_um)
    if axes is None:
        if not set(series.axes) <= set(AXES):
            raise SourceError(
                f"does not say what its axes mean (shape {shape}); pass --axes, as in --axes "
                f"{'CYX' if shape[-1] > 4 else 'YXC'}"
            )
        axes = str(series.axes)
    else:
        axes = axes.upper()
        shape = _folded(shape, axes, channels)
    _check_axes(axes, shape)
    names, pixel_size_um, pixel_height_um = channels_and_pixel_size(tif)
    if names is not None and len(names) != (shape[axes.index("C")] if "C" in axes else 1):
        names = None
    return Header(shape, axes, np.dtype(series.dtype).name, names, pixel_size_um, pixel_height_um)


def _folded(shape: tuple[int, ...], axes: str, channels: int | None) -> tuple[int, ...]:
    # Writers without metadata leave a flat run of pages: (z * channel, y, x) for "ZCYX".
    if len(axes) == len(shape) or not axes.endswith("YX"):
        return shape
    pages = math.prod(shape[:-2])
    leading = axes[:-2]
    if len(leading) == 1:
        return (pages, *shape[-2:])
    if len(leading) == 2 and "C" in leading and channels and pages % channels == 0:
        other = pages // channels
        return (*((channels, other) if leading[0] == "C" else (other, channels)), *shape[-2:])
    return shape


def _check_axes(axes: str, shape: tuple[int, ...]) -> None:
    strange = set(axes) - set(AXES)
    if strange or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise SourceError(f"axes {axes!r} are not usable; each of {AXES} at most once, Y and X")
    if len(axes) != len(shape):
        raise SourceError(f"has shape {shape}, which axes {axes!r} do not fit")
    if 0 in shape:
        raise SourceError(f"has no pixels (shape {shape})")


# tifffile reports damage by logging it. While one of our reads is on, what it logs is collected
# as the reason to refuse the file and goes nowhere else. A context variable keeps threads apart.
_complaints: ContextVar[list[str] | None] = ContextVar("complaints", default=None)
_OBJECT = re.compile(r"<tifffile\.[^>]*>\s*|<TiffTag\.fromfile>\s*")


class _Collect(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        complaints = _complaints.get()
        if complaints is None:
            return True
        message = record.getMessage()
        # An odd tag is harmless unless its value lies beyond the file's end.
        if "TiffTag" not in message or "offset" in message:
            complaints.append(_OBJECT.sub("", message))
        return False


_COLLECT = _Collect()
