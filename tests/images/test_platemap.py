from pathlib import Path

import openpyxl
import pytest

from zarrloc.errors import SourceError
from zarrloc.images import platemap, tables
from zarrloc.images.labels import read_conditions

HEADER = "," + ",".join(map(str, range(1, 13)))


def _wells(path: Path, text: str) -> dict[str, dict[str, str]] | None:
    path.write_text(text)
    table = platemap.table_of(tables.read_lines(path))
    if table is None:
        return None
    assert table.columns[0] == "well"
    return {
        row.cells["well"]: {n: v for n, v in row.cells.items() if n != "well"} for row in table.rows
    }


def test_a_grid_of_eight_by_twelve(tmp_path: Path) -> None:
    rows = [
        f"{row}," + ",".join(f"{row}-{column}" for column in range(1, 13)) for row in "ABCDEFGH"
    ]
    found = _wells(tmp_path / "map.csv", "\n".join([HEADER, *rows]))
    assert found is not None
    assert len(found) == 96
    assert found["A01"] == {"condition": "A-1"}
    assert found["H12"] == {"condition": "H-12"}


def test_wells_that_are_empty_have_no_row_and_rows_may_be_short(tmp_path: Path) -> None:
    found = _wells(tmp_path / "map.csv", "drug,1,2,3\nA,DMSO,,taxol\nB,DMSO\nC\n\n")
    assert found == {"A01": {"drug": "DMSO"}, "A03": {"drug": "taxol"}, "B01": {"drug": "DMSO"}}


def test_maps_may_follow_one_another_named_in_their_corner_or_above(tmp_path: Path) -> None:
    text = "drug;1;2\nA;DMSO;taxol\n\ndose (uM)\n;1;2\nA;0;0,5\n"
    found = _wells(tmp_path / "map.csv", text)
    assert found == {
        "A01": {"drug": "DMSO", "dose (uM)": "0"},
        "A02": {"drug": "taxol", "dose (uM)": "0,5"},
    }


def test_an_excel_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [[None, 1, 2, 3], ["A", "ctrl", None, "drug"], ["B", "drug", "ctrl", None]]:
        sheet.append(row)
    book.save(tmp_path / "map.xlsx")
    table = read_conditions(tmp_path / "map.xlsx")
    assert table.coords == ("condition",)
    assert {key: row.values["condition"] for key, row in table.rows.items()} == {
        "A01": "ctrl", "A03": "drug", "B01": "drug", "B02": "ctrl",
    }  # fmt: skip


def test_tables_are_no_maps(tmp_path: Path) -> None:
    assert _wells(tmp_path / "t.csv", "well,condition\nA01,x\n") is None
    assert _wells(tmp_path / "t.csv", "1,2,3\n4,5,6\n") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",1,2\nA,x,y,z\n", "line 2 is no row of a plate map.*at most 2 wells"),
        (",1,2\nA,x,y\nA,x,y\n", "line 3 says row A of 'condition' again"),
        (",1,2\nA,x\n,1,2\nB,y\n", "line 3 begins a second map of 'condition'"),
        (",1,2\nA,x\n7,y,z\n", "line 3 is no row of a plate map"),
        (",1,2\nZZ,x\n", "line 2 is no row of a plate map"),
    ],
)
def test_what_no_map_can_say_is_refused_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        _wells(tmp_path / "map.csv", text)
