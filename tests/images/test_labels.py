from pathlib import Path

import numpy as np
import pytest

from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import labels
from zarrloc.images.find import FovSource

OPENCELL = (
    "target_name,ensg_id,annotations_grade_3,annotations_grade_2,annotations_grade_1\n"
    "AAA,ENSG1,er;golgi,,vesicles\nBBB,ENSG2,,,\n"
)
CELL_LINES = "cell_line_id,target_name,uniprot_id,ensg_id\n12,AAA,P1,ENSG9\n7,BBB,P2,ENSG2\n"


def _file(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _fov(fov: str, *paths: str, **coords: str) -> FovSource:
    return FovSource(fov, paths or (f"{fov}.tif",), 1, "image", coords)


def _grades(table: labels.LabelTable, source: FovSource) -> dict[str, int]:
    row = table.match(source)
    assert row is not None
    assert row.grades.dtype == np.uint8
    return {name: int(grade) for name, grade in zip(table.labels, row.grades, strict=True) if grade}


def test_opencell_joins_by_cell_line_and_never_by_gene_or_ensg(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, OPENCELL), _file(tmp_path, CELL_LINES, "lines.csv"))
    assert table.labels == ("er", "golgi", "vesicles")
    found = _grades(table, _fov("F", cell_line="CID000012", protein="BBB", ensg="ENSG2"))
    assert found == {"er": 3, "golgi": 3, "vesicles": 1}
    assert _grades(table, _fov("F", cell_line="CID000007")) == {}
    assert table.match(_fov("F", cell_line="CID000099", protein="AAA", ensg="ENSG1")) is None
    assert table.match(_fov("F")) is None


def test_opencell_labels_without_cell_lines_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--cell-lines"):
        labels.read(_file(tmp_path, OPENCELL))
    anyone = _file(tmp_path, "fov,label\na,er\n", "mine.csv")
    with pytest.raises(ConfigError, match="leave --cell-lines out"):
        labels.read(anyone, _file(tmp_path, CELL_LINES, "lines.csv"))


def test_opencell_tables_with_a_missing_column_name_it(tmp_path: Path) -> None:
    lines = _file(tmp_path, CELL_LINES, "lines.csv")
    with pytest.raises(SourceError, match="'annotations_grade_2' and 'annotations_grade_1'"):
        labels.read(_file(tmp_path, "target_name,annotations_grade_3\nA,er\n"), lines)
    with pytest.raises(SourceError, match=r"'target_name' and .* is missing; it has name"):
        labels.read(_file(tmp_path, "name,annotations_grade_3\nA,er\n"), lines)
    with pytest.raises(SourceError, match="'cell_line_id' is missing; it has id, target_name"):
        labels.read(_file(tmp_path, OPENCELL), _file(tmp_path, "id,target_name\n1,A\n", "x.csv"))


def test_labels_of_one_column_are_all_of_grade_three(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,label\na,er; golgi\nb,\n"))
    assert table.labels == ("er", "golgi")
    assert _grades(table, _fov("a")) == {"er": 3, "golgi": 3}
    assert _grades(table, _fov("b")) == {}
    assert table.match(_fov("c")) is None


@pytest.mark.parametrize("prefix", ["", "annotations_"])
def test_grade_columns_give_their_grades(tmp_path: Path, prefix: str) -> None:
    text = f"fov,{prefix}grade_3,{prefix}grade_1\na,er,golgi;vesicles\n"
    table = labels.read(_file(tmp_path, text))
    assert _grades(table, _fov("a")) == {"er": 3, "golgi": 1, "vesicles": 1}


def test_a_label_under_two_grades_has_the_higher_one(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,grade_1,grade_3\na,er,er\n"))
    assert _grades(table, _fov("a")) == {"er": 3}


def test_further_columns_are_coords(tmp_path: Path) -> None:
    text = "fov,path,channel,label,donor,plate\na,a.tif,x,er,d1,7\n"
    table = labels.read(_file(tmp_path, text))
    row = table.match(_fov("a"))
    assert table.coords == ("donor", "plate")
    assert row is not None
    assert row.values == {"donor": "d1", "plate": "7"}


def test_a_path_matches_whole_relative_to_the_table_or_by_its_tail(tmp_path: Path) -> None:
    rows = f"{tmp_path}/raw/whole.tif,er\nraw/beside.tif,golgi\nplate1/tail.tif,vesicles\n"
    table = labels.read(_file(tmp_path, f"path,label\n{rows}./base.tif,er\n"))
    assert _grades(table, _fov("1", f"{tmp_path}/raw/whole.tif")) == {"er": 3}
    assert _grades(table, _fov("2", f"{tmp_path}/raw/beside.tif")) == {"golgi": 3}
    assert _grades(table, _fov("3", "/elsewhere/plate1/tail.tif")) == {"vesicles": 3}
    assert _grades(table, _fov("4", "s3://bucket/plate1/tail.tif")) == {"vesicles": 3}
    remote = labels.read(_file(tmp_path, "path,label\ns3://bucket/a.tif,er\n", "remote.csv"))
    assert _grades(remote, _fov("4", "s3://bucket/a.tif")) == {"er": 3}
    assert _grades(table, _fov("5", "/elsewhere/base.tif")) == {"er": 3}
    assert table.match(_fov("6", "/elsewhere/plate2/tail.tif")) is None
    assert table.match(_fov("7", "/elsewhere/xbase.tif")) is None


def test_the_longest_path_wins(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "path,label\na.tif,er\nplate1/a.tif,golgi\n"))
    assert _grades(table, _fov("a", "/data/plate1/a.tif")) == {"golgi": 3}
    assert _grades(table, _fov("a", "/data/plate2/a.tif")) == {"er": 3}


def test_any_channel_file_of_a_field_may_carry_its_labels(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "path,label\na_gfp.tif,er\n"))
    assert _grades(table, _fov("a", "/data/a_dapi.tif", "/data/a_gfp.tif")) == {"er": 3}


def test_repeated_rows_pass_and_contradicting_ones_are_named(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,label\na,er;golgi\na,golgi;er\n"))
    assert _grades(table, _fov("a")) == {"er": 3, "golgi": 3}
    with pytest.raises(SourceError, match=r"lines 2 and 4 contradict one another on fov 'a'"):
        labels.read(_file(tmp_path, "fov,label\na,er\nb,er\na,golgi\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field,label\na,er\n", "column 'fov' or 'path' is missing; it has field, label"),
        ("fov,donor\na,d1\n", "column 'label' is missing; it has fov, donor"),
        ("fov,label,grade_2\na,er,er\n", "has label and grade_2; give labels one way"),
        ("fov,label\n,er\n", "line 2 has no fov"),
    ],
)
def test_a_bad_table_is_refused_by_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        labels.read(_file(tmp_path, text))
