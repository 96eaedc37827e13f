from pathlib import Path

import pytest
from zarrloc_cli.main import zarrloc

from tests.plate_files import VENDORS
from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import ChannelError, SourceError
from zarrloc.images.look import COLUMNS, SHOWN, look


def test_the_first_fields_are_shown_as_they_are_understood(tmp_path: Path) -> None:
    VENDORS["Opera Phenix"](tmp_path / "plate", 3)
    seen = look(tmp_path / "plate", IngestConfig(project="max"))
    row = dict(zip(COLUMNS, seen.rows[0], strict=True))
    assert row == {
        "field": "P1_B02_s01", "plate": "P1", "well": "B02", "site": "01",
        "channels": "nucleus (ch1: HOECHST 33342), protein (ch2: EGFP)", "planes": "3",
        "pixels": "24x32", "um/px": "0.32", "dtype": "uint16",
    }  # fmt: skip
    lines = seen.lines()
    assert lines[0].startswith("4 fields of 2 channels (nucleus, protein), 24x32 px, uint16, 0.32")
    assert "2 wells: B02, C11" in lines


def test_at_most_ten_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    for plate in "abc":
        VENDORS["stains"](tmp_path / plate, 1)
    (tmp_path / "a/exp1_B02_s1_GFP.tif").unlink()
    lines = look(tmp_path).lines()
    assert f"... and {12 - SHOWN} more" in lines
    assert any("a/exp1_B02_s1: has no file for channel protein" in line for line in lines)


def test_what_cannot_be_ingested_is_refused_as_there(tmp_path: Path) -> None:
    VENDORS["CellVoyager"](tmp_path, 2)
    with pytest.raises(SourceError, match="--project max"):
        look(tmp_path)
    with pytest.raises(ChannelError, match="no channel for protein"):
        look(tmp_path, IngestConfig(channels=("C01=nucleus", "C09=protein")))


def test_a_dry_run_makes_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    VENDORS["MetaXpress"](tmp_path / "plate", 1)
    monkeypatch.chdir(tmp_path)
    for store in (["s.zarr"], []):
        assert zarrloc.main(["ingest", "plate", *store, "--dry-run"], standalone_mode=False) == 0
        assert "P1_B02_s1  P1     B02   1     nucleus (w1: DAPI)" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["plate"]
