import codecs
import sys
from pathlib import Path

import openpyxl
import pytest

from zarrloc.errors import SourceError
from zarrloc.images import tables


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"fov,label\na,er\nb,golgi\n",
        b"\xef\xbb\xbffov,label\r\na,er\r\nb,golgi\r\n",
        b'"fov","label"\n"a","er"\n\n  \nb, golgi \n\n',
        b",fov,label\n0,a,er\n1,b,golgi",
        b"fov;label\na;er\nb;golgi\n",
        b"fov\tlabel\na\ter\nb\tgolgi\n",
        b"sep=;\r\nfov;label\r\na;er\r\nb;golgi\r\n",
        b"FOV,Label\na,er\nb,golgi\n",
        codecs.BOM_UTF16_LE + "fov\tlabel\r\na\ter\r\nb\tgolgi\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "fov,label\na,er\nb,golgi\n".encode("utf-16-be"),
    ],
    ids=[
        *("plain", "bom and crlf", "quotes, blank lines and spaces", "an index column of pandas"),
        *("semicolons", "tabs", "sep= of Excel", "upper case", "UTF-16", "big-endian UTF-16"),
    ],
)
def test_the_ways_programs_write_csv_read_the_same(tmp_path: Path, content: bytes) -> None:
    table = tables.read(_file(tmp_path, content))
    assert table.columns == ("fov", "label")
    assert [row.cells for row in table.rows] == [
        {"fov": "a", "label": "er"},
        {"fov": "b", "label": "golgi"},
    ]


def test_a_row_knows_its_line_in_the_file(tmp_path: Path) -> None:
    table = tables.read(_file(tmp_path, b"fov,label\n\na,er\n\nb,golgi\n"))
    assert [row.line for row in table.rows] == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a header line"),
        (b"fov,label\na\n", "line 2 has 1 cells, the header has 2"),
        (b"fov,fov\na,b\n", "column 'fov' appears more than once"),
        (b"fov,label\n\x81,er\n", "is neither UTF-8 .byte 10. nor Windows-1252 text"),
        (b"fov,label\n\0\0\0,er\n", "is not a table of text"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8", "is damaged UTF-16 text"),
        (b"PK\x03\x04 and no zip", "cannot be read as an Excel file"),
        (b'fov,label\n"a,er\n', "is not a CSV table"),
    ],
)
def test_a_damaged_table_is_refused_by_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        tables.read(_file(tmp_path, content))


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent\.csv: cannot be read: No such file"):
        tables.read(tmp_path / "absent.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        tables.read(tmp_path)
    table = tables.read(_file(tmp_path, b"field,donor\na,d1\n"))
    with pytest.raises(SourceError, match="column 'label' is missing; it has field, donor"):
        table.require("field", "label")


def test_further_columns_become_coords_unless_the_store_has_that_name(tmp_path: Path) -> None:
    table = tables.read(_file(tmp_path, b"fov,donor,plate\na,d1,p1\n"))
    assert table.coords({"fov"}) == ("donor", "plate")
    table = tables.read(_file(tmp_path, b"fov,donor,height\na,d1,600\n"))
    with pytest.raises(SourceError, match=r"'height' cannot become a coordinate.*rename it"):
        table.coords({"fov"})


@pytest.mark.parametrize(
    ("content", "columns", "last"),
    [
        (b"fov,label\na,er;golgi\n", ("fov", "label"), "er;golgi"),  # one semicolon, no delimiter
        (b"well;dose\nA01;0,5\nA02;1,5\n", ("well", "dose"), "1,5"),  # a decimal comma
        (b'fov;label\na;"er;golgi"\n', ("fov", "label"), "er;golgi"),
        (b"fov\tlabel\na\ter;golgi, weak\n", ("fov", "label"), "er;golgi, weak"),
        (b"fov\na\n", ("fov",), "a"),
    ],
)
def test_the_delimiter_is_what_makes_lines_of_equal_length(
    tmp_path: Path, content: bytes, columns: tuple[str, ...], last: str
) -> None:
    table = tables.read(_file(tmp_path, content))
    assert table.columns == columns
    assert list(table.rows[-1].cells.values())[-1] == last


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    table = tables.read(_file(tmp_path, "fov,Behandlung\na,Lösung µM\n".encode("cp1252")))
    assert table.rows[0].cells == {"fov": "a", "Behandlung": "Lösung µM"}
    assert table.notes == ("table.csv is not UTF-8 text; it was read as Windows-1252",)


def test_the_first_sheet_of_an_excel_file(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in [["Well", "Condition", "Dose"], [None], ["A1", "DMSO", 0], ["A2", "drug", 0.5]]:
        sheet.append(row)
    book.create_sheet("other").append(["x"])
    book.save(tmp_path / "t.xlsx")
    table = tables.read(tmp_path / "t.xlsx")
    assert table.columns == ("well", "condition", "Dose")
    assert [(row.line, *row.cells.values()) for row in table.rows] == [
        (3, "A1", "DMSO", "0"),
        (4, "A2", "drug", "0.5"),
    ]


def test_an_excel_file_without_openpyxl_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openpyxl.Workbook().save(tmp_path / "t.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(SourceError, match=r"pip install 'zarrloc\[excel\]'"):
        tables.read(tmp_path / "t.xlsx")


@pytest.mark.parametrize("name", ["..", "zarr.json", "a/b", "x" * 300, ".hidden", "__x"])
def test_a_column_that_no_store_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    table = tables.read(_file(tmp_path, f"fov,{name}\na,1\n".encode()))
    with pytest.raises(SourceError, match="cannot become a coordinate"):
        table.coords({"fov"})


def test_a_table_of_very_many_columns_is_refused(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(10_000))
    table = tables.read(_file(tmp_path, f"fov,{names}\n".encode()))
    with pytest.raises(SourceError, match=r"has 10000 further columns.*at most 200"):
        table.coords({"fov"})


def test_titles_and_merged_cells_of_a_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["Layout, batch 2"], [], ["well", "drug", "dose"], ["A1", "x", 1], ["A2", None, 2]):
        sheet.append(row)
    sheet.merge_cells("A1:C1")
    sheet.merge_cells("B4:B5")
    book.save(tmp_path / "t.xlsx")
    table = tables.read(tmp_path / "t.xlsx")
    assert [row.cells for row in table.rows] == [
        {"well": "A1", "drug": "x", "dose": "1"}, {"well": "A2", "drug": "x", "dose": "2"},
    ]  # fmt: skip
    assert table.notes == ("t.xlsx: line 1 ('Layout, batch 2') is taken for a title",)


def test_a_sheet_may_begin_at_any_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",,well,drug\n,,A1,x\n")
    assert tables.read(path).rows[0].cells == {"well": "A1", "drug": "x"}
