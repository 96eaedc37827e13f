"""`zarrloc export`: a group of a store, in the format of another tool."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zarrloc.config.export import ExportConfig, Format
from zarrloc.errors import ConfigError
from zarrloc.exports import ann_data, tables
from zarrloc.exports.extras import library
from zarrloc.exports.images import Images
from zarrloc.exports.ome_zarr import write_ome_zarr
from zarrloc.exports.rows import Rows, read_rows
from zarrloc.exports.spatial_data import Parts, write_spatialdata
from zarrloc.exports.target import check_target, put
from zarrloc.result import Result
from zarrloc.store.document import read_root
from zarrloc.store.location import Location

LIBRARY = {
    "parquet": "pyarrow",
    "xlsx": "openpyxl",
    "anndata": "anndata",
    "spatialdata": "spatialdata",
}
"""Format -> the library it takes, beyond the core."""

ENDINGS: dict[Format, tuple[str, ...]] = {
    "csv": (".csv",),
    "parquet": (".parquet",),
    "xlsx": (".xlsx",),
    "anndata": (".h5ad", ".zarr"),
    "spatialdata": (".zarr",),
    "ome-zarr": (".zarr",),
}


@dataclass(kw_only=True, repr=False)
class ExportResult(Result):
    """What was written, whole: rows that failed in the store are in it, with their `error`."""

    out: Path
    bytes: int = 0
    unit: str = "rows"

    def lines(self) -> list[str]:
        """The summary, line by line."""
        size = f"{self.bytes / 1e6:.1f} MB"
        lines = [
            f"{self.what} -> {self.out}: {self.done} {self.unit}, {size}, {self.seconds:.1f} s"
        ]
        if self.failures:
            lines.append(f"  {len(self.failures)} failed when they were made, and have an error")
        return [*lines, *(f"  {note}" for note in self.notes)]


def export(
    store: str | Path | Location,
    what: str,
    out: str | Path,
    to: str | None = None,
    *,
    config: ExportConfig | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> ExportResult:
    """Write a group of a store for another tool. The store is only read.

    Memory is bounded: wide arrays and images go through in blocks.

    Parameters
    ----------
    store
        Path or address of the store.
    what
        A group: `fovs`, `embeddings/NAME`, `cells/NAME`, `heads/NAME` or `splits/NAME`; for images
        `fovs`, with every segmentation as labels, or `segmentations/NAME`, with that one.
        SpatialData takes both kinds: a table of cells brings its images and masks, and images
        their tables.
    out
        The file or folder to write; it is put in place only when it is complete.
    to
        `csv`, `parquet`, `xlsx`, `anndata`, `spatialdata` or `ome-zarr`; by default what the
        ending of `out` says: `.csv`, `.parquet`, `.xlsx` or `.h5ad`. `.zarr` says none.
    config
        The settings as one object, in place of `to` and `settings`.
    overwrite
        Replace what is at `out`.
    **settings
        Further settings of `ExportConfig`: `umap`, `seed`.

    Returns
    -------
    ExportResult
        How many rows or fields were written, and what had failed in the store.

    Raises
    ------
    ConfigError
        Where the format does not fit what or where it is written, or its library is missing.
    StoreError
        Where the store or the group is absent.

    Examples
    --------
    >>> export("my.zarr", "embeddings/dino", "dino.h5ad")  # doctest: +SKIP
    embeddings/dino -> dino.h5ad: 6301 rows, 10.2 MB, 2.1 s
    """
    began = time.monotonic()
    config = config or ExportConfig.of({"to": to, **settings})
    kind = config.to or _by_ending(out)
    path = check_target(out, overwrite)
    if path.suffix not in ENDINGS[kind]:
        raise ConfigError(f"out is {out}; an export to {kind} ends in {' or '.join(ENDINGS[kind])}")
    location = Location.of(store)
    read_root(location)
    if kind in LIBRARY:
        library(LIBRARY[kind])
    if kind == "ome-zarr":
        images = Images.of(location, what)
        with put(path) as partial:
            notes = write_ome_zarr(images, partial)
        done = len(images.names) - len(images.failed)
        result = ExportResult(
            what=what, out=path, done=done, unit="fields", failures=images.failed, notes=notes
        )
    elif kind == "spatialdata":
        parts = Parts.of(location, what)
        with put(path) as partial:
            notes = write_spatialdata(parts, partial, config)
        images = parts.images
        done = len(images.names) - len(images.failed)
        result = ExportResult(
            what=what, out=path, done=done, unit="fields", failures=images.failed, notes=notes
        )
    else:
        rows = read_rows(location, what)
        if kind == "xlsx":
            tables.check_xlsx(rows)
        if kind in tables.TABLES and config.umap == "yes":
            rows = _with_umap(rows, config.seed)
        with put(path) as partial:
            _write(rows, partial, kind, config)
        result = ExportResult(what=what, out=path, done=len(rows), failures=rows.failed)
    result.seconds = time.monotonic() - began
    result.bytes = _size(path)
    return result


def _with_umap(rows: Rows, seed: int) -> Rows:
    """The rows with two more columns."""
    if not rows.what.startswith("embeddings/"):
        raise ConfigError(f"umap is yes, and '{rows.what}' is no embedding; export embeddings/NAME")
    points = ann_data.umap_of(rows, seed)
    return replace(rows, obs=rows.obs.assign(umap_1=points[:, 0], umap_2=points[:, 1]))


def _by_ending(out: str | Path) -> Format:
    """The one format whose files end so."""
    ending = Path(out).suffix
    fitting = [name for name, endings in ENDINGS.items() if ending in endings]
    if len(fitting) == 1:
        return fitting[0]
    *first, last = fitting or ENDINGS
    choices = f"{', '.join(first)} or {last}"
    if fitting:
        problem = f"{out} may be {choices}; say which"
    else:
        problem = f"{out} does not tell the format; say {choices}"
    raise ConfigError(f"to: {problem}", {"to": problem})


def _write(rows: Rows, out: Path, kind: Format, config: ExportConfig) -> None:
    if kind == "csv":
        tables.write_csv(rows, out)
    elif kind == "parquet":
        tables.write_parquet(rows, out)
    elif kind == "xlsx":
        tables.write_xlsx(rows, out)
    else:
        ann_data.write_anndata(rows, out, config)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
