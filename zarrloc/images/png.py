"""PNG as a source: grey or RGB, of 8 or 16 bits."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from zarrloc.errors import SourceError
from zarrloc.images.tiff import Check, Header, Image

SUFFIX = ".png"
MAGIC = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3}
"""Colour type of the format -> values a pixel: grey, RGB."""


def header(file: bytes | Path) -> Header:
    """What the first chunk says. Raises SourceError for what is no PNG, or one of another kind."""
    try:
        start = file[:33] if isinstance(file, bytes) else _start(file)
    except OSError as error:
        raise SourceError(f"cannot be opened: {error.strerror}") from error
    if not start:
        raise SourceError("is empty (0 bytes)")
    if len(start) < 33 or not start.startswith(MAGIC) or start[12:16] != b"IHDR":
        raise SourceError(f"is not a PNG (it begins with {start[:8]!r})")
    width, height, bits, colour = struct.unpack(">IIBB", start[16:26])
    samples = _SAMPLES.get(colour)
    if samples is None or bits not in (8, 16) or not width or not height:
        raise SourceError(
            f"is a PNG of {bits} bits and colour type {colour}, expected 8 or 16 bits, grey or RGB"
        )
    shape = (height, width) if samples == 1 else (height, width, samples)
    return Header(shape, "YX" if samples == 1 else "YXC", f"uint{bits}", None, None)


def read(file: bytes | Path, *, check: Check | None = None) -> Image:
    """The pixels of a PNG. Raises SourceError."""
    about = header(file)
    about.approve(check)
    try:
        content = file if isinstance(file, bytes) else file.read_bytes()
        pixels = np.ascontiguousarray(imagecodecs.png_decode(content))
    except OSError as error:
        raise SourceError(f"cannot be opened: {error.strerror}") from error
    except Exception as error:  # damage raises whatever the codec does
        raise SourceError(f"is truncated or damaged: {error}") from error
    if pixels.shape != about.shape or pixels.dtype != about.dtype:
        raise SourceError(f"decodes to {pixels.shape} {pixels.dtype}, it declares {about.shape}")
    return Image(pixels, about.axes)


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(33)
