"""OME-Zarr 0.4 and 0.5 as a source: images, the series of bioformats2raw, and plates."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from zarrloc.errors import SourceError
from zarrloc.images import files, wells
from zarrloc.images.fields import FovSource, identity
from zarrloc.images.tiff import Check, Header, Image
from zarrloc.images.tiff_metadata import to_um
from zarrloc.store.remote import RemoteStore

METADATA = ("zarr.json", ".zattrs")


def is_group(folder: str) -> bool:
    """Whether a local folder is a Zarr group."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (*METADATA, ".zgroup"))


def fields(uri: str, *, unsigned: bool = False) -> list[FovSource]:
    """The images below an OME-Zarr group; none for Zarr of another kind, such as our own stores.

    Raises SourceError where it cannot be opened.
    """
    name = files.base_name(uri).removesuffix(".zarr").removesuffix(".ome")
    return [
        FovSource(
            "_".join((name, *parts)),
            (path,),
            identity(files.stat(file, unsigned=unsigned) for file in contents(path)),
            "image",
            {"plate": name, **coords} if coords else {},
        )
        for path, parts, coords in _images(uri, unsigned)
    ]


def _images(uri: str, unsigned: bool) -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Address, the parts of a name, and plate coordinates of each image."""
    group = _group(uri, unsigned)
    about = _about(group)
    if "plate" in about:
        for well in about["plate"].get("wells", ()):
            place = str(well["path"]).strip("/")
            images = _about(_group(f"{uri}/{place}", unsigned)).get("well", {}).get("images", ())
            letters = "".join(place.split("/"))
            called = wells.name_of(letters) or letters
            for image in images:
                site = str(image["path"])
                coords = {"well": called, "site": site}
                yield f"{uri}/{place}/{site}", (called, f"s{site}"), coords
    elif "multiscales" in about:
        yield uri, (), {}
    elif "bioformats2raw.layout" in about:
        for key in sorted((k for k in group.group_keys() if k.isdecimal()), key=int):
            yield f"{uri}/{key}", (key,), {}


def header(uri: str, *, unsigned: bool = False) -> Header:
    """What an image says of itself. SourceError where it is none."""
    return _opened(uri, unsigned)[1]


def read(uri: str, *, unsigned: bool = False, check: Check | None = None) -> Image:
    """The pixels of the full resolution. Raises SourceError."""
    array, about = _opened(uri, unsigned)
    about.approve(check)
    try:
        pixels = np.ascontiguousarray(array[...], dtype=about.dtype)
    except Exception as error:  # damage raises whatever the codec does
        raise SourceError(f"cannot be decoded: {error}") from error
    return Image(pixels, about.axes, about.channel_names, about.pixel_size_um)


def contents(uri: str) -> list[str]:
    """The files that an image is made of: metadata and, on a disk, the full resolution."""
    if files.is_remote(uri):
        return [f"{uri}/{name}" for name in METADATA]
    found = [
        os.path.join(uri, name) for name in METADATA if os.path.isfile(os.path.join(uri, name))
    ]
    try:
        path = _about(_group(uri, False))["multiscales"][0]["datasets"][0]["path"]
    except (SourceError, LookupError, TypeError):
        return found
    for parent, folders, names in os.walk(os.path.join(uri, str(path))):
        folders.sort()
        found += [os.path.join(parent, name) for name in sorted(names)]
    return found


def _opened(uri: str, unsigned: bool) -> tuple[Any, Header]:
    about = _about(_group(uri, unsigned))
    try:
        image = about["multiscales"][0]
        level = image["datasets"][0]
        axes = [axis if isinstance(axis, str) else axis["name"] for axis in image["axes"]]
        units = [None if isinstance(axis, str) else axis.get("unit") for axis in image["axes"]]
        array = zarr.open_array(_store(uri, unsigned), path=str(level["path"]), mode="r")
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise SourceError(f"is not an OME-Zarr image: {type(error).__name__} {error}") from error
    letters = "".join(str(axis).upper() for axis in axes)
    if not set(letters) <= set("TZCYX") or len(letters) != array.ndim:
        raise SourceError(f"has axes {axes} for {array.ndim} dimensions, expected some of tczyx")
    scale = [1.0] * array.ndim
    for step in (
        *level.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ):
        if step.get("type") == "scale" and len(step.get("scale", ())) == array.ndim:
            scale = [a * float(b) for a, b in zip(scale, step["scale"], strict=True)]
    sides = [
        to_um(scale[letters.index(axis)], units[letters.index(axis)]) if axis in letters else None
        for axis in "XY"
    ]
    channels = array.shape[letters.index("C")] if "C" in letters else 1
    labels = [c.get("label") for c in about.get("omero", {}).get("channels", ())]
    names = tuple(map(str, labels)) if len(labels) == channels and all(labels) else None
    shape = tuple(map(int, array.shape))
    return array, Header(shape, letters, array.dtype.name, names, *sides)


def _group(uri: str, unsigned: bool) -> zarr.Group:
    try:
        return zarr.open_group(_store(uri, unsigned), mode="r", use_consolidated=False)
    except Exception as error:  # zarr, its codecs and object stores each raise their own
        raise SourceError(f"cannot be opened as Zarr: {error}") from error


def _store(uri: str, unsigned: bool) -> Any:
    if files.is_remote(uri):
        return RemoteStore.at(uri, read_only=True)
    return LocalStore(uri, read_only=True)


def _about(group: zarr.Group) -> dict[str, Any]:
    """The attributes that OME-NGFF defines: of 0.5 under `ome`, before it at the top."""
    attrs = dict(group.attrs)
    ome = attrs.get("ome")
    return ome if isinstance(ome, dict) else attrs
