"""What an expert gets: the right fields, every kept cell, and a table that comes back in."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from PIL import Image
from zarrloc_cli.label import command

from tests.stores import BACKGROUND, make_field, make_store
from tests.written import revise
from zarrloc.errors import ConfigError
from zarrloc.report.preview import FovPicture
from zarrloc.report.sheets import draw_sheet, export_sheets, select_paper
from zarrloc.stages import label as stage
from zarrloc.store.location import Location

LABELS = ["big_aggregates", *(f"label_{index:02d}" for index in range(16))]


def proteome() -> tuple[np.ndarray, list[str], list[tuple[int, ...]]]:
    """Three fields a protein; 16 single labels, 12 combinations of falling frequency, the rest."""
    sets: list[tuple[int, ...]] = [(label,) for label in range(17) for _ in range(3)]
    for rank, pair in enumerate((a, a + 1) for a in range(1, 13)):
        sets += [pair] * (14 - rank)
    sets = [labels for labels in sets for _ in range(3)]
    grades = np.zeros((len(sets), 17), np.uint8)
    for row, labels in enumerate(sets):
        grades[row, list(labels)] = 3
    return grades, [f"P{row // 3}" for row in range(len(sets))], sets


def test_the_papers_choice_is_two_of_each_label_and_the_commonest_combinations() -> None:
    grades, proteins, sets = proteome()
    rows = select_paper(grades, LABELS, proteins, np.ones(len(grades), bool))
    assert len(rows) == len(set(rows)) == 41
    count = Counter(sets[row] for row in rows)
    assert count == {(label,): 2 for label in range(1, 17)} | {(a, a + 1): 1 for a in range(1, 10)}
    for label in range(1, 17):
        assert len({proteins[row] for row in rows if sets[row] == (label,)}) == 2


def test_weak_grades_aggregates_and_unusable_fields_are_left_out() -> None:
    grades, proteins, sets = proteome()
    usable = np.ones(len(grades), bool)
    usable[: len(grades) // 2] = False
    weak = np.flatnonzero([labels == (12, 13) for labels in sets])
    grades[weak, 4] = 1
    rows = select_paper(grades, LABELS, proteins, usable, fields=10**6)
    fits = usable & [0 not in labels and labels != (12, 13) for labels in sets]
    assert sorted(rows) == np.flatnonzero(fits).tolist()
    assert select_paper(grades, LABELS, proteins, np.zeros(len(grades), bool)) == []


def test_a_sheet_shows_each_cell_bright_and_its_surroundings_dim() -> None:
    image, mask = make_field(9)
    image[1] = 5000  # an even field, so that brightness tells inside from outside
    image[0] = 0
    picture = FovPicture(
        image, np.array(BACKGROUND), mask, "P", ("nucleus", "protein"), pixel_size_um=None
    )
    ids = [2, 9]
    centroids = np.array([np.argwhere(mask == label).mean(0) for label in ids])
    page = np.asarray(draw_sheet(picture, ids, centroids, "sheet 1"))
    corner = 42, 900 + 2 * 14
    for place, label in enumerate(ids):
        top = corner[0] + place * (150 + 14)
        cell = page[top : top + 150, corner[1] : corner[1] + 150, 1]
        assert cell[75, 75] > 240
        y, x = np.rint(centroids[place]).astype(int)
        neighbour = np.argwhere((mask > 0) & (mask != label))[0]
        at = 75 + (neighbour - (y, x)) * 150 // 200
        assert 60 < cell[tuple(at)] < 120


def test_sheets_and_table_go_out_and_come_back(tmp_path: Path) -> None:
    grades = np.array([[0, 3, 0], [0, 3, 0], [0, 0, 3], [0, 2, 3]], np.uint8)
    store = make_store(tmp_path / "s.zarr", cells=(4, 0, 3, 5), grades=grades)
    out = tmp_path / "sheets"
    assert export_sheets(store, "cp", out, select="paper") == (2, 7)
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert pictures == ["001_FID00000000.png", "002_FID00000002.png"]
    with Image.open(out / pictures[0]) as picture:
        assert picture.width > 900
    with (out / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sheet"], row["field_labels"]) for row in rows] == [("1", "er")] * 4 + [
        ("2", "golgi")
    ] * 3
    assert stage.label(store, "cp", out / "cells.csv").blank == 7
    with (out / "filled.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "whole": "yes", "confirmed": "yes"} for row in rows)
    assert stage.label(store, "cp", out / "filled.csv").confirmed == 7
    cells = xr.open_zarr(store, group="cells/cp", chunks=None)
    seen = cells.expert_seen.values
    np.testing.assert_array_equal(cells.expert_grade[seen], grades[cells.fov_index[seen]])
    with pytest.raises(ConfigError, match="may be filled in"):
        export_sheets(store, "cp", out)


def test_all_fields_or_some_evenly_spaced(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", cells=(1, 0, 1, 1, 1, 1))
    assert export_sheets(store, "cp", tmp_path / "all") == (5, 5)
    line = [str(store), "--cells", "cp", "--fields", "2", "--export-sheet", str(tmp_path / "two")]
    result = CliRunner().invoke(command, line, catch_exceptions=False)
    assert result.output.startswith("2 sheets and cells.csv with 2 cells")
    names = sorted(path.name for path in (tmp_path / "two").glob("*.png"))
    assert names == ["001_FID00000000.png", "002_FID00000005.png"]
    with pytest.raises(ConfigError, match="no field"):
        export_sheets(make_store(tmp_path / "e.zarr", cells=(0, 0)), "cp", tmp_path / "none")


def test_a_field_named_by_its_path_has_a_sheet(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", cells=(2, 1))
    revise(Location.of(store), "fovs", fov=(("fov",), np.array(["plate1/A 01", "plate2/A 01"])))
    export_sheets(store, "cp", tmp_path / "out", select="all")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["001_plate1_A_01.png", "002_plate2_A_01.png"]
    with (tmp_path / "out/cells.csv").open() as file:
        assert {row["fov"] for row in csv.DictReader(file)} == {"plate1/A 01", "plate2/A 01"}
