"""Channel names and the size of a pixel, as OME-TIFF and ImageJ write them."""

from xml.etree import ElementTree

import tifffile

_UNITS_UM = {
    "nm": 1e-3,
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


def channels_and_pixel_size(
    tif: tifffile.TiffFile,
) -> tuple[tuple[str, ...] | None, float | None]:
    """Names in the file's order, one a channel or one a plane, and micrometres per pixel.

    None for what the file does not say. Resolution tags without ImageJ's unit are not believed:
    they are dots per inch.
    """
    if tif.is_ome:
        return _ome(tif.ome_metadata)
    if tif.imagej_metadata:
        resolution = tif.pages[0].tags.valueof("XResolution")
        return _imagej(tif.imagej_metadata, resolution or (0, 1))
    return None, None


def _ome(xml: str) -> tuple[tuple[str, ...] | None, float | None]:
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    if pixels is None:
        return None, None
    names = [channel.get("Name", "") for channel in pixels.iterfind("{*}Channel")]
    size = float(pixels.get("PhysicalSizeX", "0"))
    scale = _UNITS_UM.get(pixels.get("PhysicalSizeXUnit", "\u00b5m"), 0)
    return tuple(names) if all(names) else None, size * scale if size * scale > 0 else None


def _imagej(
    metadata: dict[str, object], resolution: tuple[int, int]
) -> tuple[tuple[str, ...] | None, float | None]:
    labels = metadata.get("Labels")
    scale = _UNITS_UM.get(str(metadata.get("unit")).lower(), 0)
    pixels, units = resolution
    return (
        tuple(labels) if isinstance(labels, list) else None,
        units / pixels * scale if pixels and units and scale else None,
    )
