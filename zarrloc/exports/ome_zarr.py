"""Fields as OME-Zarr 0.5: a plate where every well is known, else one image a field.

Each image has a pyramid, its channels' colours and contrast limits, and its masks as labels. A
level is one file, whatever its channels. https://ngff.openmicroscopy.org/0.5/
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

from zarrloc.exports.images import Channel, Field, Images
from zarrloc.exports.names import folder_names
from zarrloc.exports.pyramid import halved, halved_mask, levels
from zarrloc.images.wells import name_of, number_of_row

CHUNK = 1024
"""Longest side of a chunk, px."""

COMPRESSOR = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")

TAKEN = ("ome", "zarr.json")
"""Names that images cannot have beside one another."""

Json = dict[str, Any]

CLEAR: Json = {"label-value": 0, "rgba": [0, 0, 0, 0]}
"""The background of a mask hides nothing."""


def write_ome_zarr(images: Images, out: Path) -> list[str]:
    """Write every field that has an image; returns notes on what was made of them."""
    where, notes = _layout(images, out)
    for field in images:
        write_image(out / where[field.row], field, images, str(images.names[field.row]))
    return notes


# --- where each field goes ----------------------------------------------------------------------


def _layout(images: Images, out: Path) -> tuple[dict[int, str], list[str]]:
    """Path of each field below `out`, after the groups above them are written."""
    usable = [row for row, name in enumerate(images.names) if str(name) not in images.failed]
    wells = {row: name_of(str(images.text("well")[row])) for row in usable}
    unknown = sum(well is None for well in wells.values())
    if not wells or unknown:
        notes = [f"{unknown} fields name no well, so each field is an image of its own"]
        return _series(images, usable, out), notes if unknown < len(wells) else []
    plates: dict[str, dict[int, str]] = {}
    for row, well in wells.items():
        plates.setdefault(str(images.text("plate")[row]), {})[row] = str(well)
    if len(plates) == 1:
        ((plate, members),) = plates.items()
        return _plate(out, plate, members), [_summary(plate, members)]
    _group(out, {})
    where: dict[int, str] = {}
    folders = folder_names(list(plates), TAKEN)
    for (plate, members), folder in zip(plates.items(), folders, strict=True):
        found = _plate(out / folder, plate, members)
        where |= {row: f"{folder}/{path}" for row, path in found.items()}
    return where, [_summary(plate, members) for plate, members in plates.items()]


def _summary(plate: str, members: Mapping[int, str]) -> str:
    return f"plate {plate or '(no name)'}: {len(set(members.values()))} wells, {len(members)} sites"


def _series(images: Images, usable: Sequence[int], out: Path) -> dict[int, str]:
    names = folder_names([str(images.names[row]) for row in usable], TAKEN)
    _group(out, {"bioformats2raw.layout": 3})
    _group(out / "OME", {"series": names})
    return dict(zip(usable, names, strict=True))


def _plate(out: Path, name: str, members: Mapping[int, str]) -> dict[int, str]:
    """Write the groups of a plate; `members` is field -> well, such as B03."""
    places = {row: _place(well) for row, well in members.items()}
    rows = sorted({row for row, _ in places.values()}, key=number_of_row)
    columns = sorted({column for _, column in places.values()}, key=int)
    wells: dict[tuple[str, str], list[int]] = {}
    for field, place in sorted(places.items()):
        wells.setdefault(place, []).append(field)
    plate = {
        "version": "0.5",
        "name": name or out.stem,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "field_count": max(map(len, wells.values())),
        "wells": [
            {
                "path": f"{row}/{column}",
                "rowIndex": rows.index(row),
                "columnIndex": columns.index(column),
            }
            for row in rows
            for column in columns
            if (row, column) in wells
        ],
    }
    _group(out, {"plate": plate})
    for row in rows:
        _group(out / row, None)
    for (row, column), fields in wells.items():
        sites = [{"path": str(site)} for site in range(len(fields))]
        _group(out / row / column, {"well": {"images": sites}})
    return {
        field: f"{row}/{column}/{site}"
        for (row, column), fields in wells.items()
        for site, field in enumerate(fields)
    }


def _place(well: str) -> tuple[str, str]:
    """`B03` as row B, column 3."""
    row = well.rstrip("0123456789")
    return row, str(int(well.removeprefix(row)))


# --- one image ----------------------------------------------------------------------------------


def write_image(path: Path, field: Field, images: Images, name: str) -> None:
    """One multiscale image with its labels, at `path`."""
    sizes = levels(*field.image.shape[1:])
    scale = images.pixel_size_um
    omero = {
        "channels": [_channel(channel, images.dtype) for channel in images.channels],
        "rdefs": {"model": "color"},
    }
    described = _multiscale(name, ("c", "y", "x"), len(sizes), scale, centred=True)
    _group(path, {"multiscales": [described], "omero": omero})
    _write_levels(path, _halvings(field.image, halved, len(sizes)), ("c", "y", "x"))
    if not field.masks:
        return
    _group(path / "labels", {"labels": list(field.masks)})
    for label, mask in field.masks.items():
        described = _multiscale(label, ("y", "x"), len(sizes), scale, centred=False)
        label_metadata = {"colors": [CLEAR], "source": {"image": "../../"}}
        about = {"multiscales": [described], "image-label": label_metadata}
        _group(path / "labels" / label, about)
        _write_levels(path / "labels" / label, _halvings(mask, halved_mask, len(sizes)), ("y", "x"))


def _halvings(values: npt.NDArray[Any], half: Any, count: int) -> Iterator[npt.NDArray[Any]]:
    yield values
    for _ in range(count - 1):
        values = half(values)
        yield values


def _write_levels(path: Path, parts: Iterator[npt.NDArray[Any]], axes: tuple[str, ...]) -> None:
    for level, values in enumerate(parts):
        sides = [min(CHUNK, size) for size in values.shape[-2:]]
        whole = [
            -(-size // side) * side for size, side in zip(values.shape[-2:], sides, strict=True)
        ]
        array = zarr.create_array(
            str(path / str(level)),
            shape=values.shape,
            dtype=values.dtype,
            chunks=(*(1,) * (values.ndim - 2), *sides),
            shards=(*values.shape[:-2], *whole),
            compressors=COMPRESSOR,
            dimension_names=axes,
            zarr_format=3,
        )
        array[...] = values


def _multiscale(
    name: str, axes: Sequence[str], count: int, pixel_size_um: float | None, *, centred: bool
) -> Json:
    """Axes and scales; where pixels are means, a level's first pixel lies between those of the one
    before (`centred`)."""
    size = pixel_size_um or 1.0
    unit = {"unit": "micrometer"} if pixel_size_um else {}
    space = [{"name": axis, "type": "space", **unit} for axis in axes if axis != "c"]
    channel = [{"name": "c", "type": "channel"}] if "c" in axes else []
    lead = [1.0] * len(channel)
    datasets = []
    for level in range(count):
        steps: list[Json] = [{"type": "scale", "scale": [*lead, *[size * 2**level] * 2]}]
        if centred and level:
            shift = size * (2**level - 1) / 2
            move = {"type": "translation", "translation": [*[0.0] * len(lead), shift, shift]}
            steps.append(move)
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    return {"name": name, "axes": [*channel, *space], "datasets": datasets}


def _channel(channel: Channel, dtype: np.dtype[Any]) -> Json:
    most = float(np.iinfo(dtype).max) if dtype.kind in "iu" else channel.limits[1]
    start, end = channel.limits
    return {
        "label": channel.name,
        "color": channel.color.upper(),
        "active": True,
        "window": {"min": 0.0, "max": most, "start": start, "end": end},
    }


def _group(path: Path, ome: Json | None) -> None:
    attributes = {} if not ome else {"ome": {"version": "0.5", **ome}}
    zarr.create_group(str(path), attributes=attributes, zarr_format=3)
