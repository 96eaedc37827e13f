"""CZI, LIF and ND2 through bioio, where its reader is installed: `pip install zarrloc[formats]`."""

import importlib
import logging
from typing import Any

import numpy as np

from zarrloc.errors import SourceError
from zarrloc.images import files
from zarrloc.images.fields import FovSource, identity
from zarrloc.images.tiff import Check, Header, Image

READERS = {".czi": "bioio_czi", ".lif": "bioio_lif", ".nd2": "bioio_nd2"}
EXTRA = "zarrloc[formats]"


def fields(uri: str) -> list[FovSource]:
    """The scenes of a file, at `uri#0`, `uri#1`... Raises SourceError."""
    image = _opened(uri)
    scenes = list(map(str, image.scenes))
    stem = files.base_name(uri).rpartition(".")[0]
    same = identity([files.stat(uri)])
    named = len(set(scenes)) == len(scenes)
    return [
        FovSource(
            stem if len(scenes) == 1 else f"{stem}_{scene if named else place}".replace("/", "_"),
            (f"{uri}#{place}",),
            same,
            "image",
        )
        for place, scene in enumerate(scenes)
    ]


def header(uri: str, place: int) -> Header:
    """What the file says of one of its scenes. Raises SourceError."""
    return _about(_scene(uri, place))


def read(uri: str, place: int, check: Check | None = None) -> Image:
    """The pixels of one scene. Raises SourceError."""
    image = _scene(uri, place)
    about = _about(image)
    about.approve(check)
    try:
        pixels = np.ascontiguousarray(image.get_image_data(about.axes))
    except Exception as error:  # each vendor's library raises its own
        # Such as scans of spectra or along z, which are no fields.
        raise SourceError(
            f"{_reader(uri)} cannot read it ({_first_line(error)}); export it as OME-TIFF"
        ) from error
    return Image(pixels, about.axes, about.channel_names, about.pixel_size_um)


def _scene(uri: str, place: int) -> Any:
    image = _opened(uri)
    try:
        image.set_scene(place)
    except Exception as error:
        raise SourceError(f"has no image {place}: {error}") from error
    return image


def _opened(uri: str) -> Any:
    module = READERS[uri[-4:].lower()]
    if files.is_remote(uri):
        raise SourceError("lies in an object store, where this format is not read; copy it first")
    try:
        bioio, reader = importlib.import_module("bioio"), importlib.import_module(module)
    except ImportError as error:
        raise SourceError(
            f"needs bioio and {_reader(uri)} to be read: pip install '{EXTRA}' ({error})"
        ) from error
    # What it logs of a file that it cannot read is in what it raises.
    logging.getLogger("bioio").addHandler(logging.NullHandler())
    try:
        return bioio.BioImage(uri, reader=reader.Reader)
    except Exception as error:  # each vendor's library raises its own
        raise SourceError(f"{_reader(uri)} cannot open it: {_first_line(error)}") from error


def _reader(uri: str) -> str:
    """The reader's name, as it is installed by."""
    return READERS[uri[-4:].lower()].replace("_", "-")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _about(image: Any) -> Header:
    try:
        axes = "".join(axis for axis in "TZCYX" if axis in image.dims.order)
        shape = tuple(int(getattr(image.dims, axis)) for axis in axes)
        names = tuple(map(str, image.channel_names or ())) or None
        sides = [getattr(image.physical_pixel_sizes, axis) for axis in "XY"]
        dtype = np.dtype(image.dtype).name
    except Exception as error:  # each vendor's library raises its own
        raise SourceError(f"cannot be understood: {error}") from error
    return Header(shape, axes, dtype, names, *(float(side) if side else None for side in sides))
