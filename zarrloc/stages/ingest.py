"""Ingest: image files become one sharded array of fields of view, with what is known of each.

A block is one shard. Its FOVs are read one by one; a file that cannot be used leaves a zero field
and its reason in `error`. FOVs that stand in the store already are taken from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc import background, catalog, fields, files, labels, opencell, sources, tiff
from zarrloc.catalog import Catalog
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.digest import combine
from zarrloc.engine.blocks import Block, Output
from zarrloc.engine.drive import drive
from zarrloc.engine.ledger import Ledger, receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import LockedError, SourceError
from zarrloc.fovs import DIGESTED, GROUP
from zarrloc.location import Location, StoreClock
from zarrloc.lock import hold
from zarrloc.roles import map_channels, role_of
from zarrloc.sources import FovSource
from zarrloc.store import (
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

SHARD_BYTES = 128 << 20
MOST_SHARD_FOVS = 64
COLUMNS = (*DIGESTED, "source_digest", "source_hash")
REMOTE_HEADERS = 16
"""Of an object store's files so many are opened to learn their shape: each costs a download."""

REMOVED = "its file is no longer in SOURCE, and the store's copy was marked as damaged"


# --- one block ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What to do for one row: read these files, or, where None, keep what the store has."""

    source: FovSource | None
    identity: int
    keep: bool


@dataclass(frozen=True)
class IngestStage:
    """Reads a block's files into `(fov, channel, y, x)`."""

    location: Location
    roles: tuple[str, ...]
    by_name: bool
    """Channels are put in order by their names in the file, not by place."""
    dtype: str
    height: int
    width: int
    axes: str | None
    project: str | None
    unsigned: bool = False
    reader: tiff.Reader | None = None
    group: str = GROUP
    array: str | None = "image"
    on_device: bool = False

    def open(self) -> None:
        """Nothing to load."""

    def read(self, block: Block, clock: StoreClock) -> Any:
        """Fields and columns of the block, read from files or kept from the store."""
        rows = _Rows.of(len(block), len(self.roles), self.height, self.width, self.dtype)
        jobs: Sequence[Job] = block.payload
        kept = self._stored(block, clock) if any(job.keep for job in jobs) else None
        for at, (row, job) in enumerate(zip(block.rows, jobs, strict=True)):
            if row in block.skip:
                rows.error[at] = block.skip[row]
            elif job.keep and kept is not None:
                rows.copy(at, kept)
            else:
                self._read_row(rows, at, job)
        return rows

    def device(self, data: Any) -> Any:
        """Nothing to compute."""
        return data

    def finish(self, block: Block, state: Any) -> Output:
        """The block's rows."""
        aside = {"source_digest": state.digest, "source_hash": state.content}
        columns = {"height": state.height, "width": state.width, "error": state.error}
        return Output(state.image, {**columns, "background": state.background}, aside)

    def _read_row(self, rows: "_Rows", at: int, job: Job) -> None:
        source = job.source
        rows.digest[at] = job.identity
        if source is None:
            rows.error[at] = REMOVED
            return
        try:
            rows.put(at, self.read_field(source))
            # An object's ETag speaks of its content already; a second download would tell no more.
            if not files.is_remote(source.paths[0]):
                rows.content[at] = sources.content_hash(source, unsigned=self.unsigned)
        except SourceError as error:
            rows.error[at] = str(error)

    def read_field(self, source: FovSource) -> npt.NDArray[Any]:
        """One field `(channel, y, x)` in the store's dtype and channel order. SourceError."""
        pixels = fields.read_field(
            source,
            self.roles,
            channels_given=not self.by_name,
            project=self.project,
            reader=self.reader
            or partial(
                fields.read_uri, axes=self.axes, channels=len(self.roles), unsigned=self.unsigned
            ),
        )
        if pixels.dtype.name != self.dtype:
            raise SourceError(f"has dtype {pixels.dtype.name}, the store holds {self.dtype}")
        height, width = pixels.shape[1:]
        if height > self.height or width > self.width:
            raise SourceError(
                f"is {height}x{width} px, larger than the store's {self.height}x{self.width}; "
                f"ingest anew with --field-size {max(height, self.height)}x{max(width, self.width)}"
            )
        return pixels

    def _stored(self, block: Block, clock: StoreClock) -> "_Rows":
        group = self.location.group(GROUP, mode="r", clock=clock)
        values = {
            name: read_column(group, name, block.stop, block.start) for name in ("image", *COLUMNS)
        }
        return _Rows(
            values["image"],
            values["height"],
            values["width"],
            values["background"],
            values["error"],
            values["source_digest"],
            values["source_hash"],
        )


@dataclass
class _Rows:
    """A block's rows while they are filled."""

    image: npt.NDArray[Any]
    height: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    background: npt.NDArray[np.float32]
    error: npt.NDArray[Any]
    digest: npt.NDArray[np.uint64]
    content: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, rows: int, channels: int, height: int, width: int, dtype: str) -> "_Rows":
        return cls(
            np.zeros((rows, channels, height, width), dtype),
            np.zeros(rows, np.int32),
            np.zeros(rows, np.int32),
            np.zeros((rows, channels), np.float32),
            np.full(rows, "", np.dtypes.StringDType()),
            np.zeros(rows, np.uint64),
            np.zeros(rows, np.uint64),
        )

    def put(self, at: int, pixels: npt.NDArray[Any]) -> None:
        height, width = pixels.shape[1:]
        self.image[at, :, :height, :width] = pixels
        self.height[at], self.width[at] = height, width
        self.background[at] = background.measure(pixels)

    def copy(self, at: int, other: "_Rows") -> None:
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[at] = theirs[at]


# --- the whole ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What every field of the store has in common, and where the channel roles came from."""

    roles: tuple[str, ...]
    named_by: str
    """`given`, `opencell` or `files`."""
    dtype: str
    height: int
    width: int
    pixel_size_um: float | None
    notes: tuple[str, ...] = field(default=(), compare=False)


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
    found = sources.find(
        source,
        manifest=manifest,
        channels=config.channels,
        project=config.project,
        unsigned=unsigned,
    )
    table = None if labels_csv is None else labels.read(labels_csv, cell_lines_csv)
    shape = (
        _shape_of(found, config, unsigned, reader) if before is None else _shape_in(before, config)
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
        identities = [
            _identity(ledger, row, one, rehash) for row, one in enumerate(rows.sources)
        ]
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
        content = sources.content_hash(source)
    except SourceError:
        return source.identity  # the worker finds out, and says why
    if content == int(ledger.columns["source_hash"][row]):
        return stored
    return combine([source.identity, content])


def _shape_of(
    found: Sequence[FovSource], config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> Shape:
    """Learn from the files' headers what they have in common."""
    whole = [one for one in found if not one.problem]
    is_opencell = any(one.kind.startswith("opencell") for one in whole)
    if whole and files.is_remote(whole[0].paths[0]):
        whole = whole[:: max(1, len(whole) // REMOTE_HEADERS)]
    headers, reasons = [], [one.problem for one in found if one.problem]
    for one in whole:
        try:
            headers.append(_header(one, config, unsigned, reader))
        except SourceError as error:
            reasons.append(f"{Path(one.paths[0]).name} {error}")
    if not headers:
        raise SourceError(f"none of the {len(found)} images can be read; the first: {reasons[0]}")
    names = catalog.commonest([h.channel_names or () for h in headers])
    roles, how = map_channels(config.channels, names or None, is_opencell)  # type: ignore[arg-type]
    if config.field_size:
        height, width = map(int, config.field_size.split("x"))
    else:
        height, width = catalog.commonest([(h.size("Y"), h.size("X")) for h in headers])  # type: ignore[misc]
    sizes = [h.pixel_size_um for h in headers if h.pixel_size_um]
    pixel = config.pixel_size_um or (
        opencell.PIXEL_SIZE_UM
        if is_opencell
        else (float(catalog.commonest(sizes)) if sizes else None)  # type: ignore[arg-type]
    )
    named_by = "given" if config.channels else "opencell" if is_opencell else "files"
    return Shape(
        roles,
        named_by,
        str(catalog.commonest([h.dtype for h in headers])),
        height,
        width,
        pixel,
        how,
    )


def _header(
    source: FovSource, config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> tiff.Header:
    if reader is not None:
        image = reader(source.paths[0])
        shape, dtype = image.pixels.shape, image.pixels.dtype.name
        return tiff.Header(shape, image.axes, dtype, image.channel_names, image.pixel_size_um)
    channels = None if source.channels else len(config.channels) or None
    return fields.describe(source, axes=config.axes, channels=channels, unsigned=unsigned)


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
