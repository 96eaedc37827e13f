"""What tables say of fields of view: labels, conditions and other facts, matched by name."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import label_names, platemap, tables
from zarrloc.images.column_names import IDENTITIES, usual
from zarrloc.images.fields import FovSource
from zarrloc.images.label_keys import cell_line_key, fov_keys, path_keys, row_paths, well_key
from zarrloc.images.label_table import LabelTable, Row
from zarrloc.images.tables import Table

EMPTY_WORDS = {"nan", "na", "n/a", "#n/a", "none", "null", "-"}
"""What programs write for an empty cell."""


def read(
    labels: str | Path, cell_lines: str | Path | None = None, names: str | Path | None = None
) -> LabelTable:
    """Read whichever kind of label table this is; `names` says what its labels are called.

    Raises ConfigError where it is OpenCell's and `cell_lines` is absent or the other way round;
    SourceError as `read_opencell`, `read_table` and `label_names.read` do.
    """
    called = None if names is None else label_names.read(names)
    table = label_names.applied(usual(tables.read(labels)), called)
    if "fov" in table.columns or "path" in table.columns:
        if cell_lines is not None:
            raise ConfigError(f"{labels}: is not OpenCell's table; leave --cell-lines out")
        return _anyones(table)
    if cell_lines is not None:
        return _opencell(table, cell_lines)
    if "target_name" in table.columns:
        raise ConfigError(
            f"{labels}: OpenCell's annotations join to images by cell line; pass --cell-lines with "
            "its all-public-targets.csv"
        )
    return _anyones(table)


def read_all(
    labels: str | Path | None,
    cell_lines: str | Path | None = None,
    conditions: str | Path | None = None,
    names: str | Path | None = None,
) -> list[LabelTable]:
    """The tables that are given, in the order in which they are applied."""
    if labels is None and cell_lines is not None:
        raise ConfigError(f"{cell_lines}: joins OpenCell's labels to images; give --labels, too")
    if labels is None and names is not None:
        raise ConfigError(f"{names}: says what labels are called; give --labels, too")
    found = [] if labels is None else [read(labels, cell_lines, names)]
    return found if conditions is None else [*found, read_conditions(conditions)]


def read_conditions(path: str | Path) -> LabelTable:
    """Read what was done to fields: a table by well, field or protein, or a map of a plate.

    Every column that names no field becomes a coordinate, such as `condition` or `dose`. A plate
    map has the numbers of columns in its first line and the letters of rows in its first column;
    its corner says what it holds, by default `condition`; several maps may follow one another.
    Raises SourceError on rows that contradict one another, and where it says nothing of a field.
    """
    lines = tables.read_lines(path)
    table = platemap.table_of(lines) or usual(tables.table_of(lines), labelled=False)
    known = [name for name in table.columns if name in tables.LABEL_COLUMNS]
    if known:
        raise SourceError(
            f"{table.path}: column {known[0]!r} says labels; give it as --labels, where further "
            "columns become coordinates just so"
        )
    found = _anyones(table, labelled=False)
    if not found.coords:
        raise SourceError(
            f"{table.path}: says nothing of the fields beside their {found.column}; it has "
            f"{', '.join(table.columns)}"
        )
    return found


def read_opencell(annotations_csv: str | Path, cell_lines_csv: str | Path) -> LabelTable:
    """Join OpenCell's annotations to file names: CID -> `cell_line_id` -> `target_name`.

    Joining on ENSG or gene name instead is wrong for 36 and 13 of the 1,310 proteins. Raises
    SourceError on a missing column and on rows that contradict one another.
    """
    return _opencell(tables.read(annotations_csv), cell_lines_csv)


def read_table(path: str | Path) -> LabelTable:
    """Read anyone's labels: a row a field or a row a label, in CSV, TSV or Excel.

    Rows are named by `fov`, by `path`, by `well` (with `plate` and `site` where it has them), or by
    `protein`, `ensg` or `cell_line`. A path is absolute, relative to the table, or the tail of the
    image's path, at least its base name; a lone `Id` is a `fov`. Labels stand in `label` (`Target`,
    `labels`), several separated by `;`, numbers also by spaces or bars (all grade 3, or as a column
    `grade` says), or in `grade_3`, `grade_2`, `grade_1` (any of these, also
    with the prefix `annotations_`). Any further column becomes a coord. Raises SourceError on a
    missing column and on rows that contradict one another.
    """
    return _anyones(label_names.applied(usual(tables.read(path)), None))


# --- the ways a table can be read ---------------------------------------------------------------


def _opencell(annotations: Table, cell_lines_csv: str | Path) -> LabelTable:
    annotations.require("target_name", *(f"annotations_grade_{grade}" for grade in (3, 2, 1)))
    cell_lines = tables.read(cell_lines_csv)
    cell_lines.require("cell_line_id", "target_name")
    target_of: dict[str, tuple[int, str]] = {}
    for row in cell_lines.rows:
        name, target = _named(cell_lines, row, "cell_line_id"), row.cells["target_name"]
        line, before = target_of.setdefault(cell_line_key(name), (row.line, target))
        if before != target:
            raise _contradiction(cell_lines, (line, row.line), "cell_line_id", name)
    lines_of: dict[str, list[str]] = {}
    for cell_line, (_, target) in target_of.items():
        lines_of.setdefault(target, []).append(cell_line)
    return _made(
        annotations,
        {"target_name", "ensg_id"},
        "target_name",
        lambda cells: lines_of.get(cells["target_name"], []),
        lambda source: (cell_line_key(source.coords.get("cell_line", "")),),
    )


def _anyones(table: Table, labelled: bool = True) -> LabelTable:
    column, keys_of, keys = _join(table)
    # A table by field may set its wells; a table by well may not spell them in another way.
    named_by = {"plate", "well", "site"} if column == "well" else {column}
    known = {"fov", "path", "channel", *named_by}
    return _made(table, known, column, keys_of, keys, labelled)


Keys = Callable[[dict[str, str]], Iterable[str]]


def _join(table: Table) -> tuple[str, Keys, Callable[[FovSource], Iterable[str]]]:
    """What a table's rows are named by: the column, a row's keys and a field's."""
    if "fov" in table.columns:
        return "fov", lambda cells: (cells["fov"],), fov_keys
    if "path" in table.columns:
        folder = os.path.abspath(table.path.parent)
        return "path", lambda cells: row_paths(cells["path"], folder), path_keys
    if "well" in table.columns:
        beside = [name for name in ("plate", "site") if name in table.columns]
        return (
            "well",
            lambda cells: well_key(cells, beside),
            lambda source: well_key(source.coords, beside),
        )
    if named := [name for name in IDENTITIES if name in table.columns]:
        return (
            named[0],
            lambda cells: (cells[named[0]],),
            lambda source: filter(None, (source.coords.get(named[0], ""),)),
        )
    raise SourceError(
        f"{table.path}: column 'fov' or 'path' is missing; it has {', '.join(table.columns)}; rows "
        "can be named by well (with plate), protein, ensg or cell_line, too"
    )


def _made(
    table: Table,
    known: set[str],
    column: str,
    keys_of: Keys,
    keys: Callable[[FovSource], Iterable[str]],
    labelled: bool = True,
) -> LabelTable:
    given = [name for name in table.columns if name in tables.LABEL_COLUMNS]
    if labelled and not given:
        table.require("label")
    if "label" in given and len(given) > 1:
        raise SourceError(f"{table.path}: has {' and '.join(given)}; give labels one way")
    # One row a label, as databases write it: rows of one field are taken together.
    tidy = given == ["label"] and column != "target_name"
    graded = tidy and "grade" in table.columns
    coords = table.coords({*known, *tables.LABEL_COLUMNS, *["grade"] * graded})
    found, varying = _by_key(
        table, column, keys_of, lambda row: _grades(table, row, given, graded), coords, tidy
    )
    coords = tuple(name for name in coords if name not in varying)
    labels = tuple(sorted({label for one in found.values() for label in one.grades}))
    rows = {
        key: Row(
            np.array([one.grades.get(label, 0) for label in labels], np.uint8),
            {name: one.values[name] for name in coords},
            frozenset(one.lines),
        )
        for key, one in found.items()
    }
    named_by = [column]
    if column == "well":
        named_by += [name for name in ("plate", "site") if name in table.columns]
    names = {row.line: " ".join(row.cells[name] for name in named_by) for row in table.rows}
    notes = [*table.notes, *_doubts(table, labels)]
    merged = len({id(one) for one in found.values() if one.merged})
    if merged:
        notes.append(
            f"{table.path.name}: {merged} fields have several rows; their labels are taken together"
        )
    notes += [
        f"{table.path.name}: column {name!r} differs between rows of one field ({example}) and so "
        "becomes no coordinate"
        for name, example in varying.items()
    ]
    return LabelTable(
        table.path, labels, coords, rows, keys, ", ".join(named_by), names, tuple(notes), labelled
    )


def _grades(table: Table, row: tables.Row, given: Sequence[str], graded: bool) -> dict[str, int]:
    """The labels of one row, and how prominent each is."""
    grade: dict[str, int] = {}
    for name in given:
        height = tables.LABEL_COLUMNS[name]
        if graded and (text := row.cells["grade"]):
            if text not in ("0", "1", "2", "3"):
                raise SourceError(
                    f"{table.path}: line {row.line} has grade {text!r}; expected 1, 2 or 3, or 0 "
                    "for a label that is not there"
                )
            height = int(text)
        for label in filter(None, map(str.strip, row.cells[name].split(";"))):
            grade[label] = max(height, grade.get(label, 0))
    return {label: height for label, height in grade.items() if height}


@dataclass
class _Said:
    """What the rows under one key say, and in which lines."""

    grades: dict[str, int]
    values: dict[str, str]
    lines: list[int]
    merged: bool = False


def _by_key(
    table: Table,
    column: str,
    keys_of: Keys,
    graded: Callable[[tables.Row], dict[str, int]],
    coords: Sequence[str],
    tidy: bool,
) -> tuple[dict[str, _Said], dict[str, str]]:
    """What is said under each key, and columns that are no facts of a field, with an example.

    No two rows may contradict one another.
    """
    found: dict[str, _Said] = {}
    varying: dict[str, str] = {}
    for row in table.rows:
        cell = _named(table, row, column)
        grades, values = graded(row), {name: row.cells[name] for name in coords}
        said = _Said(grades, values, [row.line])
        for key in keys_of(row.cells):
            before = found.setdefault(key, said)
            if before is said:
                continue
            differ = any(
                before.grades[label] != grades[label] for label in before.grades.keys() & grades
            )
            others = [name for name in coords if before.values[name] != values[name]]
            further = tidy and before.grades != grades and not tables.KNOWN.intersection(others)
            if differ or not (further or (before.grades == grades and not others)):
                raise _contradiction(table, (before.lines[0], row.line), column, cell)
            for name in others:
                pair = f"{cell!r} has {before.values[name]!r} and {values[name]!r}"
                varying.setdefault(name, pair)
            before.merged |= before.grades != grades
            before.grades |= grades
            before.lines.append(row.line)
    return found, varying


def _named(table: Table, row: tables.Row, column: str) -> str:
    if not row.cells[column]:
        raise SourceError(f"{table.path}: line {row.line} has no {column}")
    return row.cells[column]


def _contradiction(table: Table, lines: tuple[int, int], column: str, cell: str) -> SourceError:
    return SourceError(
        f"{table.path}: lines {lines[0]} and {lines[1]} contradict one another on "
        f"{column} {cell!r}; keep one"
    )


def _doubts(table: Table, labels: Sequence[str]) -> list[str]:
    """Labels that may not be meant."""
    spelled: dict[str, list[str]] = {}
    for label in labels:
        spelled.setdefault(" ".join(label.casefold().split()), []).append(label)
    alike = [group for group in spelled.values() if len(group) > 1]
    where = table.path.name
    notes = [
        f"{where}: labels that differ only in case or spaces count as different: "
        f"{', '.join(map(repr, group))}"
        for group in alike
    ]
    notes += [
        f"{where}: {label!r} counts as a label; where it stands for none, leave the cell empty"
        for label in labels
        if label.casefold() in EMPTY_WORDS
    ]
    notes += [
        f"{where}: {label!r} counts as one label; several are separated by ;"
        for label in labels
        if "," in label or "|" in label
    ]
    return notes
