"""OME-TIFF with a companion: an XML file that says which page of which TIFF is which plane."""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from zarrloc.errors import SourceError
from zarrloc.images import files, tiff_metadata
from zarrloc.images.fields import FovSource, identity
from zarrloc.images.tiff import Check, Header, Image

SUFFIX = ".companion.ome"
MOST_PLANES = 100_000
_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Member:
    """One image of a companion: where each plane `(t, z, c)` lies, and what is said of it."""

    name: str
    about: Header
    planes: dict[tuple[int, int, int], tuple[str, int]]


def fields(uri: str) -> list[FovSource]:
    """The images that a companion describes, at `uri#0`, `uri#1`... SourceError."""
    members = _members(uri, files.stat(uri).stamp)
    stem = files.base_name(uri)[: -len(SUFFIX)]
    names = [member.name for member in members]
    named = len(set(names)) == len(names) and all(names)
    return [
        FovSource(
            stem if len(members) == 1 else f"{stem}_{member.name if named else place}",
            (f"{uri}#{place}",),
            identity(map(files.stat, contents(uri, place))),
            "image",
        )
        for place, member in enumerate(members)
    ]


def contents(uri: str, place: int) -> list[str]:
    """The companion and the TIFFs of one of its images."""
    member = _members(uri, files.stat(uri).stamp)[place]
    return [uri, *sorted({path for path, _ in member.planes.values()})]


def header(uri: str, place: int) -> Header:
    """What the companion says of an image."""
    return _members(uri, files.stat(uri).stamp)[place].about


def read(uri: str, place: int, check: Check | None = None) -> Image:
    """The planes of an image, from all its files. Raises SourceError."""
    member = _members(uri, files.stat(uri).stamp)[place]
    about = member.about
    about.approve(check)
    pixels = np.zeros(about.shape, about.dtype)
    with ExitStack() as stack:
        opened: dict[str, Any] = {}
        for index in product(*map(range, about.shape[:3])):
            path, page = member.planes.get((index[0], index[1], index[2]), ("", 0))
            if not path:
                raise SourceError(f"says nothing of plane t{index[0]} z{index[1]} c{index[2]}")
            try:
                if path not in opened:
                    opened[path] = stack.enter_context(tifffile.TiffFile(path, is_ome=False))
                plane = opened[path].pages[page].asarray()
            except Exception as error:  # hostile files make the parser raise anything
                raise SourceError(f"{files.base_name(path)}: cannot be read: {error}") from error
            if plane.shape != about.shape[3:] or plane.dtype != about.dtype:
                raise SourceError(
                    f"{files.base_name(path)}: is {plane.shape} {plane.dtype}, the companion says "
                    f"{about.shape[3:]} {about.dtype}"
                )
            pixels[index] = plane
    return Image(pixels, about.axes, about.channel_names, about.pixel_size_um)


@lru_cache(8)
def _members(uri: str, stamp: str) -> tuple[Member, ...]:
    """The images of a companion of that time."""
    xml = files.data(uri).decode("utf-8", errors="replace")
    try:
        root = ElementTree.fromstring(xml)
        images = root.findall("{*}Image")
        return tuple(_member(uri, image, xml, at) for at, image in enumerate(images))
    except (ElementTree.ParseError, KeyError, ValueError, TypeError) as error:
        raise SourceError(f"is not OME-XML: {error}") from error


def _member(uri: str, image: ElementTree.Element, xml: str, at: int) -> Member:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        raise ValueError("an Image without Pixels")
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "TZCYX"}
    if min(sizes.values()) < 1 or sizes["T"] * sizes["Z"] * sizes["C"] > MOST_PLANES:
        raise ValueError(f"sizes {sizes}")
    order = [axis for axis in pixels.attrib["DimensionOrder"] if axis in "TZC"]
    planes: dict[tuple[int, int, int], tuple[str, int]] = {}
    folder = os.path.dirname(uri)
    for data in pixels.iterfind("{*}TiffData"):
        uuid = data.find("{*}UUID")
        named = uuid is not None and uuid.get("FileName")
        if not named:
            continue
        first = {axis: int(data.get(f"First{axis}", 0)) for axis in "TZC"}
        page = int(data.get("IFD", 0))
        count = int(data.get("PlaneCount", 1 if "IFD" in data.attrib else 0))
        start = _flat(first, order, sizes)
        total = sizes["T"] * sizes["Z"] * sizes["C"]
        for step in range(min(count or total, total - start)):
            place = _unflat(start + step, order, sizes)
            # A name is a name: no path leads out of the companion's folder.
            path = os.path.join(folder, os.path.basename(str(named)))
            planes[place["T"], place["Z"], place["C"]] = (path, page + step)
    names, width, height = tiff_metadata.ome(xml, at)
    if names is not None and len(names) != sizes["C"]:
        names = None
    dtype = pixels.attrib["Type"]
    shape = tuple(sizes[axis] for axis in "TZCYX")
    about = Header(shape, "TZCYX", _TYPES.get(dtype, dtype), names, width, height)
    return Member(image.get("Name", ""), about, planes)


def _flat(place: dict[str, int], order: list[str], sizes: dict[str, int]) -> int:
    flat, step = 0, 1
    for axis in order:
        flat += place[axis] * step
        step *= sizes[axis]
    return flat


def _unflat(flat: int, order: list[str], sizes: dict[str, int]) -> dict[str, int]:
    place = {}
    for axis in order:
        flat, place[axis] = divmod(flat, sizes[axis])
    return place
