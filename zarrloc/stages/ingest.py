"""Ingest: image files become one sharded array of fields of view, with what is known of each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.drive import drive
from zarrloc.engine.ledger import Ledger, receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import LockedError, SourceError
from zarrloc.groups.fovs import DIGESTED, GROUP
from zarrloc.images import catalog, files, find, labels, opencell, tiff
from zarrloc.images.catalog import Catalog
from zarrloc.images.find import FovSource
from zarrloc.images.roles import role_of
from zarrloc.images.shape import Shape, shape_of
from zarrloc.pixels import background
from zarrloc.store.digest import combine
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.template import (
    PENDING,
    StageAttrs,
    Variable,
    add_variable,
    allocate,
    array_of,
    check_target,
    claim,
    commit,
    committed,
    ensure_root,
    read_column,
    stage_attrs,
    update_attrs,
    write_column,
)
from zarrloc.tasks.read_images import COLUMNS, IngestStage, Job

SHARD_BYTES = 128 << 20
MOST_SHARD_FOVS = 64


def ingest(
    source: str | Path | None,
    store: str | Path,
    config: IngestConfig | None = None,
    *,
    labels_csv: str | Path | None = None,
    cell_lines_csv: str | Path | None = None,
    manifest: str | Path | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    rehash: bool = False,
    unsigned: bool = False,
    reader: tiff.Reader | None = None,
    quiet: bool = False,
) -> Summary:
    """Read the images of `source` into `fovs` of `store`; append what is new, redo what changed.

    `source` is a folder, glob, file or object-store prefix; `manifest` a CSV with `path` and maybe
    `channel`, `fov` and columns to keep. `labels_csv` is OpenCell's annotation table (then
    `cell_lines_csv` is needed for the join) or anyone's. `reader` replaces the TIFF reader.
    Raises `SourceError`, `ConfigError`, `ChannelError`, `StoreError` or `LockedError` before
    anything is written; a bad file afterwards gets an `error` in its row.
    """
    config, run = config or IngestConfig(), run or RunConfig()
    location = Location.of(store)
    check_target(location)
    before = None if overwrite else committed(location, GROUP)
    config = _over(config, before)
    found = find.find(
        source,
        manifest=manifest,
        channels=config.channels,
        project=config.project,
        unsigned=unsigned,
    )
    table = None if labels_csv is None else labels.read(labels_csv, cell_lines_csv)
    shape = (
        shape_of(found, config, unsigned, reader) if before is None else _shape_in(before, config)
    )
    notes = list(shape.notes)
    old = catalog.EMPTY if before is None else _catalog_in(before)
    rows = catalog.merge(old, found)
    if table is not None:
        rows, unmatched = catalog.label(rows, table)
        notes.append(_label_note(len(found), unmatched))
    shard = config.shard_fovs or _shard_fovs(shape)
    wanted = _attrs(shape, config, shard, before)
    with hold(location, GROUP, new_run_id()) as token:
        ensure_root(location)
        there = claim(location, GROUP, wanted, overwrite=overwrite)
        if (there is None) != (before is None):
            raise LockedError(f"{location.uri} was ingested into just now; run again")
        if before is None:
            _allocate(location, shape, wanted, rows)
        else:
            Ledger.grow(location, GROUP, "fov", len(rows), shard)
            update_attrs(location, GROUP, coordinates=_coordinates(rows))
        _write_rows(location, rows)
        commit(location, GROUP)
        ledger = Ledger(location, GROUP, COLUMNS, len(rows), shard)
        stage = IngestStage(
            location, shape.roles, shape.named_by != "given", shape.dtype, shape.height,
            shape.width, config.axes, config.project, unsigned, reader,
        )  # fmt: skip
        identities = [_identity(ledger, row, one, rehash) for row, one in enumerate(rows.sources)]
        inputs, payloads = _plan(ledger, rows, identities, wanted.fingerprint)
        summary = drive(stage, ledger, inputs, run, token, payloads=payloads, quiet=quiet)
    summary.notes[:0] = notes
    return summary


def _plan(
    ledger: Ledger, rows: Catalog, identities: Sequence[int], fingerprint: str
) -> tuple[list[int], list[tuple[Job, ...]]]:
    inputs, payloads = [], []
    stored, failed = ledger.columns["source_digest"], ledger.errors()

    def kept(row: int) -> bool:
        # A file that failed is read again when its block is: its trouble may be over.
        known = rows.sources[row] is None or not failed[row]
        return known and int(stored[row]) == identities[row]

    for block in range(ledger.blocks):
        span = range(block * ledger.block_rows, min((block + 1) * ledger.block_rows, len(rows)))
        done = int(ledger.output[block]) != 0
        inputs.append(combine([fingerprint, *(identities[row] for row in span)]))
        payloads.append(
            tuple(Job(rows.sources[row], identities[row], done and kept(row)) for row in span)
        )
    return inputs, payloads


def _identity(ledger: Ledger, row: int, source: FovSource | None, rehash: bool) -> int:
    stored = int(ledger.columns["source_digest"][row])
    if source is None:
        return stored
    if not rehash or source.problem or files.is_remote(source.paths[0]):
        return source.identity
    try:
        content = find.content_hash(source)
    except SourceError:
        return source.identity  # the worker finds out, and says why
    if content == int(ledger.columns["source_hash"][row]):
        return stored
    return combine([source.identity, content])


def _over(config: IngestConfig, before: zarr.Group | None) -> IngestConfig:
    """The settings that ask for something, over those the store was made with."""
    if before is None:
        return config
    had = stage_attrs(before).config
    keep = {name: getattr(config, name) or had[name] for name in ("axes", "project", "shard_fovs")}
    return config.model_copy(update=keep)


def _shape_in(group: zarr.Group, config: IngestConfig) -> Shape:
    """What the store has, with what the user asks for laid over it."""
    had = stage_attrs(group).config
    height, width = had["height"], had["width"]
    if config.field_size:
        height, width = map(int, config.field_size.split("x"))
    roles = tuple(map(role_of, config.channels)) or tuple(had["channels"])
    named_by = "given" if config.channels else had["named_by"]
    pixel = config.pixel_size_um or had["pixel_size_um"]
    return Shape(roles, named_by, had["dtype"], height, width, pixel)


def _attrs(shape: Shape, config: IngestConfig, shard: int, before: zarr.Group | None) -> StageAttrs:
    had = {} if before is None else stage_attrs(before).config
    settings = {
        "channels": list(shape.roles),
        "named_by": had.get("named_by", shape.named_by),
        "dtype": shape.dtype,
        "height": shape.height,
        "width": shape.width,
        "axes": config.axes,
        "project": config.project,
        "pixel_size_um": shape.pixel_size_um,
        "background": background.METHOD,
        "shard_fovs": shard,
    }
    return StageAttrs.of(
        "ingest", settings, {}, block_rows=shard, array="image", digested=list(DIGESTED)
    )


def _shard_fovs(shape: Shape) -> int:
    raw = len(shape.roles) * shape.height * shape.width * np.dtype(shape.dtype).itemsize
    return max(1, min(MOST_SHARD_FOVS, SHARD_BYTES // raw))


def _allocate(location: Location, shape: Shape, wanted: StageAttrs, rows: Catalog) -> None:
    count, channels, shard = len(rows), len(shape.roles), wanted.block_rows
    variables = {
        "image": Variable(
            ("fov", "channel", "y", "x"),
            shape.dtype,
            (count, channels, shape.height, shape.width),
            grid_chunk=1,
            grid_shard=shard,
        ),
        "fov": Variable(("fov",), "string", (count,)),
        "source": Variable(("fov",), "string", (count,)),
        "height": _pixels("rows of the image that are real, the rest is padding", count),
        "width": _pixels("columns of the image that are real, the rest is padding", count),
        "error": Variable(("fov",), "string", (count,), PENDING),
        "background": Variable(
            ("fov", "channel"), "float32", (count, channels), attrs={"method": background.METHOD}
        ),
        "source_digest": Variable(("fov",), "uint64", (count,)),
        "source_hash": Variable(("fov",), "uint64", (count,)),
        "channel": Variable(("channel",), "string", (channels,)),
        "stain": Variable(("channel",), "string", (channels,)),
        "excitation_nm": Variable(("channel",), "int32", (channels,)),
        "color": Variable(("channel",), "string", (channels,)),
        **receipt_variables(count, shard),
    }
    attrs = {
        "zarrloc": wanted.model_dump(),
        "pixel_size_um": shape.pixel_size_um,
        "shard_fovs": shard,
    }
    group = allocate(location, GROUP, variables, attrs=attrs, coords=_coordinates(rows).split())
    unknown = opencell.Stain("", 0, "#ffffff")
    stains = [opencell.STAINS.get(role, unknown) for role in shape.roles]
    if shape.named_by != "opencell":
        stains = [opencell.Stain("", 0, stain.color) for stain in stains]
    _write_text(group, "channel", shape.roles)
    _write_text(group, "stain", [stain.stain for stain in stains])
    _write_text(group, "color", [stain.color for stain in stains])
    write_column(group, "excitation_nm", np.array([s.excitation_nm for s in stains], np.int32))


def _coordinates(rows: Catalog) -> str:
    fixed = ("source", "height", "width", "error", "stain", "excitation_nm", "color")
    return " ".join(sorted({*fixed, *rows.coords}))


def _pixels(meaning: str, rows: int) -> Variable:
    return Variable(("fov",), "int32", (rows,), attrs={"units": "pixel", "long_name": meaning})


def _write_rows(location: Location, rows: Catalog) -> None:
    """Names, text coordinates and grades of every row: what no worker writes."""
    group = location.group(GROUP)
    _write_text(group, "fov", rows.fov)
    _write_text(group, "source", rows.source)
    for name, values in rows.coords.items():
        _ensure(group, name, Variable(("fov",), "string", (len(rows),)))
        _write_text(group, name, values)
    if rows.labels:
        _ensure(group, "label", Variable(("label",), "string", (len(rows.labels),)))
        meaning = {"long_name": "3 prominent, 2 less so, 1 weak, 0 not seen"}
        _ensure(
            group, "grade", Variable(("fov", "label"), "uint8", rows.grades.shape, attrs=meaning)
        )
        _write_text(group, "label", rows.labels)
        write_column(group, "grade", rows.grades)


def _ensure(group: zarr.Group, name: str, variable: Variable) -> None:
    if name not in group or array_of(group, name).shape != variable.shape:
        add_variable(group, name, variable)


def _write_text(group: zarr.Group, name: str, values: Sequence[str]) -> None:
    write_column(group, name, np.array(list(values), np.dtypes.StringDType()))


def _catalog_in(group: zarr.Group) -> Catalog:
    def text(name: str) -> tuple[str, ...]:
        return tuple(map(str, read_column(group, name)))

    fixed = {"fov", "source", "error", "height", "width"}
    coords = {
        name: text(name)
        for name, array in group.arrays()
        if array.metadata.dimension_names == ("fov",)  # type: ignore[union-attr]
        and name not in fixed
        and array.dtype.kind == "T"
    }
    has_labels, rows = "grade" in group, array_of(group, "fov").shape[0]
    return Catalog(
        text("fov"),
        text("source"),
        coords,
        labels=text("label") if has_labels else (),
        grades=read_column(group, "grade") if has_labels else np.zeros((rows, 0), np.uint8),
    )


def _label_note(found: int, unmatched: Sequence[str]) -> str:
    if not unmatched:
        return f"labels: all {found} FOVs matched"
    named = ", ".join(unmatched[:10]) + (", ..." if len(unmatched) > 10 else "")
    return f"labels: {found - len(unmatched)} of {found} FOVs matched; without: {named}"


def failures(store: str | Path) -> str:
    """A table of the FOVs that could not be read, and why."""
    group = committed(Location.of(store), GROUP)
    assert group is not None
    error = read_column(group, "error")
    bad = np.flatnonzero((error != "") & (error != PENDING))
    source = read_column(group, "source")
    names = [str(source[row]).rsplit("/", 1)[-1] for row in bad]
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:{width}}  {error[row]}" for name, row in zip(names, bad, strict=True))
