"""Channel names and the size of a pixel, as OME-TIFF and ImageJ write them."""

import re
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

_UNITS_UM = {
    "nm": 1e-3,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "\\u00b5m": 1.0,  # spelt out, as ImageJ writes it
    "micron": 1.0,
    "microns": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}


# `c:1/3 z:2/5 - DAPI` of ImageJ and Bio-Formats: what stands behind the counts.
_COUNTS = re.compile(r"(?:[czt]:\d+/\d+\s*)+(?:-\s*)?", re.IGNORECASE)
_FILE_NAME = re.compile(
    r"\.(tiff?|lif|czi|nd2|stk|oi[bf]|lsm|ims|dv|vsi|png|jpe?g)\b", re.IGNORECASE
)


def to_um(size: float, unit: str | None) -> float | None:
    """A length in micrometres; None for one without a unit, or none at all."""
    scale = _UNITS_UM.get(str(unit).lower(), _UNITS_UM.get(str(unit), 0))
    return size * scale if size * scale > 0 else None


class About(NamedTuple):
    """What a file says of its channels and pixels; None for what it does not say."""

    names: tuple[str, ...] | None = None
    """Names in the file's order, one for each channel or plane."""
    width_um: float | None = None
    height_um: float | None = None


def channels_and_pixel_size(tif: tifffile.TiffFile) -> About:
    """Channel names and micrometres per pixel, as OME-TIFF, ImageJ and MetaXpress write them.

    Resolution tags without ImageJ's unit are not believed: they are dots per inch.
    """
    if tif.is_ome:
        return ome(tif.ome_metadata)
    if tif.imagej_metadata:
        tags = tif.pages[0].tags
        resolution = [tags.valueof(f"{axis}Resolution") or (0, 1) for axis in "XY"]
        return _imagej(tif.imagej_metadata, *resolution)
    if tif.is_metaseries:
        return _metaseries(tif.metaseries_metadata or {})
    return About()


def ome(xml: str, image: int = 0) -> About:
    """Read them from OME-XML."""
    pixels = ElementTree.fromstring(xml).findall(".//{*}Pixels")[image : image + 1]
    if not pixels:
        return About()
    names = [channel.get("Name", "") for channel in pixels[0].iterfind("{*}Channel")]
    sides = [_physical(pixels[0], axis) for axis in "XY"]
    return About(tuple(names) if all(names) else None, *sides)


def _physical(pixels: ElementTree.Element, axis: str) -> float | None:
    size = float(pixels.get(f"PhysicalSize{axis}", "0"))
    scale = _UNITS_UM.get(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"), 0)
    return size * scale if size * scale > 0 else None


def _imagej(metadata: dict[str, object], *resolution: tuple[int, int]) -> About:
    labels = metadata.get("Labels")
    scale = _UNITS_UM.get(str(metadata.get("unit")).lower(), 0)
    sides = [
        units / pixels * scale if pixels and units and scale else None
        for pixels, units in resolution
    ]
    return About(_spoken(labels) if isinstance(labels, list) else None, *sides)


def _spoken(labels: list[str]) -> tuple[str, ...] | None:
    """Labels of slices as names of channels; None where they are names of files, or counts."""
    names = [_COUNTS.sub("", label).strip() for label in labels]
    if not all(names) or any(map(_FILE_NAME.search, names)) or len(set(names)) < len(names):
        return None
    return tuple(names)


def _metaseries(metadata: dict[str, Any]) -> About:
    plane = metadata.get("PlaneInfo", {})
    if str(plane.get("spatial-calibration-state", "True")).lower() in ("off", "false"):
        return About()
    scale = _UNITS_UM.get(str(plane.get("spatial-calibration-units", "um")).lower(), 0)
    sides = [float(plane.get(f"spatial-calibration-{axis}") or 0) * scale or None for axis in "xy"]
    return About(None, *sides)
