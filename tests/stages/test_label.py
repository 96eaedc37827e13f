"""An expert's table in, checked against what the rows say; and what must leave no trace."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from click.testing import CliRunner
from zarrloc_cli.label import command
from zarrloc_cli.main import main

from tests.stores import LABELS, make_field, make_store
from tests.written import revise
from zarrloc.engine.verify import verify
from zarrloc.errors import LockedError, SourceError, StoreError
from zarrloc.stages import label as stage
from zarrloc.stages.label import Summary
from zarrloc.store.location import Location
from zarrloc.store.lock import hold

# Fields of 4, 0 and 6 cells; every field's grades are er 3, golgi 1 (big_aggregates 0).
FIELD_GRADE = [0, 3, 1]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "s.zarr")


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "expert.csv"
    path.write_text(text.strip() + "\n", encoding="utf-8")
    return path


def cells_of(store: Path) -> xr.Dataset:
    return xr.open_zarr(store, group="cells/cp", chunks=None).load()


def centre(field: int, label: int) -> tuple[float, float]:
    _, mask = make_field((4, 0, 6)[field], seed=field)
    y, x = np.nonzero(mask == label)
    return float(y.mean()), float(x.mean())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_way_to_speak_of_a_cell(store: Path, tmp_path: Path) -> None:
    y, x = centre(2, 5)
    csv = table(
        tmp_path,
        f"""
fov,mask_label,y,x,whole,confirmed,labels
FID00000000,2,,,yes,yes,
FID00000000,3,,,No,no,
FID00000000,4,,,x,,golgi; er
FID00000000,1,,,,,
FID00000002,,{y},{x},1,,er
FID00000002,6,{centre(2, 6)[0]},{centre(2, 6)[1]},0,no,golgi
""",
    )
    assert stage.label(store, "cp", csv) == Summary(seen=5, whole=3, confirmed=2, blank=1)
    cells = cells_of(store)
    assert np.flatnonzero(cells.expert_seen).tolist() == [1, 2, 3, 8, 9]
    assert np.flatnonzero(cells.expert_whole).tolist() == [1, 3, 8]
    # Cell 3's labels are not the image's strong ones; cell 8's are, without a tick.
    assert np.flatnonzero(cells.expert_confirmed).tolist() == [1, 8]
    assert cells.label.values.tolist() == list(LABELS)
    expected = {1: FIELD_GRADE, 2: [0, 0, 0], 3: [0, 3, 3], 8: [0, 3, 0], 9: [0, 0, 3]}
    for row, grade in expected.items():
        assert cells.expert_grade.values[row].tolist() == grade
    assert cells.expert_grade.values[[0, 4, 5, 6, 7]].sum() == 0
    assert cells.expert_grade.dims == ("cell", "label")
    assert cells.area_px.shape == (10,)  # the table is still all there


def test_a_table_of_labels_alone(store: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "fov,mask_label,labels\nFID00000002,1,er\nFID00000002,2,golgi")
    assert stage.label(store, "cp", csv) == Summary(seen=2, whole=2, confirmed=1, blank=0)


def test_of_a_fragment_one_tick_is_enough(store: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "fov,mask_label,whole,confirmed,labels\nFID00000002,1,no,,")
    assert stage.label(store, "cp", csv) == Summary(seen=1, whole=0, confirmed=0, blank=0)
    assert cells_of(store).expert_grade.values.sum() == 0


def test_a_run_on_the_table_keeps_the_import_out(store: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "fov,mask_label,labels\nFID00000002,1,er")
    with hold(Location.of(store), "cells/cp", "a-run"), pytest.raises(LockedError, match="a-run"):
        stage.label(store, "cp", csv)
    assert "expert_seen" not in cells_of(store)


def test_a_later_table_adds_and_corrects(store: Path, tmp_path: Path) -> None:
    header = "fov,mask_label,whole,confirmed\n"
    rows = "FID00000000,1,yes,yes\nFID00000000,2,yes,yes"
    stage.label(store, "cp", table(tmp_path, header + rows))
    stage.label(store, "cp", table(tmp_path, header + "FID00000000,2,yes,no\nFID00000002,1,no,yes"))
    cells = cells_of(store)
    assert np.flatnonzero(cells.expert_seen).tolist() == [0, 1, 4]
    assert np.flatnonzero(cells.expert_confirmed).tolist() == [0, 4]
    assert cells.expert_grade.values[0].tolist() == FIELD_GRADE
    assert cells.expert_grade.values[1].tolist() == [0, 0, 0]


def test_judgements_go_along_with_the_same_objects(store: Path, tmp_path: Path) -> None:
    """Where nobody judged there is nothing to take; of other objects they would be wrong."""
    make_store(tmp_path / "other.zarr", name="twin")
    make_store(tmp_path / "more.zarr", name="more", cells=(4, 1, 6))
    for name, source in (("twin", "other"), ("more", "more")):
        for room in ("cells", "segmentations"):
            shutil.copytree(tmp_path / f"{source}.zarr" / room / name, store / room / name)
    verify(store, repair=True)  # takes note of what was copied
    assert stage.carry(store, "cp", "twin") == 0
    assert "expert_seen" not in xr.open_zarr(store, group="cells/twin", chunks=None)
    csv = table(tmp_path, "fov,mask_label,whole,confirmed\nFID00000000,2,yes,yes")
    stage.label(store, "cp", csv)
    assert stage.carry(store, "cp", "twin") == 1
    twin, own = xr.open_zarr(store, group="cells/twin", chunks=None), cells_of(store)
    for name in ("expert_seen", "expert_whole", "expert_confirmed", "expert_grade"):
        assert (twin[name].values == own[name].values).all()
    before = contents(store)
    with pytest.raises(StoreError, match="cells/cp and cells/more speak of different objects"):
        stage.carry(store, "cp", "more")
    assert contents(store) == before


def test_grades_follow_a_grown_vocabulary(store: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "fov,mask_label,whole,labels\nFID00000000,1,yes,golgi")
    stage.label(store, "cp", csv)
    location = Location.of(store)
    labels = np.array(["chromatin", *LABELS])
    grades: npt.NDArray[np.uint8] = np.tile(np.array([2, 0, 3, 1], np.uint8), (3, 1))
    revise(location, "fovs", label=(("label",), labels), grade=(("fov", "label"), grades))
    stage.label(store, "cp", table(tmp_path, "fov,mask_label,labels\nFID00000000,2,chromatin"))
    cells = cells_of(store)
    assert cells.label.values.tolist() == labels.tolist()
    assert cells.expert_grade.values[:2].tolist() == [[0, 0, 0, 3], [3, 0, 0, 0]]


BAD = """
fov,mask_label,y,x,whole,confirmed,labels
FID00000000,1,,,yes,yes,
FID9,1,,,yes,yes,
FID00000000,,95,95,yes,yes,
FID00000000,,5000,-3,yes,yes,
FID00000000,2,,,yes,yes,nucleus;er;mush
FID00000000,1,,,no,no,
FID00000001,1,,,yes,yes,
FID00000000,7,,,yes,yes,
FID00000000,,,,yes,yes,
FID00000000,3,,,perhaps,yes,
FID00000000,4,,,yes,,
FID00000002,1,,,,yes,
FID00000002,2,north,3,yes,yes,
FID00000002,3,{y},{x},yes,yes,
"""
COMPLAINTS = {
    3: "no field 'FID9'",
    4: "outside every mask",
    5: "outside every mask",
    6: "unknown label nucleus, mush",
    7: "the same cell as line 2",
    8: "no cell '1' in field FID00000001, which has 0",
    9: "no cell '7' in field FID00000000, which has 4",
    10: "names no cell",
    11: "whole is 'perhaps'",
    12: "confirmed is ''",
    13: "whole is ''",
    14: "not a point",
    15: "mask_label is 3, but the point lies in 4",
}


def test_all_bad_rows_are_named_and_nothing_is_written(store: Path, tmp_path: Path) -> None:
    y, x = centre(2, 4)
    csv = table(tmp_path, BAD.format(y=y, x=x))
    before = contents(store)
    with pytest.raises(SourceError) as caught:
        stage.label(store, "cp", csv)
    first, *lines = str(caught.value).splitlines()
    assert "13 of 14 rows cannot be used, so nothing was written" in first
    for line, (number, complaint) in zip(lines, COMPLAINTS.items(), strict=True):
        assert line.startswith(f"  line {number}: ")
        assert complaint in line
    assert contents(store) == before


def test_a_table_that_is_none_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'fov' is missing"):
        stage.label(store, "cp", table(tmp_path, "field,mask_label\nFID00000000,1"))
    with pytest.raises(SourceError, match="unknown column complete"):
        stage.label(store, "cp", table(tmp_path, "fov,mask_label,complete\nFID00000000,1,yes"))
    with pytest.raises(StoreError, match="cells/nope"):
        stage.label(store, "nope", table(tmp_path, "fov,mask_label\nFID00000000,1"))


def test_the_command_reports_what_came_in(store: Path, tmp_path: Path) -> None:
    csv = table(tmp_path, "fov,mask_label,whole,confirmed\nFID00000000,1,yes,no\nFID00000000,2,,")
    line = ["label", str(store), "--cells", "cp", "--csv", str(csv)]
    result = CliRunner().invoke(command, line[1:], catch_exceptions=False)
    assert result.output == (
        "1 cells judged (1 whole, 0 confirmed), 1 rows left blank -> cells/cp\n"
    )
    with pytest.raises(SystemExit) as stopped:
        main([*line[:4], "--csv", str(table(tmp_path, "fov,mask_label\nFID7,1"))])
    assert stopped.value.code == 2
    both = CliRunner().invoke(command, [str(store), "--cells", "cp"])
    assert both.exit_code == 2
    assert "either --csv or --export-sheet" in both.output
