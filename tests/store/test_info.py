import json
from pathlib import Path

import pytest

from tests.engine.toys import GROUP, run_toy
from tests.image_files import opencell_name, write_opencell
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.errors import StoreError
from zarrloc.stages.ingest import ingest
from zarrloc.store.document import FORMAT
from zarrloc.store.info import info, lines
from zarrloc.store.location import Location
from zarrloc.store.lock import hold


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_opencell(tmp_path / "raw", 5)
    (tmp_path / "raw" / opencell_name(3, "P01", 13)).write_bytes(b"not a TIFF")
    config, run = IngestConfig(shard_fovs=2), RunConfig(cluster="serial")
    ingest(tmp_path / "raw", tmp_path / "s", config, run=run, quiet=True)
    run_toy(tmp_path / "s", do={-1: "open"}, rows=8, settings={"size": "224"})
    return tmp_path / "s"


def test_what_a_store_holds_as_plain_values(store: Path) -> None:
    described = info(store, errors=True)
    assert json.loads(json.dumps(described)) == described
    assert described["format"] == FORMAT
    assert list(described["groups"]) == ["fovs", GROUP]
    fovs = described["groups"]["fovs"]
    assert (fovs["stage"], fovs["shard_fovs"]) == ("ingest", 2)
    assert fovs["channels"] == ["nucleus", "protein"]
    assert fovs["blocks"] == {"total": 3, "done": 3}
    assert fovs["arrays"]["image"] == {
        "dims": ["fov", "channel", "y", "x"], "shape": [5, 2, 24, 32], "dtype": "uint16",
    }  # fmt: skip
    assert fovs["arrays"]["protein"]["dtype"] == "string"
    (error,) = fovs["rows"].pop("errors")
    assert (error["row"], error["fov"]) == (2, "FID00000003")
    assert "TIFF" in error["error"]
    assert fovs["rows"] == {"total": 5, "failed": 1, "pending": 0}
    assert fovs["bytes"] == sum(
        path.stat().st_size for path in (store / "fovs/image/c").rglob("*") if path.is_file()
    )
    toy = described["groups"][GROUP]
    assert toy["blocks"] == {"total": 2, "done": 0}
    assert toy["rows"]["pending"] == 8
    assert toy["config"] == {"size": "224"}
    assert "errors" not in info(store)["groups"]["fovs"]["rows"]


def test_the_same_for_people(store: Path) -> None:
    text = "\n".join(lines(info(store, errors=True)))
    assert "fovs: image (fov 5, channel 2, y 24, x 32)" in text
    assert "3 of 3 blocks done" in text
    assert "1 rows failed, 0 pending" in text
    assert "    FID00000003: " in text
    assert "0 of 2 blocks done" in text
    assert "size 224" in text


def test_a_live_writer_is_named_and_a_past_one_is_not(store: Path) -> None:
    assert "held_by" not in info(store)["groups"][GROUP]
    with hold(Location.of(store), GROUP, "running"):
        described = info(store)
        assert described["groups"][GROUP]["held_by"].startswith("run running (pid ")
        assert "held_by" not in described["groups"]["fovs"]
        assert any("being written by run running" in line for line in lines(described))


def test_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        info(tmp_path / "none")
