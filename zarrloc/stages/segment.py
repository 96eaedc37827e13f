"""Segment: masks of every field in `segmentations/<name>`, then the table of their cells.

The table's rows are sorted by field and allocated from the cumulative `cell_count`; a block is
`block_cells` rows, and reads the run of fields those rows lie in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc import segmenters
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.block import Part
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.cluster import Cluster
from zarrloc.engine.plan import Before, Plan, refuse_other_settings
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError
from zarrloc.groups import cells, segmentations
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs
from zarrloc.groups.judgements import grown as judged_rows
from zarrloc.groups.segmentations import COLUMNS, Masks
from zarrloc.pixels import measure, population
from zarrloc.pixels.window import PAPER_UM, window_px
from zarrloc.store.attrs import CHANNEL_OF, WINDOW_UM, StageAttrs, check_name
from zarrloc.store.columns import read_column
from zarrloc.store.digest import combine
from zarrloc.store.location import Location
from zarrloc.store.read import committed, stage_attrs
from zarrloc.store.remote import snapshot
from zarrloc.tasks.measure_cells import Fields, MeasureCells, Measured, Span
from zarrloc.tasks.segment_fovs import Rows, SegmentFovs

LEAST_BLOCK_CELLS, MOST_BLOCK_CELLS = 64, 2048
DIGESTED = tuple(name for name in measure.COLUMNS if name != "keep")

WATERSHED_S = 1.0
MEASURE_S = 0.2
"""Seconds a core needs, roughly, for a million pixels of a field."""

SHOWN = 5
"""Fields that a note names."""

Columns = Mapping[str, npt.NDArray[Any]]

Function = Callable[[npt.NDArray[Any], tuple[str, ...]], npt.NDArray[Any]]


def segment(
    store: str | Path,
    config: SegmentConfig,
    name: str,
    *,
    function: Function | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    **table: Any,
) -> tuple[Summary, Summary]:
    """Segment every field, then measure its cells: `segmentations/<name>` and `cells/<name>`.

    `function(image (channel, y, x), roles) -> mask (y, x)` takes the place of a model; `table`
    are the settings of `tabulate`: `crop_um`, `keep_percentile`, `block_cells`. Errors as
    `segment_fovs` and `tabulate` raise them.
    """
    with snapshot(), Cluster(run) as cluster:
        common: dict[str, Any] = {"run": cluster, "overwrite": overwrite}
        masks = _segment(store, config, name, function, Table(**table), **common)
        return masks, tabulate(store, name, **table, **common)


@dataclass(frozen=True)
class Table:
    """The settings of `tabulate`, refused here where no store could be given such a table."""

    crop_um: float | None = None
    keep_percentile: float | None = None
    block_cells: int | None = None

    def __post_init__(self) -> None:
        if self.keep_percentile is not None:
            measure.keep_percentile(np.zeros(1), self.keep_percentile)
        if self.block_cells is not None and self.block_cells < 1:
            raise ConfigError(f"block_cells is {self.block_cells}, expected at least 1")

    def config(self, fovs: Fovs) -> dict[str, Any]:
        """What `keep` and `blank_fraction` depend on. `ConfigError` where it can't be had."""
        return {
            "window_px": window_px(self.crop_um, fovs.pixel_size_um),
            WINDOW_UM: self.crop_um or PAPER_UM,
            "keep_percentile": self.keep_percentile,
            "blank": measure.BLANK_LIMIT,
            "population": population.VERSION,
        }

    def refuse(self, location: Location, name: str, fovs: Fovs, *, overwrite: bool) -> None:
        """Refuse, before anything is segmented, what `tabulate` would refuse after it."""
        config = self.config(fovs)
        there = committed(location, f"cells/{name}")
        if there is not None and not overwrite:
            before = stage_attrs(there)
            wanted = StageAttrs.of("cells", config, before.inputs)
            if not _rescaled(before, wanted):
                refuse_other_settings(f"cells/{name}", before, wanted)


def segment_fovs(
    store: str | Path,
    config: SegmentConfig,
    name: str,
    *,
    function: Function | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
) -> Summary:
    """Segment every field into `segmentations/<name>`: `mask (fov, y, x)`, 0 background.

    Ids are 1..n in each field; `cell_count (fov)` is n. A field that failed has a mask of zeros
    and an `error`. `function(image (channel, y, x), roles) -> mask (y, x)` takes the place of a
    model. Raises `ConfigError`, `ChannelError`, `WeightsError`, `StoreError` or `LockedError`
    before anything is written.
    """
    common: dict[str, Any] = {"run": run, "overwrite": overwrite}
    return _segment(store, config, name, function, None, **common)


def _segment(
    store: str | Path,
    config: SegmentConfig,
    name: str,
    function: Function | None,
    table: Table | None,
    *,
    overwrite: bool,
    **common: Any,
) -> Summary:
    """Segment; with a `table`, refuse one that could not be made before anything is done."""
    location, group = Location.of(store), f"segmentations/{check_name(name)}"
    custom = None if function is None else segmenters.from_callable(function)

    def make(_: Before) -> Plan[None, Rows, Rows]:
        fovs = Fovs.of(location)
        if custom is None:
            segmenters.refuse_missing_roles(config, fovs.roles)
            segmenters.refuse_unknown(config)
        if table is not None:
            table.refuse(location, name, fovs, overwrite=overwrite)
        work = SegmentFovs(location, group, fovs.roles, config, custom)
        segmenter = work.segmenter()
        read = {role: fovs.roles.index(role) for role in segmenter.roles}
        settings = {**segmenter.fingerprint, **({CHANNEL_OF: read} if read else {})}
        attrs = StageAttrs.of(
            "segment", settings, {FOVS: fovs.fingerprint},
            block_rows=fovs.shard, array="mask", digested=list(COLUMNS),
        )  # fmt: skip
        starts = range(0, fovs.rows, fovs.shard)
        stops = [at + fovs.shard for at in starts]
        return Plan(
            attrs,
            segmentations.template(fovs),
            coords=fovs.coords,
            coordinates=("error", *fovs.coords),
            work=work,
            columns=COLUMNS,
            parts=[
                Part(combine([attrs.fingerprint, int(output)]), None, {FOVS: fovs.expect(at, stop)})
                for at, stop, output in zip(starts, stops, fovs.block_output, strict=True)
            ],
            block_s=None if work.on_device else WATERSHED_S * fovs.shard * fovs.megapixels,
        )

    outcome = carry_out(location, group, make, overwrite=overwrite, **common)
    counts = outcome.columns["cell_count"]
    outcome.summary.notes.append(f"{int(counts.sum())} objects, {counts.mean():.1f} a field")
    return outcome.summary


def tabulate(
    store: str | Path,
    name: str,
    *,
    crop_um: float | None = None,
    keep_percentile: float | None = None,
    block_cells: int | None = None,
    run: RunConfig | Cluster | None = None,
    overwrite: bool = False,
) -> Summary:
    """Measure the objects of `segmentations/<name>` into the table `cells/<name>`.

    `crop_um` is the side of the crop window that `blank_fraction` speaks of, by default the
    paper's 53 um, or 256 px where the store has no pixel size; `keep` is an
    absolute limit on it, or with `keep_percentile` a percentile over all cells, and leaves out
    what cannot be a cell (see `zarrloc.pixels.population`). Raises
    `ConfigError`, `StoreError` or `LockedError` before anything is written.
    """
    location, group = Location.of(store), f"cells/{name}"
    table = Table(crop_um, keep_percentile, block_cells)
    notes: list[str] = []
    read: list[tuple[Fovs, Masks]] = []

    def make(before: Before) -> Plan[Span, Fields, Measured]:
        masks = Masks.of(location, name)
        fovs = Fovs.of(location)  # later than the masks: an ingest may be adding fields
        config = table.config(fovs)
        fov_index = np.repeat(np.arange(len(masks.cell_count)), masks.cell_count)
        changed = not before.continues("fov_index", fov_index)
        judged = _judged(location, group)
        if changed and judged:
            raise ConfigError(
                f"cell counts of '{group}' changed, so its table must be made again, and the "
                f"judgements of {judged} cells would go with it. Pass --overwrite, then import "
                "the judgements again (`zarrloc label`); or segment under another --name"
            )
        if changed:
            notes[:] = ["cell counts changed: the table was made again"]
        elif overwrite and judged:
            notes[:] = [f"dropped: judgements of {judged} cells; import them with `zarrloc label`"]
        if before.attrs is None or changed:
            rows = block_cells or _block_cells(masks)
        else:
            rows = before.attrs.block_rows
        attrs = StageAttrs.of(
            "cells",
            config,
            {FOVS: fovs.fingerprint, f"segmentations/{name}": masks.fingerprint},
            block_rows=rows,
            digested=list(DIGESTED),
        )
        rescaled = before.attrs is not None and _rescaled(before.attrs, attrs)
        if rescaled and not changed:
            assert before.attrs is not None
            windows = [one.config["window_px"] for one in (before.attrs, attrs)]
            notes[:] = [
                "the size of a pixel changed: the table was made again, with windows of "
                f"{windows[1]} px ({windows[0]} before) for {config[WINDOW_UM]:g} um"
            ]
        elif before.attrs is not None and changed and not rescaled:
            refuse_other_settings(group, before.attrs, attrs)
        coords = {coord: values[fov_index] for coord, values in fovs.coords.items()}
        coords["channel"] = np.array(fovs.roles, np.dtypes.StringDType())
        judgements = {} if changed else judged_rows(before.column, len(fov_index))
        parts = _parts(fov_index, attrs, fovs, masks)

        read[:] = [(fovs, masks)]

        def settle(columns: Columns) -> dict[str, npt.NDArray[Any]]:
            return {"keep": _kept(columns, keep_percentile, fovs)}

        return Plan(
            attrs,
            cells.template(len(fovs.roles), len(fov_index), coords)
            | {name: variable for name, (variable, _) in judgements.items()},
            coords=coords | {name: values for name, (_, values) in judgements.items()},
            coordinates=("error", *coords),
            about={"block_cells": rows},
            work=MeasureCells(location, group, name, config["window_px"], len(fovs.roles)),
            columns=(*measure.COLUMNS, "error"),
            parts=parts,
            rebuild=changed or rescaled,
            settle=settle,
            unit="cell",
            block_s=MEASURE_S * fovs.rows * fovs.megapixels / max(1, len(parts)),
        )

    outcome = carry_out(location, group, make, run, overwrite=overwrite)
    outcome.summary.notes += notes
    if outcome.made and not outcome.summary.failures:  # a table with missing rows has no statistics
        outcome.summary.notes += _notes(outcome.columns, *read[-1])
    return outcome.summary


def _rescaled(before: StageAttrs, wanted: StageAttrs) -> bool:
    """Whether a table has the same settings, but the size of a pixel changed since."""
    same = before.config.get(WINDOW_UM) == wanted.config[WINDOW_UM]
    window = {"window_px": wanted.config["window_px"]}
    if not same or before.config.items() >= window.items():
        return False
    now = StageAttrs.of("cells", {**before.config, **window}, before.inputs)
    return now.fingerprint == wanted.fingerprint


def _possible(columns: Columns, fovs: Fovs) -> npt.NDArray[np.bool_]:
    """Which rows can be cells, judged by all of the table; one with an error is not judged."""
    fine: npt.NDArray[np.bool_] = columns["error"] == ""
    height, width = (fovs.receipts[side].astype(np.int64) for side in ("height", "width"))
    judged = ("area_px", "touches_border", "intensity_mean")
    possible = np.ones(len(fine), bool)
    possible[fine] = ~population.impossible(
        **{name: columns[name][fine] for name in judged},
        field_px=(height * width)[columns["fov_index"][fine]],
    )
    return possible


def _kept(columns: Columns, keep_percentile: float | None, fovs: Fovs) -> npt.NDArray[np.bool_]:
    """`keep` of all rows."""
    blank = columns["blank_fraction"]
    if keep_percentile is None:
        kept = measure.keep(blank)
    else:
        kept = measure.keep_percentile(blank, keep_percentile)
    kept &= (columns["error"] == "") & _possible(columns, fovs)
    return kept


def _notes(columns: Columns, fovs: Fovs, masks: Masks) -> list[str]:
    """What a run says of its cells, and of the fields that are unlike the others."""
    kept, possible = columns["keep"], _possible(columns, fovs)
    notes = [
        f"{len(kept)} cells, {int((~kept & possible).sum())} dropped as blank crops, "
        f"{int((~possible).sum())} as no cells (far too large, too small or without light)"
    ]
    if later := fovs.rows - len(masks.cell_count):
        notes.append(f"fields ingested since: {later}; the same `zarrloc segment` does them")
    counts = np.where(masks.receipts["error"] == "", masks.cell_count, -1)
    odd = population.odd_fields(counts, columns["fov_index"], columns["area_px"])
    for rows, what in (
        (odd.empty, "without any object"),
        (odd.number, "with far more or fewer objects than the others"),
        (odd.size, "with far larger or smaller objects than the others"),
    ):
        if len(rows):
            shown = ", ".join(f"{fovs.coords['fov'][row]} ({counts[row]})" for row in rows[:SHOWN])
            more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
            notes.append(f"look at the fields {what}: {shown}{more}")
    return notes


def _judged(location: Location, group: str) -> int:
    """How many cells of the committed table have been judged by an expert."""
    table = committed(location, group)
    if table is None or "expert_seen" not in table:
        return 0
    return int(read_column(table, "expert_seen").sum())


def _block_cells(masks: Masks) -> int:
    """Rows of a block: about a shard's worth of fields."""
    average = masks.cell_count.mean() if len(masks.cell_count) else 0
    return int(np.clip(round(average * masks.shard), LEAST_BLOCK_CELLS, MOST_BLOCK_CELLS))


def _parts(
    fov_index: npt.NDArray[np.int64], attrs: StageAttrs, fovs: Fovs, masks: Masks
) -> list[Part[Span]]:
    """What each block is made from, expects and gets."""
    parts = []
    for start in range(0, len(fov_index), attrs.block_rows):
        rows = fov_index[start : start + attrs.block_rows]
        touched, starts = np.unique(rows, return_index=True)
        low, high = int(touched[0]), int(touched[-1]) + 1
        expect = {
            FOVS: fovs.expect(low, high),
            f"segmentations/{masks.name}": masks.expect(low, high),
        }
        first = start - int(np.searchsorted(fov_index, rows[0]))
        span = Span(touched, masks.cell_count[touched], first)
        made_from = [attrs.fingerprint, len(rows), first, *touched, *expect.values()]
        units = tuple((start + starts).tolist())
        parts.append(Part(combine(made_from), span, expect, units))
    return parts
