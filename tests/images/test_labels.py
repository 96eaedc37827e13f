from pathlib import Path

import numpy as np
import pytest

from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import labels
from zarrloc.images.fields import FovSource

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
    for text in ("fov,label,donor\na,er,d1\nb,er,d1\na,er,d2\n",
                 "fov,label,plate\na,er,1\nb,er,1\na,golgi,2\n",
                 "fov,label,grade\na,er,3\nb,er,1\na,er,1\n",
                 "fov,grade_3\na,er\nb,er\na,golgi\n"):  # fmt: skip
        with pytest.raises(SourceError, match=r"lines 2 and 4 contradict one another on fov 'a'"):
            labels.read(_file(tmp_path, text))


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


def test_one_row_a_label(tmp_path: Path) -> None:
    text = "id,fov,label,grade\n1,a,er,3\n2,a,golgi,1\n3,b,er,2\n4,b,golgi,0\n5,a,er,3\n"
    table = labels.read(_file(tmp_path, text))
    assert _grades(table, _fov("a")) == {"er": 3, "golgi": 1}
    assert _grades(table, _fov("b")) == {"er": 2}
    assert table.coords == ()
    assert table.notes == (
        "labels.csv: 2 fields have several rows; their labels are taken together",
        "labels.csv: column 'id' differs between rows of one field ('a' has '1' and '2') and so "
        "becomes no coordinate",
    )
    with pytest.raises(SourceError, match="line 2 has grade 'high'; expected 1, 2 or 3"):
        labels.read(_file(tmp_path, "fov,label,grade\na,er,high\n"))


def test_labels_that_may_not_be_meant_are_pointed_out(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,label\na,ER;golgi\nb,er\nc,nan\n"))
    assert table.labels == ("ER", "er", "golgi", "nan")
    assert any("differ only in case or spaces" in n and "'ER', 'er'" in n for n in table.notes)
    assert any("'nan' counts as a label" in note for note in table.notes)
    table = labels.read(_file(tmp_path, "fov\tlabel\na\ter, golgi\n"))
    assert any("'er, golgi' counts as one label" in note for note in table.notes)


def test_windows_separators_are_understood(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "path,label\nplate1\\a.tif,er\n"))
    assert _grades(table, _fov("1", "/data/plate1/a.tif")) == {"er": 3}
    assert table.match(_fov("2", "/data/plate2/a.tif")) is None


def test_rows_may_be_named_by_well_or_protein(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "Plate,Well,Site,label\np1,a1,1,er\np2,A01,1,golgi\n"))
    assert _grades(table, _fov("x", plate="p1", well="A01", site="01")) == {"er": 3}
    assert _grades(table, _fov("x", plate="p2", well="A01", site="1")) == {"golgi": 3}
    assert table.match(_fov("x", plate="p1", well="A01", site="2")) is None
    assert table.coords == ()  # wells stay as the fields spell them
    table = labels.read(_file(tmp_path, "protein,label\nTP53,nucleoplasm\n"))
    assert _grades(table, _fov("x", protein="TP53")) == {"nucleoplasm": 3}
    assert table.match(_fov("x")) is None


@pytest.mark.parametrize(
    ("text", "pair", "why"),
    [
        ("fov,label\n7,er\n1.0,er\n", "fov '1.0', the fields have '001'", "spreadsheet"),
        ("fov,label\n1,er\n", "fov '1', the fields have '001'", "spreadsheet"),
        ("fov,label\n1.00E+05,er\n", "fov '1.00E+05', the fields have '100000'", "spreadsheet"),
        ("fov,label\nx.png,er\n", "fov 'x.png', the fields have 'X'", "file's extension"),
        ("fov,label\nx,er\n", "fov 'x', the fields have 'X'", "upper and lower case"),
        (
            "path,label\nC:\\scans\\001.tif,er\n",
            r"path 'C:\scans\001.tif', the fields have '/data/001.tif'",
            "not in its folders",
        ),
        ("path,label\n001.png,er\n", "path '001.png', the fields have '/data/001.tif'", "ext"),
        ("fov,label\nother,er\n", "fov 'other', the fields have '001'; nothing was read", ""),
        ("well,label\nA1,er\n", "its rows are named by well, which no field has", "by"),
    ],
)
def test_a_table_that_matches_nothing_is_refused_with_a_key_of_each_side(
    tmp_path: Path, text: str, pair: str, why: str
) -> None:
    table = labels.read(_file(tmp_path, text))
    found = [_fov(name, f"/data/{name}.tif") for name in ("001", "100000", "X")]
    with pytest.raises(SourceError, match=r"none of its \d rows matches any of 3 fields") as caught:
        table.need_match(found)
    assert pair in str(caught.value)
    assert why in str(caught.value)


def test_what_matched_and_what_did_not_is_counted(tmp_path: Path) -> None:
    rows = "".join(f"x{i},er\n" for i in range(7))
    table = labels.read(_file(tmp_path, f"fov,label\na,er\nb,golgi\n{rows}"))
    table.need_match([_fov("a"), _fov("c")])
    assert table.account([_fov("a"), _fov("c")], [_fov("b")]) == [
        "labels: 1 of 2 FOVs matched; without: c",
        "labels.csv: 7 of 9 rows match no field: fov 'x0', fov 'x1', fov 'x2', fov 'x3', fov 'x4', "
        "...",
    ]


def test_conditions_by_well_and_plate(tmp_path: Path) -> None:
    text = "Plate\tWell\tCondition\tdose\np1\tA1\tDMSO\t0\np2\tA01\ttaxol\t1\n"
    table = labels.read_conditions(_file(tmp_path, text))
    assert (table.labelled, table.labels, table.coords) == (False, (), ("condition", "dose"))
    row = table.match(_fov("x", plate="p2", well="A01"))
    assert row is not None
    assert row.values == {"condition": "taxol", "dose": "1"}
    assert table.match(_fov("x", plate="p3", well="A01")) is None
    with pytest.raises(SourceError, match="it has well, plate 'A1 p1', the fields have 'A01 p3'"):
        table.need_match([_fov("x", plate="p3", well="A01")])


def test_wells_without_their_plate_are_taken_for_every_plate_and_that_is_said(
    tmp_path: Path,
) -> None:
    table = labels.read_conditions(_file(tmp_path, "well,condition\nA01,DMSO\n"))
    found = [_fov(plate, plate=plate, well="A01") for plate in ("p1", "p2")]
    assert any("each of 2 plates (p1, p2)" in note for note in table.account(found))
    assert table.account(found[:1]) == ["conditions: all 1 FOVs matched"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("well,label\nA01,er\n", "column 'label' says labels; give it as --labels"),
        ("well,plate\nA01,p1\n", "says nothing of the fields beside their well, plate"),
        ("dose,drug\n1,x\n", "column 'fov' or 'path' is missing"),
        ("well,condition\nA1,x\nA01,y\n", "lines 2 and 3 contradict one another on well 'A01'"),
    ],
)
def test_a_table_that_is_none_of_conditions_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        labels.read_conditions(_file(tmp_path, text))


def test_a_kaggle_table_of_numbers_is_read_as_it_lies(tmp_path: Path) -> None:
    eighteen = _file(tmp_path, "Id,Target\nb-1,16 0\nb-2,5\n", "train.csv")
    table = labels.read(eighteen)
    assert _grades(table, _fov("b-1")) == {"0": 3, "16": 3}
    assert any("takes 'Id' for fov and 'Target' for label" in note for note in table.notes)
    assert any("--label-names says what they stand for" in note for note in table.notes)
    named = labels.read(eighteen, None, "hpa-2018")
    assert _grades(named, _fov("b-1")) == {"Nucleoplasm": 3, "Cytokinetic bridge": 3}
    assert not any("label-names" in note for note in named.notes)
    one = _file(tmp_path, "ID,Label\nb-1,14|0\nb-2,18\n", "train21.csv")
    table = labels.read(one, None, "hpa-2021")
    assert _grades(table, _fov("b-1")) == {"Nucleoplasm": 3, "Mitochondria": 3}
    assert _grades(table, _fov("b-2")) == {"Negative": 3}


def test_labels_may_be_named_by_a_table_of_one_s_own(tmp_path: Path) -> None:
    mine = _file(tmp_path, "fov,label\na,1;2\nb,2\nc,\n")
    names = _file(tmp_path, "Label,Name,Colour\n1,er,red\n2,golgi,blue\n", "names.csv")
    table = labels.read(mine, None, names)
    assert table.labels == ("er", "golgi")
    assert _grades(table, _fov("a")) == {"er": 3, "golgi": 3}
    words = _file(tmp_path, "fov,label\na,E1\n", "words.csv")
    assert labels.read(words, None, _file(tmp_path, "label,name\nE1,er\n", "n2.csv")).labels == (
        "er",
    )
    with pytest.raises(SourceError, match=r"line 2 has the label 'E1'.*they have 1, 2, ... \(2\)"):
        labels.read(words, None, names)
    with pytest.raises(SourceError, match="expected hpa-2018 or hpa-2021"):
        labels.read(words, None, "hpa")
    twice = _file(tmp_path, "label,name\n1,er\n1,golgi\n", "twice.csv")
    with pytest.raises(SourceError, match="line 3 calls label '1' 'golgi', an earlier line 'er'"):
        labels.read(mine, None, twice)
    with pytest.raises(ConfigError, match="give --labels, too"):
        labels.read_all(None, None, None, "hpa-2018")


def test_words_and_years_are_not_taken_for_several_numbers(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,label\na,phase 2\nb,2020 1\n"))
    assert table.labels == ("2020 1", "phase 2")


def test_a_field_may_be_called_as_its_files_begin(tmp_path: Path) -> None:
    table = labels.read(_file(tmp_path, "fov,label\n17_B02_1,er\n"))
    field = _fov("17_B02_s1", "/d/17_B02_1_blue.tif", "/d/17_B02_1_green.tif")
    assert _grades(table, field) == {"er": 3}
    assert table.match(_fov("17_B02_s2", "/d/17_B02_2_blue.tif", "/d/17_B02_2_green.tif")) is None


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Well ID,drug\nA1,x\n", "takes 'Well ID' for well"),
        ("Metadata_Plate;Metadata_Well;drug\nP1;A01;x\n", "'Metadata_Plate' for plate"),
        ("Row,Col,drug\n1,1,x\n", "takes 'Row' and 'Col' for well"),
        ("row\tcolumn\tdrug\na\t1\tx\n", "takes 'row' and 'column' for well"),
        ("File Name,drug\nA01_s1.tif,x\n", "takes 'File Name' for path"),
        ("# my plate\nwell,drug\nA-1,x\n", "line 1 ('# my plate') is taken for a title"),
        ("well,drug\na1,x,,\n", None),
        ("well;drug\nA1;x\nB1;0,5\n", None),
        ("drug,1,3\na,x,\n", None),
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, text: str, note: str | None) -> None:
    table = labels.read_conditions(_file(tmp_path, text))
    row = table.match(_fov("f", "/d/A01_s1.tif", plate="P1", well="A01"))
    assert row is not None
    assert row.values == {"drug": "x"}
    assert note is None or any(note in told for told in table.notes)


def test_plates_that_are_spelled_otherwise_are_said(tmp_path: Path) -> None:
    table = labels.read_conditions(_file(tmp_path, "plate,well,drug\nPlate1,A1,x\n"))
    with pytest.raises(SourceError, match="the wells agree, their plates or sites do not"):
        table.need_match([_fov("f", plate="P1", well="A01")])
    rows = labels.read_conditions(_file(tmp_path, "row,column,well,drug\n1,1,B2,x\n"))
    assert rows.match(_fov("f", well="B02")) is not None
