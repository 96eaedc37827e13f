from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from zarrloc_cli import main as cli

import zarrloc
from tests.labelled_store import write_embedding
from tests.stores import make_store
from tests.written import put, revise
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location

FIELDS = 14
BLURRED, EMPTY, SATURATED, ODD, BROKEN = 2, 5, 7, 9, 13


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Square cells; one field is out of focus, one empty, one saturated, one unlike its like."""
    path = make_store(tmp_path_factory.mktemp("o") / "oc.zarr", cells=(6,) * FIELDS, side=128)
    location = Location.of(path)
    fovs = zarrloc.open(path).fovs.load()
    image = fovs.image.values.copy()
    rng = np.random.default_rng(1)
    soft = ndimage.gaussian_filter(image[BLURRED, 0].astype(float), 5)
    image[BLURRED, 0] = soft + rng.normal(0, 22, soft.shape)
    image[EMPTY, 1] = rng.poisson(700, image[EMPTY, 1].shape)
    image[SATURATED, 1] = np.minimum(image[SATURATED, 1].astype(int) * 55, 65535)
    errors = fovs.error.values.copy()
    errors[BROKEN] = "cut off"
    protein = np.array(["A"] * 6 + ["B"] * 8)
    revise(location, "fovs", error=(("fov",), errors), protein=(("fov",), protein))
    put(location, "fovs", "image", slice(None), image)
    features = np.where((protein == "A")[:, None], [1.0, 0, 0], [0, 1.0, 0])
    features = features + rng.normal(0, 0.05, features.shape)
    features[ODD] = [1.0, 0, 0]
    ingest = StageAttrs.of("ingest", {}, {})
    write_embedding(location, "e", features, fovs.fov.values, protein, ingest)
    return path


def test_each_kind_is_found_and_nothing_else(store: Path) -> None:
    found = zarrloc.outliers(store)
    why = dict(zip(found.table["fov"], found.table["why"], strict=True))
    assert set(why) == {f"FID{row:08d}" for row in (BLURRED, EMPTY, SATURATED, ODD)}
    assert why[f"FID{BLURRED:08d}"] == "nucleus out of focus"
    assert why[f"FID{EMPTY:08d}"] == "protein empty"
    assert why[f"FID{SATURATED:08d}"].startswith("protein saturated (")
    assert why[f"FID{ODD:08d}"] == "unlike its replicates"
    assert found.failures == {f"FID{BROKEN:08d}": "cut off"}
    assert found.done == FIELDS - 1


def test_without_an_embedding_replicates_are_not_compared(tmp_path: Path) -> None:
    found = zarrloc.outliers(make_store(tmp_path / "s.zarr", cells=(6,) * 5, side=128))
    assert found.table.empty
    assert "replicates were not compared" in repr(found)


def test_the_command_writes_a_table(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["outliers", str(store), "--csv", str(tmp_path / "t.csv")])
    assert end.value.code == 0
    assert f"4 of {FIELDS - 1} fields stand out" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "t.csv")
    assert {"fov", "protein", "why", "focus_nucleus", "light_protein"} <= set(table.columns)
    assert len(table) == 4
