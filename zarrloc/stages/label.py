"""Label: an expert's judgements of single cells go from a CSV into `cells/<name>`, all or none."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import SourceError, StoreError
from zarrloc.groups.judgements import COLUMNS, Cells, Verdict, columns, held, read_cells
from zarrloc.images.tables import Row, Table, read
from zarrloc.store.columns import revise
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.read import need

TICKS = {"yes": True, "y": True, "1": True, "x": True, "true": True}
TICKS |= {"no": False, "n": False, "0": False, "false": False}


@dataclass(frozen=True)
class Summary:
    """How many cells an import judged, and how many rows of it were left blank."""

    seen: int
    whole: int
    confirmed: int
    blank: int


class _Problem(Exception):
    """One row that cannot be used."""


def label(store: str | Path | Location, cells: str, csv: str | Path) -> Summary:
    """Write the table `csv` into `cells/<cells>`; cells it does not name keep what they had.

    Raises SourceError naming every row that cannot be used, before anything is written;
    StoreError and LockedError.
    """
    location = Location.of(store)
    path = f"cells/{cells}"
    table = read(csv)
    need(location, path, f"segment --name {cells}")  # or a lock would lie beside a mistyped store
    with hold(location, path, uuid.uuid4().hex):
        known = read_cells(location, cells)
        verdicts, blank = judge(table, known)
        revised = columns(known, verdicts, held(location.group(path, mode="r"), known))
        revise(location, path, revised)
    return Summary(
        seen=len(verdicts),
        whole=sum(verdict.whole for verdict in verdicts),
        confirmed=sum(verdict.confirmed for verdict in verdicts),
        blank=blank,
    )


def carry(store: str | Path | Location, cells: str, other: str) -> int:
    """Take the judgements of `cells/<cells>` over to `cells/<other>`, of the same objects.

    Returns how many cells were judged; where none is, nothing is written. Raises StoreError
    where the tables speak of different objects, and LockedError.
    """
    location = Location.of(store)
    known, wanted = read_cells(location, cells), read_cells(location, other)
    values = held(location.group(f"cells/{cells}", mode="r"), known)
    seen = int(values["expert_seen"].sum())
    if not seen:
        return 0
    for name in ("fov_index", "mask_label"):
        if not np.array_equal(getattr(known, name), getattr(wanted, name)):
            raise StoreError(
                f"cells/{cells} and cells/{other} speak of different objects ({name}); the "
                "judgements of one do not hold for the other"
            )
    with hold(location, f"cells/{other}", uuid.uuid4().hex):
        revise(location, f"cells/{other}", columns(wanted, [], values))
    return seen


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
