"""Which module reads which file: TIFF and its companions, PNG, OME-Zarr, CZI, LIF and ND2."""

import re

from zarrloc.images import bio, files, ome_set, ome_zarr, png, tiff
from zarrloc.images.fields import FovSource
from zarrloc.images.tiff import Check, Header, Image

PLAIN = (".tif", ".tiff", png.SUFFIX)
"""Files of one image each."""

_ZARR = re.compile(r"\.zarr(/|$)", re.IGNORECASE)


def is_plain(name: str) -> bool:
    """Whether a file's name is that of one image: a TIFF, a PNG."""
    return name.lower().endswith(PLAIN)


def is_picture(name: str) -> bool:
    """Whether a file may be a picture of something else, such as a plot beside the images."""
    return name.lower().endswith(png.SUFFIX)


def is_other(name: str) -> bool:
    """Whether a name is that of a file, or a Zarr folder, which may hold several images."""
    return name.lower().endswith((".zarr", ome_set.SUFFIX, *bio.READERS))


def fields(uri: str, *, unsigned: bool = False) -> list[FovSource]:
    """The images of a file of another kind than TIFF. Raises SourceError."""
    if _ZARR.search(uri):
        return ome_zarr.fields(uri, unsigned=unsigned)
    return ome_set.fields(uri) if uri.lower().endswith(ome_set.SUFFIX) else bio.fields(uri)


def header(
    uri: str, *, axes: str | None = None, channels: int | None = None, unsigned: bool = False
) -> Header:
    """Describe an image without decoding it; arguments and errors as of `tiff.header`."""
    path, place = files.without_scene(uri)
    if _ZARR.search(path):
        return ome_zarr.header(path, unsigned=unsigned)
    if place is not None:
        if path.endswith(ome_set.SUFFIX):
            return ome_set.header(path, place)
        return bio.header(path, place)
    content = files.content(path, unsigned=unsigned)
    if is_picture(path):
        return png.header(content)
    return tiff.header(content, axes=axes, channels=channels)


def read(
    uri: str,
    *,
    axes: str | None = None,
    channels: int | None = None,
    unsigned: bool = False,
    check: Check | None = None,
) -> Image:
    """Read an image; arguments and errors as of `tiff.read`."""
    path, place = files.without_scene(uri)
    if _ZARR.search(path):
        return ome_zarr.read(path, unsigned=unsigned, check=check)
    if place is not None:
        if path.endswith(ome_set.SUFFIX):
            return ome_set.read(path, place, check)
        return bio.read(path, place, check)
    content = files.content(path, unsigned=unsigned)
    if is_picture(path):
        return png.read(content, check=check)
    return tiff.read(content, axes=axes, channels=channels, check=check)


def contents(uri: str) -> list[str]:
    """The files whose bytes an image is made of."""
    path, place = files.without_scene(uri)
    if _ZARR.search(path):
        return ome_zarr.contents(path)
    if place is not None and path.endswith(ome_set.SUFFIX):
        return ome_set.contents(path, place)
    return [path]
