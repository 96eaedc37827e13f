import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from openpyxl import load_workbook

import zarrloc
from tests.labelled_store import make_store
from tests.written import revise
from zarrloc.errors import ConfigError
from zarrloc.exports import ann_data, tables
from zarrloc.exports import rows as rows_module
from zarrloc.store.location import Location

NASTY = ["=1+1", "+cmd", "-2", "@x", "\tz", "plain", "a=b", "ctrl\x07bell"]


def opened(store: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(store, group=group, chunks=None)


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_an_embedding_is_one_row_a_field_with_its_facts_and_features(
    labelled: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", 64)  # four blocks
    out = tmp_path / f"planted.{ending}"
    result = zarrloc.export(labelled, "embeddings/planted", out)
    assert (result.done, result.failures, result.exit_code) == (200, {}, 0)
    readers = {"csv": pd.read_csv, "parquet": pd.read_parquet, "xlsx": pd.read_excel}
    table: pd.DataFrame = readers[ending](out)  # type: ignore[operator]
    plain = opened(labelled, "embeddings/planted")
    features = table[[f"feature_{i}" for i in range(4)]].to_numpy(np.float32)
    np.testing.assert_allclose(features, plain.embedding.values, rtol=1e-6)
    assert table["fov"].tolist() == plain.fov.values.tolist()
    fovs = opened(labelled, "fovs")
    assert table["plate"].tolist() == fovs.plate.values.tolist()
    grade = table[[f"grade_{label}" for label in fovs.label.values]].to_numpy()
    np.testing.assert_array_equal(grade, fovs.grade.values)
    expected = ["; ".join(fovs.label.values[row == 3]) for row in fovs.grade.values]
    assert table["labels"].tolist() == expected


def test_a_table_has_a_umap_where_one_is_asked_for(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.arange(400, dtype=np.float32).reshape(200, 2)
    monkeypatch.setattr(ann_data, "project", lambda features, config: drawn[: len(features)])
    zarrloc.export(labelled, "embeddings/planted", tmp_path / "u.csv", umap="yes")
    table = pd.read_csv(tmp_path / "u.csv")
    np.testing.assert_array_equal(table[["umap_1", "umap_2"]].to_numpy(), drawn)
    with pytest.raises(ConfigError, match="umap is yes, and 'fovs' is no embedding"):
        zarrloc.export(labelled, "fovs", tmp_path / "f.csv", umap="yes")
    assert [file.name for file in tmp_path.iterdir()] == ["u.csv"]


def test_predictions_are_a_column_a_label_and_the_names_of_the_top_three(
    labelled: Path, tmp_path: Path
) -> None:
    zarrloc.export(labelled, "heads/head", tmp_path / "calls.csv")
    table = pd.read_csv(tmp_path / "calls.csv")
    head = opened(labelled, "heads/head")
    labels = head.label.values.tolist()
    np.testing.assert_allclose(table[labels].to_numpy(), head.probability.values, rtol=1e-5)
    for row, probability in enumerate(head.probability.values[:20]):
        order = np.argsort(-probability)
        assert [table[f"top_{i}"][row] for i in (1, 2, 3)] == [
            f"{labels[at]} ({probability[at]:.2f})" for at in order[:3]
        ]
    called = head.probability.values >= head.threshold.values
    assert table["predicted"].fillna("").tolist() == [
        "; ".join(n for n, yes in zip(labels, row, strict=True) if yes) for row in called
    ]
    assert table["fold"].tolist() == head.row_fold.values.tolist()


def test_cells_have_their_fields_facts_and_one_column_a_channel(
    labelled: Path, tmp_path: Path
) -> None:
    zarrloc.export(labelled, "cells/cp", tmp_path / "cells.parquet")
    table = pd.read_parquet(tmp_path / "cells.parquet")
    cells, fovs = opened(labelled, "cells/cp"), opened(labelled, "fovs")
    np.testing.assert_array_equal(table["intensity_sd_protein"], cells.intensity_sd.values[:, 1])
    assert table["protein"].tolist() == fovs.protein.values[cells.fov_index.values].tolist()
    assert table["keep"].tolist() == cells.keep.values.tolist()
    about = json.loads(pq.read_schema(tmp_path / "cells.parquet").metadata[b"zarrloc"])
    assert about["stage"] == "segment"


@pytest.mark.parametrize("what", ["fovs", "splits/honest"])
def test_groups_without_a_matrix_are_tables_too(labelled: Path, tmp_path: Path, what: str) -> None:
    zarrloc.export(labelled, what, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 200
    if what != "fovs":
        fold = opened(labelled, what).fold.values
        assert table["fold"].tolist() == [f"fold {one}" for one in fold]


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "n.zarr", proteins=4, fields=2, labelled=False)
    revise(Location.of(store), "fovs", donor=(("fov",), np.array(NASTY)))
    return store


def test_formulas_are_texts_in_a_sheet(nasty: Path, tmp_path: Path) -> None:
    zarrloc.export(nasty, "fovs", tmp_path / "t.xlsx")
    sheet = load_workbook(tmp_path / "t.xlsx").active
    assert sheet is not None
    header, *rest = sheet.iter_rows()
    at = [cell.value for cell in header].index("donor")
    cells = [row[at] for row in rest]
    assert [cell.data_type for cell in cells] == ["s"] * 8
    assert [cell.value for cell in cells] == [
        "'=1+1", "'+cmd", "'-2", "'@x", "'\tz", "plain", "a=b", "ctrl\ufffdbell",
    ]  # fmt: skip


def test_formulas_are_texts_in_csv(nasty: Path, tmp_path: Path) -> None:
    zarrloc.export(nasty, "fovs", tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        donors = [row["donor"] for row in csv.DictReader(file)]
    assert donors[:5] == ["'=1+1", "'+cmd", "'-2", "'@x", "'\tz"]
    assert donors[5:7] == ["plain", "a=b"]


def test_what_no_sheet_holds_is_refused_before_the_work(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "XLSX_ROWS", 200)
    with pytest.raises(ConfigError, match=r"200 rows .* a sheet holds 199 .* parquet or csv"):
        zarrloc.export(labelled, "fovs", tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())


def test_failed_rows_are_in_the_table_and_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "f.zarr", proteins=4, fields=2)
    errors = np.array([""] * 7 + ["cut off"])
    features = opened(store, "embeddings/planted").embedding.values.copy()
    features[7] = np.nan
    revise(
        Location.of(store), "embeddings/planted",
        embedding=(("fov", "feature"), features), error=(("fov",), errors),
    )  # fmt: skip
    result = zarrloc.export(store, "embeddings/planted", tmp_path / "t.csv")
    assert result.failures == {"FID00007": "cut off"}
    assert result.failed.to_dict("records") == [{"item": "FID00007", "reason": "cut off"}]
    assert "1 failed" in repr(result)
    assert pd.read_csv(tmp_path / "t.csv")["error"][7] == "cut off"
