"""An expert's judgements of single cells: columns of `cells/<name>`.

The paper's Appendix B asks two things of a cell: is it one whole cell, and does its image's label
hold for it. Cells with two yeses are its Table 4: `expert_seen & expert_whole & expert_confirmed`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.store.columns import array_of, read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need
from zarrloc.store.template import Variable

COLUMNS = ("sheet", "fov", "mask_label", "y", "x", "field_labels", "whole", "confirmed", "labels")
"""Columns of an expert's table. A cell is named by `fov` and `mask_label`, or by `fov` and a point
`y`, `x` in pixels; `sheet` and `field_labels` are for the eye."""

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


def columns(
    cells: Cells, verdicts: list[Verdict], before: dict[str, npt.NDArray[Any]]
) -> dict[str, tuple[Variable, npt.NDArray[Any]]]:
    """The experts' columns, new verdicts replacing those of `before`."""
    for verdict in verdicts:
        before["expert_seen"][verdict.row] = True
        before["expert_whole"][verdict.row] = verdict.whole
        before["expert_confirmed"][verdict.row] = verdict.confirmed
        before["expert_grade"][verdict.row] = verdict.grade
    labels = np.array(cells.labels, dtype=np.dtypes.StringDType())
    columns = {"label": (Variable.like(("label",), labels), labels)}
    return columns | {name: (_variable(name, values), values) for name, values in before.items()}


def _variable(name: str, values: npt.NDArray[Any]) -> Variable:
    dims = ("cell", "label")[: values.ndim]
    return Variable.like(dims, values, attrs={"long_name": _ARRAYS[name]})


def grown(
    column: Callable[[str], npt.NDArray[Any] | None], rows: int
) -> dict[str, tuple[Variable, npt.NDArray[Any]]]:
    """The judgements of a table that grows to `rows` rows: nobody has judged the new ones.

    `column(name)` is a column of the table as it is, or None where it has no such column.
    """
    columns = {}
    for name in _ARRAYS:
        values = column(name)
        if values is not None:
            more = np.zeros((rows - len(values), *values.shape[1:]), values.dtype)
            values = np.concatenate([values, more])
            columns[name] = (_variable(name, values), values)
    return columns


def held(group: zarr.Group, cells: Cells) -> dict[str, npt.NDArray[Any]]:
    """What earlier tables said, in today's vocabulary; nothing where there was none."""
    n = len(cells.mask_label)
    values: dict[str, npt.NDArray[Any]] = {name: np.zeros(n, dtype=bool) for name in _ARRAYS}
    values["expert_grade"] = np.zeros((n, len(cells.labels)), dtype=np.uint8)
    if not all(name in group for name in ("label", *_ARRAYS)):
        return values
    known = read_column(group, "label").tolist()
    grades = read_column(group, "expert_grade")
    for column, label in enumerate(cells.labels):
        if label in known:
            values["expert_grade"][:, column] = grades[:, known.index(label)]
    return {name: read_column(group, name) for name in _ARRAYS} | {
        "expert_grade": values["expert_grade"]
    }
