"""Measuring cells: a run of rows of the cell table, from the fields they lie in.

A block reads its fields once and measures each alone: one that cannot be measured costs its own
cells, and no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zarrloc.engine.block import Block, Output
from zarrloc.groups.segmentations import FieldRun, read_fields
from zarrloc.pixels import measure
from zarrloc.store import retry
from zarrloc.store.location import Location, StoreClock


class Span(NamedTuple):
    """The fields that a block's cells lie in, and how many cells each has in all."""

    fovs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    first: int
    """Which of all these cells is the block's first row."""


class Fields(NamedTuple):
    """A block with the fields it measures."""

    block: Block[Span]
    run: FieldRun


class Measured(NamedTuple):
    """The cells of all these fields."""

    table: dict[str, npt.NDArray[Any]]
    skip: Mapping[int, str]
    """Row -> why it was not measured."""


@dataclass(frozen=True)
class MeasureCells:
    """The stage's work on one block of rows."""

    location: Location
    group: str
    name: str
    window: int
    channels: int
    array: str | None = None
    on_device: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, block: Block[Span], clock: StoreClock) -> Fields:
        """The fields, read once."""
        span = block.part.payload
        start, stop = int(span.fovs[0]), int(span.fovs[-1]) + 1
        run = read_fields(self.location, self.name, start, stop, block.part.expect, clock)
        return Fields(block, run)

    def device(self, data: Fields) -> Measured:
        """Measurements of every field, and the errors of those that have none."""
        block, run = data
        span = block.part.payload
        skip = dict(block.skip)
        tables, row = [], block.start - span.first
        for fov, count in zip(span.fovs.tolist(), span.counts.tolist(), strict=True):
            rows = range(row, row + count)
            row += count
            try:
                if all(one in skip for one in rows if one in block.rows):
                    tables.append(self._nothing(fov, count))
                else:
                    tables.append(self._measured(run, fov, count))
            except Exception as error:
                if not retry.is_of_a_row(error):
                    raise
                tables.append(self._nothing(fov, count))
                skip.update(dict.fromkeys(rows, retry.row_error(error)))
        table = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
        return Measured(table, skip)

    def finish(self, block: Block[Span], state: Measured) -> Output:
        """The block's rows of what was measured."""
        measured, skip = state
        first = block.part.payload.first
        columns = {name: values[first : first + len(block)] for name, values in measured.items()}
        error = np.array([skip.get(row, "") for row in block.rows], np.dtypes.StringDType())
        aside = {"keep": measure.keep(columns["blank_fraction"]) & (error == ""), "error": error}
        return Output(None, columns, aside)

    def _measured(self, run: FieldRun, fov: int, count: int) -> dict[str, npt.NDArray[Any]]:
        field = run.field(fov)
        table = measure.cells(field.image, field.mask, field.background, self.window)
        if len(table["mask_label"]) != count:
            raise ValueError(f"has {len(table['mask_label'])} objects, its cell_count says {count}")
        table["fov_index"] = np.full(count, fov, np.int64)
        return table

    def _nothing(self, fov: int, count: int) -> dict[str, npt.NDArray[Any]]:
        """The rows of a field that cannot be measured."""
        sizes = {"cell": count, "channel": self.channels}
        table = {
            name: np.zeros([sizes[dim] for dim in column.dims], column.dtype)
            for name, column in measure.COLUMNS.items()
            if name != "keep"
        }
        table["fov_index"][:] = fov
        table["mask_label"][:] = np.arange(1, count + 1)
        return table
