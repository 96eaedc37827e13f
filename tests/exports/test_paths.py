"""Three ways through, from a folder of images to the tool that a user knows, as in the README.

`make test-ecosystem` walks them with the real libraries in a fresh environment.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from zarrloc_cli.main import zarrloc as command

import zarrloc as zl
from tests import plate_files, stores

WELLS = [f"{row}{column:02}" for row in "BC" for column in range(2, 10)]


def run(*words: str | Path) -> None:
    assert command.main([str(word) for word in words], standalone_mode=False) in (None, 0), words


@pytest.fixture
def plate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A MetaXpress plate of 16 wells; in row C the cells' protein is brighter, and drugged."""

    def pixels(well: str, site: int, planes: int = 1, seed: int = 0) -> np.ndarray:
        image, _ = stores.make_field(5, 96, int(well[1:]) + 10 * site)
        if well[0] == "C":
            image[1] = np.roll(image[1], 20, axis=0) * 2
        return np.tile(image, (planes, 1, 1, 1))

    monkeypatch.setattr(plate_files, "pixels_of", pixels)
    monkeypatch.setattr(plate_files, "WELLS", WELLS)
    plate_files.metaxpress(tmp_path / "plate", 1)
    rows = [f"{well},{'drug' if well[0] == 'C' else 'none'}" for well in WELLS]
    (tmp_path / "wells.csv").write_text("\n".join(["well,condition", *rows]))
    return tmp_path / "plate"


@pytest.fixture
def store(plate: Path, tmp_path: Path) -> Path:
    """The plate ingested, with its conditions and an embedding that needs no weights."""
    made = tmp_path / "my.zarr"
    serial = ("--cluster", "serial")
    run("ingest", plate, made, "--channels", "w1=nucleus,w2=protein", "--conditions",
        tmp_path / "wells.csv", *serial)  # fmt: skip
    run("embed", made, "--backbone", "classic", "--name", "classic", *serial)
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_plate_to_a_umap_by_condition_in_excel(store: Path, tmp_path: Path) -> None:
    run(
        "export",
        store,
        "embeddings/classic",
        tmp_path / "map.xlsx",
        "--to",
        "xlsx",
        "--umap",
        "yes",
    )
    table = pd.read_excel(tmp_path / "map.xlsx")
    told = dict(zip(table["well"], table["condition"], strict=True))
    assert told == {well: "drug" if well[0] == "C" else "none" for well in WELLS}
    assert len(table) == len(WELLS) * plate_files.SITES
    points = table[["umap_1", "umap_2"]].to_numpy()
    assert np.isfinite(points).all()
    drug = (table["condition"] == "drug").to_numpy()
    apart = np.linalg.norm(points[drug].mean(axis=0) - points[~drug].mean(axis=0))
    assert apart > points[drug].std(axis=0).max(), "the map tells the conditions apart"


def test_a_notebook_to_anndata_and_scanpy(store: Path, tmp_path: Path) -> None:
    opened = zl.open(store)
    assert "classic" in opened.embeddings
    opened.export("embeddings/classic", tmp_path / "my.h5ad", umap="no")
    sc = pytest.importorskip("scanpy", reason="scanpy is not installed (make test-ecosystem)")
    data = sc.read_h5ad(tmp_path / "my.h5ad")
    sc.pp.scale(data)
    sc.pp.pca(data, n_comps=5)
    sc.pp.neighbors(data, n_neighbors=5)
    sc.tl.leiden(data, flavor="igraph", n_iterations=2, resolution=0.5)
    purest = data.obs.groupby("leiden", observed=True)["condition"].agg(
        lambda held: held.value_counts(normalize=True).iloc[0]
    )
    assert purest.min() == 1, "no cluster mixes conditions"


def test_a_plate_to_ome_zarr_and_naparis_reader(store: Path, tmp_path: Path) -> None:
    run("export", store, "fovs", tmp_path / "plate.zarr", "--to", "ome-zarr")
    reader = pytest.importorskip(
        "napari_ome_zarr", reason="napari-ome-zarr is not installed (make test-ecosystem)"
    )
    layers = reader.napari_get_reader(str(tmp_path / "plate.zarr"))(str(tmp_path / "plate.zarr"))
    (image,) = [layer for layer in layers if layer[2] == "image"]
    levels = image[0] if isinstance(image[0], list) else [image[0]]
    assert np.asarray(levels[0]).shape[0] == 2, "two channels of all wells in one picture"
