"""Who localizes where: OpenCell's annotation tables, or anyone's CSV, matched to fields of view."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import csv_table, files
from zarrloc.images.find import FovSource

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """Labels of one field: `grades` `(label,)` uint8 0..3, and the coords' `values` by name."""

    grades: npt.NDArray[np.uint8]
    values: dict[str, str]


@dataclass(frozen=True)
class LabelTable:
    """A vocabulary, the names of further coords, and what is said under each key of a field."""

    labels: tuple[str, ...]
    coords: tuple[str, ...]
    rows: dict[str, Row]
    keys: Callable[[FovSource], Iterable[str]]

    def match(self, source: FovSource) -> Row | None:
        """The row that speaks of this field of view, or None."""
        return next((self.rows[key] for key in self.keys(source) if key in self.rows), None)


def read(labels: str | Path, cell_lines: str | Path | None = None) -> LabelTable:
    """Read whichever kind of label table this is.

    Raises ConfigError where it is OpenCell's and `cell_lines` is absent or the other way round;
    SourceError as `read_opencell` and `read_table` do.
    """
    columns = csv_table.read_csv(labels).columns
    if "fov" in columns or "path" in columns:
        if cell_lines is not None:
            raise ConfigError(f"{labels}: is not OpenCell's table; leave --cell-lines out")
        return read_table(labels)
    if cell_lines is not None:
        return read_opencell(labels, cell_lines)
    if "target_name" in columns:
        raise ConfigError(
            f"{labels}: OpenCell's annotations join to images by cell line; pass --cell-lines with "
            "its all-public-targets.csv"
        )
    return read_table(labels)


def read_opencell(annotations_csv: str | Path, cell_lines_csv: str | Path) -> LabelTable:
    """Join OpenCell's annotations to file names: CID -> `cell_line_id` -> `target_name`.

    Joining on ENSG or gene name instead is wrong for 36 and 13 of the 1,310 proteins. Raises
    SourceError on a missing column and on rows that contradict one another.
    """
    annotations = csv_table.read_csv(annotations_csv)
    annotations.require("target_name", *(f"annotations_grade_{grade}" for grade in (3, 2, 1)))
    cell_lines = csv_table.read_csv(cell_lines_csv)
    cell_lines.require("cell_line_id", "target_name")
    by_target = _graded(annotations, {"target_name", "ensg_id"}, "target_name", lambda name: [name])
    target_of = _by_key(
        cell_lines, "cell_line_id", lambda name: [_cell_line(name)], lambda row: row["target_name"]
    )
    rows = {
        cell_line: by_target.rows[target]
        for cell_line, target in target_of.items()
        if target in by_target.rows
    }
    return LabelTable(by_target.labels, by_target.coords, rows, _cell_line_keys)


def read_table(csv: str | Path) -> LabelTable:
    """Read anyone's labels: a column `fov` or `path`, and labels separated by `;`.

    They stand in `label` (all grade 3) or in `grade_3`, `grade_2`, `grade_1` (any of these, also
    with the prefix `annotations_`). A path is absolute, relative to the table, or the tail of the
    image's path, at least its base name. Any further column becomes a coord. Raises SourceError
    on a missing column and on rows that contradict one another.
    """
    table = csv_table.read_csv(csv)
    known = {"fov", "path", "channel"}
    if "fov" not in table.columns and "path" not in table.columns:
        raise SourceError(
            f"{table.path}: column 'fov' or 'path' is missing; it has {', '.join(table.columns)}"
        )
    if "fov" not in table.columns:
        folder = os.path.abspath(table.path.parent)

        def keys_of(path: str) -> tuple[str, ...]:
            if files.is_remote(path):
                return (path,)
            return os.path.normpath(path), os.path.normpath(os.path.join(folder, path))

        return dataclasses.replace(_graded(table, known, "path", keys_of), keys=_path_keys)
    return _graded(table, known, "fov", lambda fov: [fov])


def _graded(
    table: csv_table.Table, known: set[str], column: str, keys_of: Callable[[str], Iterable[str]]
) -> LabelTable:
    given = [name for name in table.columns if name in csv_table.LABEL_COLUMNS]
    if not given:
        table.require("label")
    if "label" in given and len(given) > 1:
        raise SourceError(f"{table.path}: has {' and '.join(given)}; give labels one way")
    coords = table.coords(known.union(csv_table.LABEL_COLUMNS))

    def said(cells: dict[str, str]) -> tuple[dict[str, int], dict[str, str]]:
        grades: dict[str, int] = {}
        for name in given:
            for label in filter(None, map(str.strip, cells[name].split(";"))):
                grades[label] = max(csv_table.LABEL_COLUMNS[name], grades.get(label, 0))
        return grades, {name: cells[name] for name in coords}

    found = _by_key(table, column, keys_of, said)
    labels = tuple(sorted({label for grades, _ in found.values() for label in grades}))
    rows = {
        key: Row(np.array([grades.get(label, 0) for label in labels], np.uint8), values)
        for key, (grades, values) in found.items()
    }
    return LabelTable(labels, coords, rows, _fov_keys)


def _by_key(
    table: csv_table.Table,
    column: str,
    keys_of: Callable[[str], Iterable[str]],
    said: Callable[[dict[str, str]], T],
) -> dict[str, T]:
    """What each row says, by the keys of its cell in `column`; no two may contradict."""
    found: dict[str, tuple[int, T]] = {}
    for row in table.rows:
        cell = row.cells[column]
        if not cell:
            raise SourceError(f"{table.path}: line {row.line} has no {column}")
        saying = said(row.cells)
        for key in keys_of(cell):
            line, before = found.setdefault(key, (row.line, saying))
            if before != saying:
                raise SourceError(
                    f"{table.path}: lines {line} and {row.line} contradict one another on "
                    f"{column} {cell!r}; keep one"
                )
    return {key: saying for key, (_, saying) in found.items()}


def _fov_keys(source: FovSource) -> Iterable[str]:
    return (source.fov,)


def _cell_line_keys(source: FovSource) -> Iterable[str]:
    return (_cell_line(source.coords.get("cell_line", "")),)


def _path_keys(source: FovSource) -> Iterator[str]:
    for path in source.paths:
        full = path if files.is_remote(path) else os.path.abspath(path)
        yield full
        parts = full.split("/")
        yield from ("/".join(parts[start:]) for start in range(1, len(parts)))


def _cell_line(name: str) -> str:
    # `CID001050` in a file name is 1050 in the table.
    return name.removeprefix("CID").lstrip("0")
