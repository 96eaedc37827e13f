import dataclasses
from pathlib import Path

import numpy as np
import pytest

from zarrloc.images import catalog
from zarrloc.images.catalog import EMPTY, Catalog, commonest, merge
from zarrloc.images.fields import FovSource, told_apart
from zarrloc.images.label_table import LabelTable, Row


def _source(fov: str, path: str = "", **coords: str) -> FovSource:
    return FovSource(fov, (path or f"/data/{fov}.tif",), 1, "image", coords)


def _stored(rows: Catalog) -> Catalog:
    """As read back from a store: without the present sources."""
    return dataclasses.replace(rows, sources=())


def _table(labels: str, **grades: list[int]) -> LabelTable:
    rows = {
        fov: Row(np.array(row, np.uint8), {"batch": f"b{fov}"}, frozenset({line}))
        for line, (fov, row) in enumerate(grades.items())
    }
    return LabelTable(
        Path("t.csv"), tuple(labels.split()), ("batch",), rows,
        lambda source: (source.fov,), "fov", dict(enumerate(grades)),
    )  # fmt: skip


def test_rows_keep_their_place_and_new_ones_come_after() -> None:
    first = merge(EMPTY, [_source("b"), _source("d")])
    grown = merge(_stored(first), [_source("a"), _source("b"), _source("c"), _source("d")])
    assert grown.fov == ("b", "d", "a", "c")
    assert [one.fov if one else None for one in grown.sources] == ["b", "d", "a", "c"]
    assert len(grown) == 4


def test_a_row_whose_file_is_gone_stays_without_a_source() -> None:
    first = merge(EMPTY, [_source("a", protein="P"), _source("b")])
    less = merge(_stored(first), [_source("b")])
    assert less.fov == ("a", "b")
    assert less.sources[0] is None
    assert less.source[0] == "/data/a.tif"
    assert less.coords["protein"] == ("P", "")


def test_files_may_move_but_not_change_their_names() -> None:
    first = merge(EMPTY, [_source("a", "/old/a.tif")])
    moved = merge(_stored(first), [_source("a", "/new/a.tif")])
    assert moved.source == ("/new/a.tif",)
    renamed = merge(_stored(first), [_source("a", "/old/a2.tif")])
    assert renamed.fov == ("a", "a")
    assert renamed.sources[0] is None


def test_a_file_of_the_same_name_elsewhere_is_another_field_if_it_is_another_file() -> None:
    first = merge(EMPTY, [_source("A01", "/p1/A01.tif")])
    grown = merge(_stored(first), [_source("A01", "/p2/A01.tif")], lambda row, one: False)
    assert grown.fov == ("A01", "p2/A01")
    assert grown.source == ("/p1/A01.tif", "/p2/A01.tif")
    again = merge(_stored(grown), [_source("A01", "/p2/A01.tif")], lambda row, one: False)
    assert again.fov == ("A01", "p2/A01")


def test_a_row_keeps_its_name_when_another_file_takes_it_later() -> None:
    first = merge(EMPTY, [_source("A01", "/p1/A01.tif")])
    both = told_apart([_source("A01", "/p1/A01.tif"), _source("A01", "/p2/A01.tif")])
    grown = merge(_stored(first), both)
    assert grown.fov == ("A01", "p2/A01")
    assert merge(_stored(grown), both).fov == ("A01", "p2/A01")


def test_twins_keep_apart_in_their_order() -> None:
    twins = [_source("a", "/x/a.tif"), _source("a", "/y/a.tif")]
    first = merge(EMPTY, twins)
    again = merge(_stored(first), twins)
    assert again.source == ("/x/a.tif", "/y/a.tif")


def test_new_coords_are_empty_where_nothing_is_known() -> None:
    first = merge(EMPTY, [_source("a", donor="d1")])
    grown = merge(_stored(first), [_source("a"), _source("b", plate="p")])
    assert grown.coords["donor"] == ("d1", "")
    assert grown.coords["plate"] == ("", "p")
    assert set(catalog.IDENTITY_COORDS) <= set(grown.coords)


def test_labels_of_a_table_and_of_rows_it_cannot_know() -> None:
    rows = merge(EMPTY, [_source("a"), _source("b"), _source("c")])
    rows, notes = catalog.label(rows, _table("er golgi", a=[3, 0], b=[0, 1]))
    assert notes == ["labels: 2 of 3 FOVs matched; without: c"]
    assert rows.labels == ("er", "golgi")
    np.testing.assert_array_equal(rows.grades, [[3, 0], [0, 1], [0, 0]])
    assert rows.coords["batch"] == ("ba", "bb", "")
    # b's file is gone: it keeps what was said of it, though the vocabulary is another now.
    later = merge(_stored(rows), [_source("a"), _source("d")])
    later, notes = catalog.label(later, _table("vesicles", a=[2], b=[2], e=[3]))
    assert notes == [
        "labels: 1 of 2 FOVs matched; without: d",
        "t.csv: 1 of 3 rows match no field: fov 'e'",  # b's row speaks of a field of the store
    ]
    assert later.labels == ("golgi", "vesicles")
    np.testing.assert_array_equal(later.grades, [[0, 2], [1, 0], [0, 0], [0, 0]])
    assert later.grades.dtype == np.uint8


def test_grown_rows_have_no_grade_until_labelled() -> None:
    rows, _ = catalog.label(merge(EMPTY, [_source("a")]), _table("er", a=[3]))
    grown = merge(_stored(rows), [_source("a"), _source("b")])
    assert grown.labels == ("er",)
    np.testing.assert_array_equal(grown.grades, [[3], [0]])


@pytest.mark.parametrize(
    ("values", "most"),
    [([1, 2, 2], 2), ([(600, 600), (512, 512)], (600, 600)), ({"a": "x", "b": "x", "c": "y"}, "x")],
)
def test_the_commonest_value_and_of_equals_the_largest(values: object, most: object) -> None:
    assert commonest(values) == most  # type: ignore[arg-type]
