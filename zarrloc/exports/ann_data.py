"""Rows as AnnData: the matrix block by block, facts as `obs`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.export import ExportConfig
from zarrloc.config.report import ReportConfig
from zarrloc.errors import ConfigError
from zarrloc.exports.extras import library
from zarrloc.exports.rows import BLOCK_ROWS, Rows
from zarrloc.report.projection import project

AUTO_UMAP = 50_000
"""Rows up to which a UMAP is made without being asked for: a minute or two."""


def to_anndata(rows: Rows, config: ExportConfig) -> Any:
    """An `anndata.AnnData` whose X is a Dask array that reads the store when it is written.

    `X` is the embedding, the measurements of cells or the probabilities of a head, float32;
    `obs` the rows' facts; `obsm` `X_umap`, `spatial` (x, y in px) and `<head>_probability`;
    `uns["zarrloc"]` how it came to be, as JSON.
    """
    ad = library("anndata")
    import dask.array as da
    import pandas as pd

    if not rows.matrix.names:
        raise ConfigError(
            f"'{rows.what}' has no matrix for AnnData; export embeddings/NAME, cells/NAME or "
            "heads/NAME, or this to a table"
        )
    obs = rows.obs.copy()
    obs.index = pd.Index(rows.names.astype(object), name="row")
    x = da.from_array(_Lazy(rows), chunks=(BLOCK_ROWS, -1), asarray=False, name=False)
    obsm: dict[str, Any] = {
        f"{head}_probability": np.asarray(p) for head, (_, p) in rows.predictions.items()
    }
    if rows.spatial is not None:
        obsm["spatial"] = rows.spatial
    if _wants_umap(rows, config):
        obsm["X_umap"] = umap_of(rows, config.seed)
    uns: dict[str, Any] = {"zarrloc": json.dumps({"what": rows.what, **rows.about})}
    uns |= {f"{head}_labels": np.array(names) for head, (names, _) in rows.predictions.items()}
    var = pd.DataFrame(index=pd.Index(list(rows.matrix.names), dtype=object, name="feature"))
    return ad.AnnData(X=x, obs=obs, var=var, obsm=obsm, uns=uns)


def write_anndata(rows: Rows, out: Path, config: ExportConfig) -> None:
    """Write a `.h5ad` file or a `.zarr` folder, streaming X."""
    import dask

    table = to_anndata(rows, config)
    with dask.config.set(scheduler="synchronous"):
        if out.suffix == ".zarr":
            table.write_zarr(out)
        else:
            table.write_h5ad(out)


class _Lazy:
    """The matrix as Dask sees an array: a shape, a dtype, and blocks of rows."""

    def __init__(self, rows: Rows) -> None:
        self._read = rows.matrix.read
        self.shape = (rows.matrix.rows, len(rows.matrix.names))
        self.dtype = np.dtype(np.float32)
        self.ndim = 2

    def __getitem__(self, key: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        found = self._read(*key[0].indices(self.shape[0])[:2])
        return np.asarray(found[:, key[1]], np.float32)


def _wants_umap(rows: Rows, config: ExportConfig) -> bool:
    if not rows.what.startswith("embeddings/") or config.umap == "no":
        return False
    return config.umap == "yes" or len(rows) <= AUTO_UMAP


def umap_of(rows: Rows, seed: int) -> npt.NDArray[np.float32]:
    """Points of the rows on a plane, `(rows, 2)`; NaN where there is no embedding."""
    features = rows.matrix.whole()
    finite = np.isfinite(features).all(axis=1)
    points = np.full((len(features), 2), np.nan, np.float32)
    if finite.any():
        points[finite] = project(features[finite], ReportConfig(seed=seed))
    return points
