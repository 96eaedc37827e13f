from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from zarrloc_cli.main import main

from tests.image_files import pixels, write
from tests.objects import opened
from tests.stages.conftest import SERIAL, bright_spots
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.split import SplitConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.engine.verify import verify
from zarrloc.errors import ConfigError, SourceError, StoreError
from zarrloc.groups.fovs import Fovs
from zarrloc.stages.annotate import annotate
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment, segment_fovs
from zarrloc.stages.split import split
from zarrloc.store.info import info
from zarrloc.store.location import Location

Fresh = Callable[[str], Path]
SPOTS = SegmentConfig(model="watershed")


def test_facts_change_and_what_was_made_stays(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    config = SegmentConfig(model="watershed")

    def masks() -> int:
        return segment_fovs(store, config, "spots", function=bright_spots, run=SERIAL).blocks_run

    assert masks() == 3
    before = opened(store, "fovs").image.load()
    changes = annotate(store, pixel_size_um=0.325, channels=["Hoechst", "er"]).changes
    assert [change.rpartition(" -> ")[2] for change in changes] == ["nucleus, er", "0.325"]
    fovs = Fovs.of(Location.of(store))
    assert (fovs.roles, fovs.pixel_size_um) == (("nucleus", "er"), 0.325)
    assert opened(store, "fovs").image.load().values.tobytes() == before.values.tobytes()
    assert masks() == 0
    assert not any(found.faults for found in verify(store, deep=True))
    assert annotate(store, pixel_size_um=0.325).changes == []


def test_what_cannot_be_is_refused_and_changes_nothing(fresh: Fresh, tmp_path: Path) -> None:
    store = fresh("a.zarr")
    metadata = (store / "fovs/zarr.json").read_bytes()
    for options, words in [
        ({}, "nothing to change"),
        ({"pixel_size_um": -1.0}, "expected a positive number"),
        ({"pixel_size_um": float("nan")}, "expected a positive number"),
        ({"channels": ["nucleus"]}, r"for 2 channels \(nucleus, protein\)"),
        ({"channels": ["nucleus", "dapi"]}, "a different role for each"),
    ]:
        with pytest.raises(ConfigError, match=words):
            annotate(store, **options)  # type: ignore[arg-type]
    assert (store / "fovs/zarr.json").read_bytes() == metadata
    with pytest.raises(StoreError, match="no store at"):
        annotate(tmp_path / "none", pixel_size_um=1.0)


def test_conditions_and_labels_join_onto_stored_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,fov,well"]
    for row, well in enumerate(("A01", "A02", "B01", "B02")):
        write(tmp_path / f"raw/{row}.tif", pixels(row))
        lines.append(f"raw/{row}.tif,f{row},{well}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    (tmp_path / "map.csv").write_text("drug,1,2\nA,DMSO,taxol\nB,DMSO,\nC,taxol\n")
    (tmp_path / "labels.tsv").write_text("fov\tlabel\nf0\ter\nf1\tgolgi\n")
    store = tmp_path / "s"
    config = IngestConfig(channels=("nucleus", "protein"))
    summary = ingest(
        None, store, config, manifest=tmp_path / "manifest.csv",
        conditions=tmp_path / "map.csv", run=SERIAL,
    )  # fmt: skip
    assert "conditions: 3 of 4 FOVs matched; without: f3" in summary.notes
    assert "map.csv: 1 of 4 rows match no field: well 'C01'" in summary.notes
    assert list(opened(store, "fovs")["drug"].values) == ["DMSO", "taxol", "DMSO", ""]
    assert "grade" not in opened(store, "fovs")

    (tmp_path / "more.csv").write_text("well,drug,dose\na1,DMSO,0\na2,taxol,10\nb1,DMSO,0\nb2,,5\n")
    image = opened(store, "fovs").image.load()
    with pytest.raises(SystemExit) as ended:
        main(["annotate", str(store), "--conditions", str(tmp_path / "more.csv"),
              "--labels", str(tmp_path / "labels.tsv")])  # fmt: skip
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "labels: 0 labels of 0 fields -> 2 labels of 2 fields" in said
    assert "dose: (none) -> 3 values" in said
    assert "conditions: all 4 FOVs matched" in said
    data = opened(store, "fovs").load()
    assert {"drug", "dose", "well", "protein"} <= set(data.coords)
    assert data["image"].values.tobytes() == image.values.tobytes()
    assert list(data["dose"].values) == ["0", "10", "0", "5"]
    assert dict(zip(data["label"].values, data["grade"].values[0], strict=True)) == {
        "er": 3, "golgi": 0,
    }  # fmt: skip
    assert not any(found.faults for found in verify(store, deep=True))
    again = annotate(store, conditions=tmp_path / "more.csv", labels=tmp_path / "labels.tsv")
    assert again.changes == []

    metadata = (store / "fovs/zarr.json").read_bytes()
    (tmp_path / "none.csv").write_text("well,drug\nH12,x\n")
    with pytest.raises(SourceError, match="none of its 1 rows matches any of 4 fields"):
        annotate(store, conditions=tmp_path / "none.csv")
    assert (store / "fovs/zarr.json").read_bytes() == metadata


def test_a_changed_pixel_size_makes_only_what_is_in_micrometres_stale(
    fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    store = fresh("a.zarr")

    def cells() -> tuple[Summary, Summary]:
        return segment(store, SPOTS, "s", function=bright_spots, run=SERIAL)

    cells()
    annotate(store, pixel_size_um=0.2064)
    assert "stale" not in info(store)["groups"]["cells/s"]
    annotate(store, pixel_size_um=0.325)
    with pytest.raises(SystemExit):
        main(["info", str(store)])
    printed = capsys.readouterr().out
    assert printed.count("STALE") == 1
    assert "its windows of 256 px are 83.2 um since the size of a pixel changed" in printed
    masks, table = cells()
    assert masks.blocks_run == 0
    assert "with windows of 164 px (256 before) for 53 um" in "\n".join(table.notes)
    assert not any("stale" in group for group in info(store)["groups"].values())
    assert opened(store, "cells/s").attrs["zarrloc"]["config"]["window_px"] == 164
    assert cells()[1].blocks_run == 0
    assert not any(found.faults for found in verify(store, deep=True))


def test_roles_that_change_places_are_read_again(fresh: Fresh) -> None:
    store, config = fresh("a.zarr"), SegmentConfig(model="watershed")
    segment(store, config, "ws", run=SERIAL)
    nuclei = opened(store, "segmentations/ws")["mask"].values.copy()
    annotate(store, channels=["protein", "nucleus"])
    groups = info(store)["groups"]
    (why,) = [one for one in groups["segmentations/ws"]["stale"] if "as nucleus" in one]
    assert "it read channel 1 as nucleus, which is channel 2 now; the same command" in why
    assert groups["cells/ws"]["stale"]
    masks, _ = segment(store, config, "ws", run=SERIAL)
    assert masks.blocks_run == masks.blocks
    assert not np.array_equal(opened(store, "segmentations/ws")["mask"].values, nuclei)
    assert list(opened(store, "cells/ws")["channel"].values) == ["protein", "nucleus"]
    assert not any("stale" in group for group in info(store)["groups"].values())


def test_folds_are_stale_when_the_wells_they_keep_together_change(
    fresh: Fresh, tmp_path: Path
) -> None:
    store = fresh("a.zarr")
    fields = opened(store, "fovs")["fov"].values
    for wells in ("AABBC", "ABABC"):
        (tmp_path / "w.csv").write_text(
            "fov,well\n" + "".join(f"{f},{w}01\n" for f, w in zip(fields, wells, strict=True))
        )
        annotate(store, conditions=tmp_path / "w.csv")
        split(store, SplitConfig(group="well", folds=2), "by_well", overwrite=wells == "AABBC")
        split(store, SplitConfig(group="protein", folds=2), "by_protein")
    groups = info(store)["groups"]
    (why,) = groups["splits/by_well"]["stale"]
    assert "coordinate 'well' changed since the folds were dealt" in why
    assert "stale" not in groups["splits/by_protein"]
