import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import xarray as xr

import zarrloc
from tests import stores
from zarrloc.errors import ConfigError
from zarrloc.exports import ann_data, rows


def read(path: Path) -> Any:
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


@pytest.mark.parametrize("name", ["a.h5ad", "a.zarr"])
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_an_embedding_of_fields(
    labelled: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BLOCK_ROWS", 64)
    monkeypatch.setattr(ann_data, "BLOCK_ROWS", 64)
    drawn = np.arange(400, dtype=np.float32).reshape(200, 2)
    monkeypatch.setattr(ann_data, "project", lambda features, config: drawn[: len(features)])
    zarrloc.export(labelled, "embeddings/planted", tmp_path / name, "anndata")
    found = read(tmp_path / name)
    plain = xr.open_zarr(labelled, group="embeddings/planted", chunks=None)
    head = xr.open_zarr(labelled, group="heads/head", chunks=None)
    np.testing.assert_array_equal(found.X, plain.embedding.values)
    assert found.obs_names.tolist() == plain.fov.values.tolist()
    assert found.obs["protein"].tolist() == plain.protein.values.tolist()
    np.testing.assert_array_equal(found.obsm["X_umap"], drawn)
    np.testing.assert_array_equal(found.obsm["head_probability"], head.probability.values)
    best = head.label.values[head.probability.values.argmax(axis=1)]
    assert found.obs["head_predicted"].tolist() == best.tolist()
    assert found.uns["head_labels"].tolist() == head.label.values.tolist()
    recorded = json.loads(found.uns["zarrloc"])
    assert (recorded["what"], recorded["stage"]) == ("embeddings/planted", "embed")


def test_an_embedding_of_cells_has_rows_without_values_as_nan(
    labelled: Path, tmp_path: Path
) -> None:
    zarrloc.export(labelled, "embeddings/cells", tmp_path / "c.h5ad", umap="no")
    found = read(tmp_path / "c.h5ad")
    plain = xr.open_zarr(labelled, group="embeddings/cells", chunks=None)
    np.testing.assert_array_equal(found.X, plain.embedding.values)
    assert np.isnan(found.X[0]).all()
    assert not found.obs["keep"].iloc[0]
    assert found.obs["fov"].tolist() == plain.fov.values.tolist()
    assert "X_umap" not in found.obsm
    assert found.obs_names.is_unique


def test_heads_and_cells_are_matrices_too(labelled: Path, tmp_path: Path) -> None:
    zarrloc.export(labelled, "heads/head", tmp_path / "h.h5ad")
    head = xr.open_zarr(labelled, group="heads/head", chunks=None)
    found = read(tmp_path / "h.h5ad")
    assert found.var_names.tolist() == head.label.values.tolist()
    np.testing.assert_array_equal(found.X, head.probability.values)
    zarrloc.export(labelled, "cells/cp", tmp_path / "m.h5ad")
    found = read(tmp_path / "m.h5ad")
    cells = xr.open_zarr(labelled, group="cells/cp", chunks=None)
    at = found.var_names.get_loc("intensity_mean_nucleus")
    np.testing.assert_array_equal(found.X[:, at], cells.intensity_mean.values[:, 0])


def test_fields_alone_are_no_matrix(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fovs' has no matrix for AnnData; export embeddings"):
        zarrloc.export(labelled, "fovs", tmp_path / "f.h5ad")
    assert not list(tmp_path.iterdir())


def test_scanpy_clusters_and_draws_it(labelled: Path, tmp_path: Path) -> None:
    sc = pytest.importorskip("scanpy", reason="scanpy is not installed (make test-ecosystem)")
    zarrloc.export(labelled, "embeddings/planted", tmp_path / "p.h5ad", umap="no")
    found = sc.read_h5ad(tmp_path / "p.h5ad")
    sc.pp.neighbors(found, use_rep="X")
    sc.tl.umap(found)
    assert found.obsm["X_umap"].shape == (200, 2)
    sc.tl.leiden(found, flavor="igraph", n_iterations=2)
    share = found.obs.groupby("leiden", observed=True)["labels"].agg(
        lambda x: x.value_counts().iloc[0]
    )
    assert share.sum() > 0.9 * 200, "clusters are the planted labels"
    figure = sc.pl.umap(found, color=["protein", "leiden"], show=False, return_fig=True)
    figure.savefig(tmp_path / "umap.png")
    assert (tmp_path / "umap.png").stat().st_size > 10_000


def test_squidpy_counts_neighbours_of_cells(tmp_path: Path) -> None:
    sq = pytest.importorskip("squidpy", reason="squidpy is not installed (make test-ecosystem)")
    store = stores.make_store(tmp_path / "s.zarr", cells=(6, 4))
    zarrloc.export(store, "cells/cp", tmp_path / "c.h5ad")
    found = ad.read_h5ad(tmp_path / "c.h5ad")
    sq.gr.spatial_neighbors_knn(found, library_key="fov", n_neighs=2)
    links = found.obsp["spatial_connectivities"].toarray()
    fov = found.obs["fov"].astype(str).to_numpy()
    assert links.any(axis=1).all()
    assert not links[fov[:, None] != fov[None, :]].any()
