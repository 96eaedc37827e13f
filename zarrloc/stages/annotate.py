"""Annotate: change pixel size, channel roles, labels or conditions, in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import AnyPlan, Before, Plan
from zarrloc.errors import ConfigError
from zarrloc.groups.fovs import GRADES, GROUP
from zarrloc.images import catalog
from zarrloc.images import labels as tables
from zarrloc.images.catalog import Catalog
from zarrloc.images.label_table import LabelTable
from zarrloc.images.roles import role_of
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location
from zarrloc.store.read import need
from zarrloc.store.template import Variable


@dataclass(frozen=True)
class AnnotateSummary:
    """What changed, each as `name: before -> after`; and what a table matched."""

    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    exit_code: int = 0

    def lines(self) -> list[str]:
        """The summary, line by line."""
        return [*(self.changes or ["nothing to do: the store says so already"]), *self.notes]


def annotate(
    store: str | Path | Location,
    *,
    pixel_size_um: float | None = None,
    channels: Sequence[str] = (),
    labels: str | Path | None = None,
    cell_lines: str | Path | None = None,
    conditions: str | Path | None = None,
    label_names: str | Path | None = None,
) -> AnnotateSummary:
    """Change a store's pixel size, channel roles, labels or conditions; its pixels stay.

    Images, masks and embeddings stay valid, unless they were made by this very fact: a cell table
    whose window was given in micrometres, an embedding of size `um:...`.

    Parameters
    ----------
    store
        Path or address of the store.
    pixel_size_um
        Side of a pixel in micrometres.
    channels
        A role for each channel, in their order, such as `["nucleus", "protein"]`.
    labels
        Table of labels, as `ingest` takes it; the labels of fields that it does not name go.
    cell_lines
        OpenCell's `all-public-targets.csv`, which joins its labels to files.
    conditions
        Table of conditions, or a plate map; its columns become coordinates of the fields.
    label_names
        What the labels are called: a table of `label` and `name`, `hpa-2018` or `hpa-2021`.

    Raises
    ------
    ConfigError
        Where nothing is given, the pixel size is not positive, the roles are not one for each
        channel, all different, or OpenCell's table lacks `cell_lines`.
    SourceError
        Where a table cannot be read, contradicts itself, or matches no field.
    StoreError
        Where there is no store.
    LockedError
        While it is being ingested into.

    Examples
    --------
    >>> annotate("my.zarr", pixel_size_um=0.325).changes  # doctest: +SKIP
    ['pixel_size_um: None -> 0.325']
    """
    location = Location.of(store)
    need(location, GROUP, "ingest SOURCE STORE")
    said = tables.read_all(labels, cell_lines, conditions, label_names)
    if pixel_size_um is None and not channels and not said:
        raise ConfigError(
            "nothing to change: give pixel_size_um, channels, labels, conditions, or several"
        )
    if pixel_size_um is not None and not 0 < pixel_size_um < float("inf"):
        raise ConfigError(f"pixel_size_um is {pixel_size_um}; expected a positive number")
    roles = [role_of(name) for name in channels]
    changes: list[str] = []
    notes: list[str] = []

    def make(before: Before) -> AnyPlan:
        assert before.group is not None, "the fields were there before the lock"
        assert before.attrs is not None
        attrs: StageAttrs = before.attrs
        template, coords, about = {}, {}, {}
        coordinates: tuple[str, ...] = ()
        if roles:
            had = [str(role) for role in before.column("channel")]  # type: ignore[union-attr]
            if len(roles) != len(had) or len(set(roles)) != len(roles) or "" in roles:
                raise ConfigError(
                    f"channels {', '.join(channels)} for {len(had)} channels ({', '.join(had)}); "
                    "expected a different role for each"
                )
            if roles != had:
                changes.append(f"channels: {', '.join(had)} -> {', '.join(roles)}")
                coords["channel"] = np.array(roles, np.dtypes.StringDType())
                template["channel"] = Variable.like(("channel",), coords["channel"])
        size: Any = before.group.attrs["pixel_size_um"]
        if pixel_size_um is not None and pixel_size_um != size:
            changes.append(f"pixel_size_um: {size} -> {pixel_size_um}")
            about["pixel_size_um"] = pixel_size_um
        if said:
            rows, before_rows = _said(before.group, said, notes)
            for name, (dims, values) in rows.arrays().items():
                template[name] = Variable.like(dims, values)
                coords[name] = values
            if rows.labels:
                template["grade"] = replace(template["grade"], attrs={"long_name": GRADES})
            changes.extend(_differences(before_rows, rows))
            known: Any = before.group.attrs.get("coordinates", "")
            coordinates = (*known.split(), *rows.coords)
        return Plan(attrs, template, coords, coordinates, about)

    carry_out(location, GROUP, make)
    return AnnotateSummary(changes, notes)


def _said(
    group: zarr.Group, said: Sequence[LabelTable], notes: list[str]
) -> tuple[Catalog, Catalog]:
    """The store's rows with what tables say of them, and as they were; what matched, in `notes`."""
    before = catalog.stored(group)
    rows = catalog.with_sources(before)
    for table in said:
        table.need_match([one for one in rows.sources if one is not None])
        rows, matched = catalog.label(rows, table)
        notes.extend(matched)
    return rows, before


def _differences(before: Catalog, after: Catalog) -> list[str]:
    """What tables changed, as lines."""
    found = []
    if before.labels != after.labels or not np.array_equal(before.grades, after.grades):
        counts = [f"{len(r.labels)} labels of {int(r.grades.any(axis=1).sum())} fields"
                  for r in (before, after)]  # fmt: skip
        found.append(f"labels: {counts[0]} -> {counts[1]}")
    for name, values in after.coords.items():
        had = before.coords.get(name)
        if had != values:
            was = f"{len({*had} - {''})} values" if had else "(none)"
            found.append(f"{name}: {was} -> {len({*values} - {''})} values")
    return found
