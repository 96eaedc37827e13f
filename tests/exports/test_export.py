import importlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from zarrloc_cli import main as cli

import zarrloc
from zarrloc.errors import ConfigError, StoreError
from zarrloc.exports.extras import EXTRA


def test_the_command_says_what_it_wrote(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.csv"
    with pytest.raises(SystemExit) as end:
        cli.main(["export", str(labelled), "fovs", str(out), "--to", "csv"])
    assert end.value.code == 0
    assert f"fovs -> {out}: 200 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "name", "to", "words"),
    [
        ("nonsense", "t.csv", "csv", "cannot export 'nonsense'; the store has fovs, "),
        ("fovs/x", "t.csv", "csv", "cannot export 'fovs/x'"),
        ("fovs", "t.txt", None, "to: .*t.txt does not tell the format; say csv, .* or ome-zarr"),
        ("fovs", "t.zarr", None, "to: .*t.zarr may be anndata, spatialdata or ome-zarr; say which"),
        ("fovs", "t.csv", "xlsx", "an export to xlsx ends in .xlsx"),
        ("fovs", "no/t.csv", "csv", "no is not a folder"),
        ("fovs", "t.csv", "odd", "to: "),
    ],
)
def test_what_cannot_be_is_refused(
    labelled: Path, tmp_path: Path, what: str, name: str, to: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        zarrloc.export(labelled, what, tmp_path / name, to)
    assert not list(tmp_path.iterdir())


def test_the_ending_says_the_format(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="needs zarrloc[export]")
    pytest.importorskip("openpyxl", reason="needs zarrloc[export]")
    table = tmp_path / "t.csv"
    with pytest.raises(SystemExit) as end:
        cli.main(["export", str(labelled), "fovs", str(table)])
    assert end.value.code == 0
    wanted = pd.read_csv(table)
    for name, read in (("t.parquet", pd.read_parquet), ("t.xlsx", pd.read_excel)):
        zarrloc.export(labelled, "fovs", tmp_path / name)
        assert read(tmp_path / name).fov.tolist() == wanted.fov.tolist()
    given = zarrloc.ExportConfig(umap="no")
    zarrloc.export(labelled, "fovs", tmp_path / "again.csv", config=given)
    assert (tmp_path / "again.csv").read_text() == table.read_text()


def test_the_command_asks_for_the_format_by_its_flag(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["export", str(labelled), "fovs", str(tmp_path / "t.zarr")])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("zarrloc: --to: ")
    assert told.endswith("t.zarr may be anndata, spatialdata or ome-zarr; say which\n")
    assert not list(tmp_path.iterdir())


def test_an_absent_group_or_store_is_named(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no 'embeddings/x'.*the store has embeddings/cells"):
        zarrloc.export(labelled, "embeddings/x", tmp_path / "t.csv")
    with pytest.raises(StoreError, match="no store at"):
        zarrloc.export(tmp_path / "none.zarr", "fovs", tmp_path / "t.csv")


def test_nothing_is_replaced_unasked_and_nothing_is_left_half_written(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.csv"
    out.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already; overwrite it"):
        zarrloc.export(labelled, "fovs", out)

    def fail(rows: Any, path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("zarrloc.exports.tables.write_csv", fail)
        with pytest.raises(OSError, match="disk full"):
            zarrloc.export(labelled, "fovs", out, overwrite=True)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("t.csv", "mine")]
    zarrloc.export(labelled, "fovs", out, overwrite=True)
    assert out.read_text().startswith("fov,plate,")


def test_a_store_is_never_replaced(labelled: Path) -> None:
    with pytest.raises(ConfigError, match="is a zarrloc store"):
        zarrloc.export(labelled, "embeddings/planted", labelled, "anndata", overwrite=True)
    assert (labelled / "fovs").is_dir()


@pytest.mark.parametrize(
    ("to", "name", "module"),
    [("parquet", "t.parquet", "pyarrow"), ("xlsx", "t.xlsx", "openpyxl"),
     ("anndata", "t.h5ad", "anndata"), ("spatialdata", "t.zarr", "spatialdata")],
)  # fmt: skip
def test_a_missing_library_is_named_with_its_extra(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    to: str, name: str, module: str,
) -> None:  # fmt: skip
    def absent(wanted: str) -> Any:
        if wanted == module:
            raise ImportError(f"No module named '{module}'")
        return importlib.import_module(wanted)

    monkeypatch.setattr("zarrloc.exports.extras.import_module", absent)
    with pytest.raises(ConfigError, match=rf"pip install 'zarrloc\[{EXTRA[module]}\]'"):
        zarrloc.export(labelled, "embeddings/planted", tmp_path / name, to)
    assert not list(tmp_path.iterdir())
