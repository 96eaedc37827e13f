import json
from pathlib import Path

import numpy as np
import pytest

from tests.engine.toys import GROUP, run_toy
from tests.image_files import opencell_name, write_opencell
from tests.labelled_store import make_store
from tests.written import revise
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import StoreError
from zarrloc.stages.annotate import annotate
from zarrloc.stages.ingest import ingest
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.columns import read_column
from zarrloc.store.document import FORMAT
from zarrloc.store.info import info, lines
from zarrloc.store.location import Location
from zarrloc.store.lock import hold


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_opencell(tmp_path / "raw", 5)
    (tmp_path / "raw" / opencell_name(3, "P01", 13)).write_bytes(b"not a TIFF")
    config, run = IngestConfig(shard_fovs=2), RunConfig(cluster="serial")
    ingest(tmp_path / "raw", tmp_path / "s", config, run=run)
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


def test_a_store_described_as_text(store: Path) -> None:
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


def test_coordinates_labels_and_their_counts(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", proteins=8, fields=5)
    location = Location.of(store)
    drug = np.array(["DMSO", "taxol"])[np.arange(40) // 5 % 2]
    drug[:3] = ""
    revise(location, "fovs", drug=(("fov",), drug), block_bytes=(("block",), np.zeros(1, int)))
    fovs = info(store)["groups"]["fovs"]
    assert fovs["coords"]["drug"] == {
        "values": 2, "fields": 37, "counts": {"DMSO": 17, "taxol": 20},
    }  # fmt: skip
    assert "cell_line" not in fovs["coords"]  # empty everywhere
    grade = read_column(location.group("fovs", mode="r"), "grade")
    assert fovs["labelled"] == 40
    assert {label: n["3"] for label, n in fovs["label_counts"].items()} == dict(
        zip(fovs["labels"], (grade == 3).sum(axis=0).tolist(), strict=True)
    )
    text = "\n".join(lines(info(store)))
    assert "drug: 2 values, 3 fields without: DMSO (17), taxol (20)" in text
    assert "labels: 40 of 40 fields have some: " in text
    assert "pixel size: 0.2063 um" in text
    assert "zarrloc split" in text


def test_what_is_stale_is_said_and_why(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", proteins=8, fields=5)
    location = Location.of(store)
    source = np.array([f"/data/{row}.tif" for row in range(40)])
    revise(
        location, "fovs",
        block_bytes=(("block",), np.zeros(1, int)), source=(("fov",), source),
    )  # fmt: skip
    split(store, SplitConfig(folds=2), "s")
    config = TrainConfig(embedding="planted", split="s", hidden=(), epochs=2)
    train(store, config, "h")

    def reasons() -> dict[str, list[str]]:
        groups = info(store)["groups"]
        return {path: group["stale"] for path, group in groups.items() if "stale" in group}

    assert reasons() == {}
    table = tmp_path / "labels.csv"
    rows = "".join(f"FID{row:05d},er\n" for row in range(40))
    table.write_text(f"fov,label\n{rows}")
    annotate(store, labels=table)
    assert list(reasons()) == ["heads/h"]
    assert "the labels of the fields changed since it was trained" in reasons()["heads/h"][0]
    assert any("STALE: the labels" in line for line in lines(info(store)))
    split(store, SplitConfig(folds=3), "s", overwrite=True)
    assert any("split 's' was made again" in reason for reason in reasons()["heads/h"])
