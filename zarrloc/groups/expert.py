"""An expert's word on single cells: a CSV brought into `cells/<name>`, all of it or nothing.

The paper's Appendix B asks two things of a cell: is it one whole cell, and does its image's label
hold for it. Cells with two yeses are its Table 4: `expert_seen & expert_whole & expert_confirmed`.
"""

import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.errors import SourceError
from zarrloc.images.csv_table import Row, Table, read_csv
from zarrloc.store.columns import array_of, read_column, revise
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.read import need
from zarrloc.store.template import Variable

COLUMNS = ("sheet", "fov", "mask_label", "y", "x", "field_labels", "whole", "confirmed", "labels")
"""Of an expert's table. A cell is named by `fov` and `mask_label`, or by `fov` and a point `y`, `x`
in pixels; `sheet` and `field_labels` are for the eye."""

TICKS = {"yes": True, "y": True, "1": True, "x": True, "true": True}
TICKS |= {"no": False, "n": False, "0": False, "false": False}

_ARRAYS = {
    "expert_seen": "an expert has judged this cell",
    "expert_whole": "the mask is one whole cell",
    "expert_confirmed": "the image's labels hold for this cell",
    "expert_grade": "grade of each label in this cell: 0 absent, 3 very prominent",
}


@dataclass(frozen=True)
class Cells:
    """What a table is checked against. `mask(fov_index)` is (y, x)."""

    fovs: dict[str, int]
    labels: tuple[str, ...]
    grades: npt.NDArray[np.uint8]
    fov_index: npt.NDArray[np.integer[Any]]
    mask_label: npt.NDArray[np.integer[Any]]
    mask: Callable[[int], npt.NDArray[Any]]


@dataclass(frozen=True)
class Verdict:
    """What was said of cell `row`; `grade` (label,) uint8."""

    row: int
    whole: bool
    confirmed: bool
    grade: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Summary:
    """How many cells an import judged, and how many rows of it were left blank."""

    seen: int
    whole: int
    confirmed: int
    blank: int


class _Problem(Exception):
    """One row that cannot be used."""


def bring_in(store: str | Path | Location, cells: str, csv: str | Path) -> Summary:
    """Write the table `csv` into `cells/<cells>`; cells it does not name keep what they had.

    Raises SourceError naming every row that cannot be used, before anything is written;
    StoreError and LockedError.
    """
    location = Location.of(store)
    path = f"cells/{cells}"
    table = read_csv(csv)
    need(location, path, f"segment --name {cells}")  # or a lock would lie beside a mistyped store
    with hold(location, path, uuid.uuid4().hex):
        known = read_cells(location, cells)
        verdicts, blank = judge(table, known)
        columns = _columns(known, verdicts, _held(location.group(path, mode="r"), known))
        revise(location, path, columns)
    return Summary(
        seen=len(verdicts),
        whole=sum(verdict.whole for verdict in verdicts),
        confirmed=sum(verdict.confirmed for verdict in verdicts),
        blank=blank,
    )


def read_cells(location: Location, cells: str) -> Cells:
    """The cell table of a store, with its fields' names and labels."""
    table = need(location, f"cells/{cells}", f"segment --name {cells}")
    masks = need(location, f"segmentations/{cells}", f"segment --name {cells}")
    fovs = need(location, "fovs", "ingest")

    def read_mask(fov: int) -> npt.NDArray[Any]:
        return np.asarray(array_of(masks, "mask")[fov])

    names = read_column(fovs, "fov").tolist()
    labelled = "grade" in fovs
    return Cells(
        fovs={name: row for row, name in enumerate(names)},
        labels=tuple(read_column(fovs, "label").tolist()) if labelled else (),
        grades=read_column(fovs, "grade") if labelled else np.zeros((len(names), 0), np.uint8),
        fov_index=read_column(table, "fov_index"),
        mask_label=read_column(table, "mask_label"),
        mask=functools.lru_cache(8)(read_mask),
    )


def judge(table: Table, cells: Cells) -> tuple[list[Verdict], int]:
    """The verdicts of a table and how many rows hold none; SourceError lists every bad row."""
    table.require("fov")
    unknown = [column for column in table.columns if column not in COLUMNS]
    if unknown:
        raise SourceError(
            f"{table.path}: unknown column {', '.join(unknown)}; known are {', '.join(COLUMNS)}"
        )
    verdicts: list[Verdict] = []
    problems: list[str] = []
    first_line: dict[int, int] = {}
    for row in table.rows:
        try:
            cell = _find(row, cells)
            if cell in first_line:
                raise _Problem(f"the same cell as line {first_line[cell]}")
            first_line[cell] = row.line
            verdict = _verdict(row, cell, cells)
        except _Problem as problem:
            problems.append(f"line {row.line}: {problem}")
            continue
        if verdict is not None:
            verdicts.append(verdict)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise SourceError(
            f"{table.path}: {len(problems)} of {len(table.rows)} rows cannot be used, so nothing "
            f"was written:{listed}"
        )
    return verdicts, len(table.rows) - len(verdicts)


def _find(row: Row, cells: Cells) -> int:
    """The cell a row speaks of."""
    name = row.cells["fov"]
    if name not in cells.fovs:
        raise _Problem(f"no field {name!r}")
    fov = cells.fovs[name]
    start, stop = np.searchsorted(cells.fov_index, [fov, fov + 1]).tolist()
    text = row.cells.get("mask_label", "")
    point = row.cells.get("y", ""), row.cells.get("x", "")
    if any(point):
        label = _label_at(point, cells.mask(fov))
        if text and text != str(label):
            raise _Problem(f"mask_label is {text}, but the point lies in {label}")
        text = str(label)
    if not text:
        raise _Problem("names no cell: give mask_label, or y and x")
    found = np.flatnonzero(cells.mask_label[start:stop].astype(str) == text)
    if len(found) == 0:
        raise _Problem(f"no cell {text!r} in field {name}, which has {stop - start}")
    return int(start + found[0])


def _label_at(point: tuple[str, str], mask: npt.NDArray[Any]) -> int:
    try:
        y, x = (round(float(value)) for value in point)
    except (ValueError, OverflowError):
        raise _Problem(f"y {point[0]!r}, x {point[1]!r} is not a point in pixels") from None
    inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
    if not inside or mask[y, x] == 0:
        raise _Problem(f"point y {point[0]}, x {point[1]} lies outside every mask")
    return int(mask[y, x])


def _verdict(row: Row, cell: int, cells: Cells) -> Verdict | None:
    """What a row says, or None where it was left blank."""
    names = [name.strip() for name in row.cells.get("labels", "").split(";") if name.strip()]
    ticked = row.cells.get("whole", ""), row.cells.get("confirmed", "")
    if not names and not any(ticked):
        return None
    unknown = [name for name in names if name not in cells.labels]
    if unknown:
        raise _Problem(
            f"unknown label {', '.join(unknown)}; known are {', '.join(cells.labels) or 'none'}"
        )
    # A table without the column is one of whole cells; a column left blank is an open question.
    whole = _tick("whole", ticked[0]) if "whole" in row.cells else True
    given = np.isin(cells.labels, names)
    field = cells.grades[cells.fov_index[cell]]
    if ticked[1] or (whole and not names):  # of a fragment nobody need say what it shows
        confirmed = _tick("confirmed", ticked[1])
    else:
        confirmed = bool(names) and np.array_equal(given, field == 3)
    if names:
        grade = np.where(given, 3, 0).astype(np.uint8)
    else:
        grade = field if confirmed else np.zeros_like(field)
    return Verdict(cell, whole, confirmed, grade)


def _tick(column: str, text: str) -> bool:
    if text.lower() not in TICKS:
        raise _Problem(f"{column} is {text!r}: expected yes or no")
    return TICKS[text.lower()]


def _columns(
    cells: Cells, verdicts: list[Verdict], held: dict[str, npt.NDArray[Any]]
) -> dict[str, tuple[Variable, npt.NDArray[Any]]]:
    """The columns that hold what experts said, the new verdicts over the `held` ones."""
    for verdict in verdicts:
        held["expert_seen"][verdict.row] = True
        held["expert_whole"][verdict.row] = verdict.whole
        held["expert_confirmed"][verdict.row] = verdict.confirmed
        held["expert_grade"][verdict.row] = verdict.grade
    labels = np.array(cells.labels, dtype=np.dtypes.StringDType())
    columns = {"label": (Variable.like(("label",), labels), labels)}
    for name, values in held.items():
        dims = ("cell", "label")[: values.ndim]
        columns[name] = (Variable.like(dims, values, attrs={"long_name": _ARRAYS[name]}), values)
    return columns


def _held(group: zarr.Group, cells: Cells) -> dict[str, npt.NDArray[Any]]:
    """What earlier tables said, in today's vocabulary; nothing where there was none."""
    n = len(cells.mask_label)
    values: dict[str, npt.NDArray[Any]] = {name: np.zeros(n, dtype=bool) for name in _ARRAYS}
    values["expert_grade"] = np.zeros((n, len(cells.labels)), dtype=np.uint8)
    if not all(name in group for name in ("label", *_ARRAYS)):
        return values
    before = read_column(group, "label").tolist()
    grades = read_column(group, "expert_grade")
    for column, label in enumerate(cells.labels):
        if label in before:
            values["expert_grade"][:, column] = grades[:, before.index(label)]
    return {name: read_column(group, name) for name in _ARRAYS} | {
        "expert_grade": values["expert_grade"]
    }
