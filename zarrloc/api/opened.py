"""A store, opened: what it holds, and each group as xarray with chunks that suit."""

import base64
import html
import io
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zarrloc.errors import ConfigError
from zarrloc.store.columns import array_of
from zarrloc.store.document import groups, read_root
from zarrloc.store.info import info
from zarrloc.store.location import Location
from zarrloc.store.read import need

if TYPE_CHECKING:
    import xarray as xr

    from zarrloc.exports.export import ExportResult
    from zarrloc.groups.crops import Crops
    from zarrloc.groups.fields import Fields

CHUNK_BYTES = 64 << 20
"""A chunk of a wide array, about: few enough for Dask, small enough for a laptop."""

THUMBNAILS, THUMBNAIL_PX = 4, 120

MADE_BY = {
    "fovs": "ingest SOURCE STORE",
    "segmentations": "segment STORE --name",
    "cells": "segment STORE --name",
    "embeddings": "embed STORE --name",
    "splits": "split STORE --name",
    "heads": "train STORE --name",
}


class Store:
    """A zarrloc store. Nothing is read before it is asked for.

    Printed, or shown by a notebook, it says what it holds. Each group is an `xarray.Dataset`:
    columns come without Dask, images, masks and embeddings as Dask arrays of whole shards.

    Examples
    --------
    >>> import zarrloc as zl
    >>> store = zl.open("my.zarr")
    >>> store.fovs.sizes["fov"]
    10
    >>> store.embeddings
    ['dino']
    >>> store.embedding("dino").embedding.sizes["feature"]
    384
    """

    def __init__(self, where: str | Path | Location) -> None:
        self.location = Location.of(where)
        read_root(self.location)

    @property
    def path(self) -> str:
        """The store's path or address."""
        return self.location.uri

    @property
    def groups(self) -> list[str]:
        """Paths of all groups, in the order of the work."""
        return groups(self.location)

    def _names(self, kind: str) -> list[str]:
        return [path.split("/")[1] for path in self.groups if path.startswith(f"{kind}/")]

    @property
    def segmentations(self) -> list[str]:
        """Names of the segmentations."""
        return self._names("segmentations")

    @property
    def embeddings(self) -> list[str]:
        """Names of the embeddings."""
        return self._names("embeddings")

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return self._names("splits")

    @property
    def heads(self) -> list[str]:
        """Names of the heads."""
        return self._names("heads")

    @cached_property
    def fovs(self) -> "xr.Dataset":
        """The fields: `image (fov, channel, y, x)` and what is known of each."""
        return self.group("fovs")

    def cells(self, name: str) -> "xr.Dataset":
        """The table of cells of a segmentation, along `cell`."""
        return self.group(f"cells/{name}")

    def masks(self, name: str) -> "xr.Dataset":
        """The masks of a segmentation: `mask (fov, y, x)`."""
        return self.group(f"segmentations/{name}")

    def embedding(self, name: str) -> "xr.Dataset":
        """An embedding: `embedding (fov or cell, feature)` float32."""
        return self.group(f"embeddings/{name}")

    def split(self, name: str) -> "xr.Dataset":
        """A split: `fold (fov)`, -1 the test set."""
        return self.group(f"splits/{name}")

    def head(self, name: str) -> "xr.Dataset":
        """A head's answers: `probability (fov or cell, label)`."""
        return self.group(f"heads/{name}")

    def crops(
        self,
        name: str,
        *,
        size: int = 224,
        crop_um: float | None = None,
        outside: Literal["black", "keep"] = "black",
        device: str = "cpu",
    ) -> "Crops":
        """The single-cell crops of a segmentation, cut when they are asked for.

        Parameters
        ----------
        name
            Name of the segmentation.
        size
            Side of a crop, px, after resampling.
        crop_um
            Side of the window in micrometres; default: the paper's 53 um.
        outside
            `black`, or `keep` the neighbours.
        device
            Where torch cuts.

        Returns
        -------
        Crops
            `crops[i]` is `(channel, size, size)` float32; `crops.to_xarray()` the lazy view.
        """
        from zarrloc.groups.crops import Crops

        return Crops(
            self.location, name, size=size, crop_um=crop_um, outside=outside, device=device
        )

    def fields(self, *, counts: bool = False) -> "Fields":
        """The fields as a PyTorch dataset; `zarrloc.Shuffled` reads it in random order.

        Parameters
        ----------
        counts
            Give the stored counts, not what lies above each field's background.

        Returns
        -------
        Fields
            `fields[i]` is `(channel, y, x)` float32, or the stored dtype.
        """
        from zarrloc.groups.fields import Fields

        return Fields(self.location, counts=counts)

    def export(
        self, what: str, out: str | Path, to: str | None = None, **more: Any
    ) -> "ExportResult":
        """Write a group for another tool, as `zarrloc.export` does."""
        from zarrloc.exports.export import export

        return export(self.location, what, out, to, **more)

    def group(self, path: str) -> "xr.Dataset":
        """Any group by its path, such as `heads/head`.

        Raises
        ------
        StoreError
            Where it is absent, naming what there is and the command that makes it.
        """
        import xarray as xr

        kind, _, name = path.partition("/")
        if kind not in MADE_BY:
            raise ConfigError(f"no group '{path}'; the store has {', '.join(self.groups)}")
        held = need(self.location, path, f"{MADE_BY[kind]} {name}".strip())
        found: xr.Dataset = xr.open_zarr(
            self.location.store(read_only=True), group=path, chunks=None
        )
        for wide in ("image", "mask", "embedding"):
            if wide in found:
                array = array_of(held, wide)
                unit = (array.shards or array.chunks)[0]
                row = max(1, array.dtype.itemsize * (array.size // max(1, array.shape[0])))
                rows = unit * max(1, CHUNK_BYTES // (unit * row))
                found[wide] = found[wide].chunk({found[wide].dims[0]: rows})
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __contains__(self, path: object) -> bool:
        return path in self.groups

    def __getitem__(self, path: str) -> "xr.Dataset":
        return self.group(path)

    # --- shown --------------------------------------------------------------------------------

    def _facts(self) -> list[tuple[str, str]]:
        """Each group's path and a line that describes it."""
        described = info(self.path)["groups"]
        facts = []
        for path, group in described.items():
            arrays = group["arrays"]
            parts = []
            for name in ("image", "mask", "embedding", "probability", "fold", "fov_index"):
                if name in arrays:
                    sizes = zip(arrays[name]["dims"], arrays[name]["shape"], strict=True)
                    parts.append(" x ".join(f"{size:,} {dim}" for dim, size in sizes))
                    break
            if path == "fovs":
                parts.append(f"channels {', '.join(group['channels'])}")
                parts += [f"labels {', '.join(group['labels'])}"] if group.get("labels") else []
                pixel = group.get("pixel_size_um")
                parts.append(f"{pixel} um a pixel" if pixel else "no pixel size")
            if backbone := group["config"].get("backbone"):
                parts.append(f"of {backbone}")
            if group.get("bytes"):
                parts.append(f"{group['bytes'] / 1e6:,.1f} MB")
            if group.get("rows", {}).get("failed"):
                parts.append(f"{group['rows']['failed']} failed")
            facts.append((path, "; ".join(parts)))
        return facts

    def __repr__(self) -> str:
        facts = self._facts()
        width = max((len(path) for path, _ in facts), default=0)
        return "\n".join(
            [f"zarrloc store {self.path}", *(f"  {path:{width}}  {text}" for path, text in facts)]
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'><code>{html.escape(path)}</code></td>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for path, text in self._facts()
        )
        pictures = "".join(
            f"<img src='{url}' alt='{html.escape(name)}' title='{html.escape(name)}' "
            "style='margin:2px;display:inline'>"
            for name, url in self._thumbnails()
        )
        return (
            f"<div><b>zarrloc store</b> <code>{html.escape(self.path)}</code>"
            f"<table>{rows}</table>{pictures}</div>"
        )

    def _thumbnails(self) -> list[tuple[str, str]]:
        """Some fields in colour, evenly spread, as names and data URLs."""
        if "fovs" not in self:
            return []
        import numpy as np
        from PIL import Image

        from zarrloc.report.preview import composite, open_group, read_picture

        fovs = open_group(self.location, "fovs", MADE_BY["fovs"])
        fine = np.flatnonzero(fovs["error"].values == "")
        picks = np.linspace(0, len(fine) - 1, min(THUMBNAILS, len(fine))).round().astype(int)
        shown = []
        for row in fine[picks].tolist():
            picture = read_picture(fovs, None, row)
            step = max(1, max(picture.image.shape[1:]) // THUMBNAIL_PX)
            small = picture.image[:, ::step, ::step]
            drawn = Image.fromarray(composite(small, picture.background, picture.roles))
            buffer = io.BytesIO()
            drawn.save(buffer, format="PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            shown.append((picture.title, f"data:image/png;base64,{data}"))
        return shown


def open(where: str | Path | Location) -> Store:
    """Open a store.

    Parameters
    ----------
    where
        Its path, or an address such as `s3://bucket/my.zarr`.

    Returns
    -------
    Store
        Groups by name, each as xarray; a summary when it is printed.

    Raises
    ------
    StoreError
        Where there is no store, or one of another format.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.open("my.zarr").groups[0]
    'fovs'
    """
    return Store(where)
