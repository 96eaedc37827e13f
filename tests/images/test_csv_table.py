from pathlib import Path

import pytest

from zarrloc.errors import SourceError
from zarrloc.images import csv_table


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
    ],
    ids=["plain", "bom and crlf", "quotes, blank lines and spaces", "an index column of pandas"],
)
def test_the_ways_programs_write_csv_read_the_same(tmp_path: Path, content: bytes) -> None:
    table = csv_table.read_csv(_file(tmp_path, content))
    assert table.columns == ("fov", "label")
    assert [row.cells for row in table.rows] == [
        {"fov": "a", "label": "er"},
        {"fov": "b", "label": "golgi"},
    ]


def test_a_row_knows_its_line_in_the_file(tmp_path: Path) -> None:
    table = csv_table.read_csv(_file(tmp_path, b"fov,label\n\na,er\n\nb,golgi\n"))
    assert [row.line for row in table.rows] == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a header line"),
        (b"fov,label\na\n", "line 2 has 1 cells, the header has 2"),
        (b"fov,fov\na,b\n", "column 'fov' appears more than once"),
        (b"fov,label\n\xff\xfe,er\n", "is not UTF-8 text"),
        (b'fov,label\n"a,er\n', "is not a CSV table"),
    ],
)
def test_a_damaged_table_is_refused_by_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        csv_table.read_csv(_file(tmp_path, content))


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"absent\.csv: cannot be read: No such file"):
        csv_table.read_csv(tmp_path / "absent.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        csv_table.read_csv(tmp_path)
    table = csv_table.read_csv(_file(tmp_path, b"field,donor\na,d1\n"))
    with pytest.raises(SourceError, match="column 'label' is missing; it has field, donor"):
        table.require("field", "label")


def test_further_columns_become_coords_unless_the_store_has_that_name(tmp_path: Path) -> None:
    table = csv_table.read_csv(_file(tmp_path, b"fov,donor,plate\na,d1,p1\n"))
    assert table.coords({"fov"}) == ("donor", "plate")
    table = csv_table.read_csv(_file(tmp_path, b"fov,donor,height\na,d1,600\n"))
    with pytest.raises(SourceError, match=r"'height' cannot become a coordinate.*rename it"):
        table.coords({"fov"})
