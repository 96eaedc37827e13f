"""Cells: the objects of a segmentation become rows of `cells/<name>`, measured.

Rows are sorted by field. They are allocated from the cumulative `cell_count`; a block is
`block_cells` rows, and reads the run of fields those rows lie in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Block, Output
from zarrloc.engine.drive import drive, open_group
from zarrloc.engine.ledger import receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError
from zarrloc.groups.crops import window_px
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs
from zarrloc.groups.segmentations import Masks, read_fields
from zarrloc.pixels import measure
from zarrloc.store.digest import combine
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.lock import hold
from zarrloc.store.template import (
    PENDING,
    StageAttrs,
    Variable,
    commit,
    committed,
    read_column,
    stage_attrs,
    update_attrs,
    write_column,
)

LEAST_BLOCK_CELLS, MOST_BLOCK_CELLS = 64, 2048
DIGESTED = tuple(name for name in measure.COLUMNS if name != "keep")


@dataclass(frozen=True)
class CellsStage:
    """The stage's work on one block of rows."""

    location: Location
    group: str
    name: str
    window: int
    array: str | None = None
    on_device: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, block: Block, clock: StoreClock) -> Any:
        """Measurements of every field the block's rows lie in, each field read once."""
        fovs, _ = block.payload
        tables = []
        for run in read_fields(self.location, self.name, fovs, clock):
            for fov in run.fovs:
                field = run.field(fov)
                table = measure.cells(field.image, field.mask, field.background, self.window)
                table["fov_index"] = np.full(len(table["mask_label"]), fov, np.int64)
                tables.append(table)
        return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}

    def device(self, data: Any) -> Any:
        """Nothing to compute."""
        return data

    def finish(self, block: Block, state: Any) -> Output:
        """The block's rows of what was measured."""
        _, first = block.payload
        columns = {name: values[first : first + len(block)] for name, values in state.items()}
        error = np.array([block.skip.get(row, "") for row in block.rows], np.dtypes.StringDType())
        aside = {"keep": measure.keep(columns["blank_fraction"]) & (error == ""), "error": error}
        return Output(None, columns, aside)


def tabulate(
    store: str | Path,
    name: str,
    *,
    crop_um: float | None = None,
    keep_percentile: float | None = None,
    block_cells: int | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Summary:
    """Measure the objects of `segmentations/<name>` into the table `cells/<name>`.

    `crop_um` is the side of the paper's crop window that `blank_fraction` speaks of; `keep` is an
    absolute limit on it, or with `keep_percentile` a percentile over all cells. Raises
    `ConfigError`, `StoreError` or `LockedError` before anything is written.
    """
    location, group = Location.of(store), f"cells/{name}"
    fovs, masks = Fovs.of(location), Masks.of(location, name)
    window = window_px(crop_um, fovs.pixel_size_um)
    if keep_percentile is not None:
        measure.keep_percentile(np.zeros(1), keep_percentile)  # refuses what is no percentile
    wanted = StageAttrs.of(
        "cells",
        {"window_px": window, "keep_percentile": keep_percentile, "blank": measure.BLANK_LIMIT},
        {FOVS: fovs.fingerprint, f"segmentations/{name}": masks.fingerprint},
        digested=list(DIGESTED),
    )
    fov_index = np.repeat(np.arange(fovs.rows), masks.cell_count)
    with hold(location, group, new_run_id()) as token:
        had = None if overwrite else _rows_held(location, group)
        changed = had is not None and not np.array_equal(had, fov_index[: len(had)])
        judged = _judged(location, group)
        if changed and judged:
            raise ConfigError(
                f"cell counts of '{group}' changed, so its table must be made anew, and an "
                f"expert's word on {judged} cells would go with it. Pass --overwrite, then bring "
                "the expert's CSV in again (`zarrloc label`); or segment under another --name"
            )
        rows = block_cells or _block_cells(location, group, masks, anew=had is None or changed)
        wanted = wanted.model_copy(update={"block_rows": rows})
        coords = {coord: values[fov_index] for coord, values in fovs.coords.items()}
        ledger = open_group(
            location, group, wanted, _variables(fovs, len(fov_index), rows),
            columns=(*measure.COLUMNS, "error"), coords=coords, overwrite=overwrite, anew=changed,
        )  # fmt: skip
        update_attrs(location, group, block_cells=rows)
        write_column(
            location.group(group), "channel", np.array(fovs.roles, np.dtypes.StringDType())
        )
        inputs, payloads = _plan(fov_index, rows, wanted.fingerprint, fovs, masks)
        stage = CellsStage(location, group, name, window)
        summary = drive(
            stage, ledger, inputs, run or RunConfig(), token,
            payloads=payloads, unit="cell", quiet=quiet,
        )  # fmt: skip
        if keep_percentile is not None:
            kept = measure.keep_percentile(ledger.columns["blank_fraction"], keep_percentile)
            write_column(location.group(group), "keep", kept)
            commit(location, group)
        else:
            kept = ledger.columns["keep"]
    if changed:
        summary.notes.append("cell counts changed: the table was made anew")
    if overwrite and judged:
        summary.notes.append(f"dropped: an expert's word on {judged} cells; `zarrloc label` again")
    summary.notes.append(f"{len(kept)} cells, {int((~kept).sum())} dropped as blank crops")
    return summary


def _rows_held(location: Location, group: str) -> npt.NDArray[np.int64] | None:
    """The `fov_index` of the table as it stands, None where there is none."""
    there = committed(location, group)
    return None if there is None else read_column(there, "fov_index")


def _judged(location: Location, group: str) -> int:
    """How many cells of the table as it stands an expert has judged."""
    there = committed(location, group)
    if there is None or "expert_seen" not in there:
        return 0
    return int(read_column(there, "expert_seen").sum())


def _block_cells(location: Location, group: str, masks: Masks, *, anew: bool) -> int:
    """Rows of a block: about a shard's worth of fields, settled when the table is allocated."""
    there = committed(location, group)
    if there is not None and not anew:
        return stage_attrs(there).block_rows
    average = masks.cell_count.mean() if len(masks.cell_count) else 0
    return int(np.clip(round(average * masks.shard), LEAST_BLOCK_CELLS, MOST_BLOCK_CELLS))


def _plan(
    fov_index: npt.NDArray[np.int64], rows: int, fingerprint: str, fovs: Fovs, masks: Masks
) -> tuple[list[int], list[Any]]:
    inputs, payloads = [], []
    for start in range(0, len(fov_index), rows):
        span = fov_index[start : start + rows]
        touched = np.unique(span)
        shards = np.unique(touched // fovs.shard)
        first = start - int(np.searchsorted(fov_index, span[0]))
        read = [*fovs.block_output[shards], *masks.block_output[shards]]
        inputs.append(combine([fingerprint, len(span), first, *touched, *read]))
        payloads.append((touched, first))
    return inputs, payloads


def _variables(fovs: Fovs, rows: int, block_rows: int) -> dict[str, Variable]:
    sizes = {"cell": rows, "channel": len(fovs.roles)}
    table = {
        name: Variable(
            column.dims, column.dtype, tuple(sizes[dim] for dim in column.dims), attrs=column.attrs
        )
        for name, column in measure.COLUMNS.items()
    }
    return {
        **table,
        "error": Variable(("cell",), "string", (rows,), PENDING),
        "channel": Variable(("channel",), "string", (len(fovs.roles),)),
        **{name: Variable(("cell",), "string", (rows,)) for name in fovs.coords},
        **receipt_variables(rows, block_rows),
    }
