"""Fields as SpatialData: images, masks as labels, and tables that annotate the masks.

https://spatialdata.scverse.org. Every field has a coordinate system of its own, since fields are
not registered to one another: its name, and micrometres where the pixel size is known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from zarrloc.config.export import ExportConfig
from zarrloc.errors import StoreError
from zarrloc.exports.ann_data import to_anndata
from zarrloc.exports.extras import library
from zarrloc.exports.images import Images
from zarrloc.exports.names import folder_names
from zarrloc.exports.rows import Rows, read_rows
from zarrloc.store.document import groups
from zarrloc.store.location import Location

CHUNK = 1024
"""Longest side of a chunk, px; an image with a longer one gets a pyramid."""

INSTANCE = "mask_label"
"""The column of a table that names a mask's object."""


@dataclass(frozen=True)
class Parts:
    """What an export holds: fields with masks, and tables by name."""

    images: Images
    tables: Mapping[str, Rows]

    @classmethod
    def of(cls, location: Location, what: str) -> "Parts":
        """Group `what` with all that it stands on.

        `fovs` and `segmentations/NAME` bring the tables of their cells; a table, an embedding or a
        head of cells brings their masks, one of fields the images alone.

        Raises
        ------
        ConfigError
            Where `what` is a kind of group that has neither images nor a matrix.
        StoreError
            Where a group is absent, or was made for other rows.
        """
        kind, _, name = what.partition("/")
        if kind in ("cells", "embeddings", "heads") and name:
            rows = read_rows(location, what)
            if rows.masks is None:
                return cls(Images.of(location, "fovs", masks=False), {name: rows})
            return cls(Images.of(location, f"segmentations/{rows.masks}"), {name: rows})
        images = Images.of(location, what)
        there = groups(location)
        cells = [name for name in images.masks if f"cells/{name}" in there]
        return cls(images, {name: read_rows(location, f"cells/{name}") for name in cells})


def write_spatialdata(parts: Parts, out: Path, config: ExportConfig) -> list[str]:
    """Write a `.zarr` folder element by element, streaming; returns notes on what was made."""
    sd = library("spatialdata")
    import dask

    names = _Names.of(parts)
    images, labels = {}, {}
    for row, field in names.fields.items():
        where = _placed(parts.images, field)
        image = _lazy(parts.images, row, None)
        channels = [channel.name for channel in parts.images.channels]
        images[field] = sd.models.Image2DModel.parse(
            image, dims=("c", "y", "x"), c_coords=channels, **_scales(image), **where
        )
        for mask in parts.images.masks:
            objects = _lazy(parts.images, row, mask)
            labels[names.labels[row, mask]] = sd.models.Labels2DModel.parse(
                objects, dims=("y", "x"), **_scales(objects), **where
            )
    tables = {
        names.tables[name]: _table(rows, names, parts.images, config)
        for name, rows in parts.tables.items()
    }
    made = sd.SpatialData(images=images, labels=labels, tables=tables)
    with dask.config.set(scheduler="synchronous"):
        made.write(out)
    notes = [f"{len(images)} images, {len(labels)} labels, {len(tables)} tables"]
    changed = [
        f"{old} is {new}"
        for old, new in ((str(parts.images.names[row]), new) for row, new in names.fields.items())
        if old != new
    ]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        notes.append(f"fields renamed: {', '.join(changed[:3])}{more}")
    return notes


# --- names --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Names:
    """Names of elements, all different: fields by row, labels by row and segmentation, tables."""

    fields: Mapping[int, str]
    labels: Mapping[tuple[int, str], str]
    tables: Mapping[str, str]

    @classmethod
    def of(cls, parts: Parts) -> "_Names":
        names, failed = parts.images.names, parts.images.failed
        usable = [row for row, name in enumerate(names) if str(name) not in failed]
        tables = folder_names(list(parts.tables))
        fields = folder_names([str(names[row]) for row in usable], tables)
        keys = [(row, mask) for row in usable for mask in parts.images.masks]
        by_row = dict(zip(usable, fields, strict=True))
        labels = folder_names(
            [f"{by_row[row]}_{mask}" for row, mask in keys], [*tables, *fields], "labels"
        )
        return cls(
            by_row,
            dict(zip(keys, labels, strict=True)),
            dict(zip(parts.tables, tables, strict=True)),
        )


# --- images and masks ---------------------------------------------------------------------------


class _Field:
    """The image of a field, or one of its masks, as Dask sees an array; read when it is asked."""

    def __init__(self, images: Images, row: int, mask: str | None) -> None:
        self._read = images.read
        self._at = row, mask
        self.shape, self.dtype = images.shape(row, mask)
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        return self._read(*self._at)[key]


def _lazy(images: Images, row: int, mask: str | None) -> Any:
    """A Dask array of one field, read in one piece and cut into chunks of a channel each."""
    import dask.array as da

    field = _Field(images, row, mask)
    # Without `meta`, Dask asks for an empty piece, reads the field for it, and keeps the field.
    meta = np.empty((0,) * field.ndim, field.dtype)
    whole = da.from_array(field, chunks=field.shape, asarray=False, name=False, meta=meta)
    return whole.rechunk((*(1,) * (field.ndim - 2), CHUNK, CHUNK))


def _scales(array: Any) -> dict[str, Any]:
    """Halvings until an image is one chunk; none for what is one already."""
    longest, count = max(array.shape), 0
    while longest > CHUNK:
        longest, count = longest // 2, count + 1
    return {"scale_factors": [2] * count} if count else {}


def _placed(images: Images, system: str) -> dict[str, Any]:
    """The transformation of a field to the coordinate system of its name."""
    moves = library("spatialdata", "transformations")
    size = images.pixel_size_um
    move = moves.Scale([size, size], axes=("y", "x")) if size else moves.Identity()
    return {"transformations": {system: move}}


# --- tables -------------------------------------------------------------------------------------


def _table(rows: Rows, names: _Names, images: Images, config: ExportConfig) -> Any:
    """Rows as AnnData; those of cells name the labels and the object that they are of."""
    parse = library("spatialdata", "models").TableModel.parse
    table = to_anndata(rows, config)
    columns = list(table.obs.columns)
    table.obs.columns = folder_names(columns, ("_index",), "column")
    if "spatial" in table.obsm:  # there the centre of a pixel is at its half
        table.obsm["spatial"] = table.obsm["spatial"] + 0.5
    if rows.masks is None:
        return parse(table)
    key = folder_names(["region"], table.obs.columns)[0]
    table.obs[key] = regions = _regions(rows, names, images)
    instance = table.obs.columns[columns.index(INSTANCE)]
    return parse(
        table, region=regions.categories.tolist(), region_key=key, instance_key=instance
    )  # fmt: skip


def _regions(rows: Rows, names: _Names, images: Images) -> pd.Categorical:
    """The labels element of each cell."""
    fields = pd.Categorical(rows.obs["fov"]).remove_unused_categories()
    row_of = {str(name): row for row, name in enumerate(images.names)}
    elements = []
    for field in fields.categories:
        element = names.labels.get((row_of[field], str(rows.masks)))
        if element is None:
            raise StoreError(
                f"'{rows.what}' has cells of field {field}, which has no image "
                f"({images.failed[field]}); run the same `zarrloc segment` again"
            )
        elements.append(element)
    return pd.Categorical.from_codes(fields.codes, categories=pd.Index(elements, dtype=object))
