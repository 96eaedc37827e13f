"""Ingest: image files become one sharded array of fields of view, with what is known of each."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Part
from zarrloc.engine.carry_out import carry_out, complete
from zarrloc.engine.cluster import cores
from zarrloc.engine.plan import AnyPlan, Before, Plan
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError, SourceError
from zarrloc.groups import fovs
from zarrloc.groups.fovs import DIGESTED, GROUP
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.images import catalog, files, find, opencell, tiff
from zarrloc.images import labels as tables
from zarrloc.images.catalog import Catalog
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import Channels, role_of
from zarrloc.images.select import Selection
from zarrloc.images.shape import Shape, shape_of
from zarrloc.pixels import background
from zarrloc.store import document, objects
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.digest import combine
from zarrloc.store.location import Location
from zarrloc.store.read import committed, need, stage_attrs
from zarrloc.store.remote import snapshot
from zarrloc.store.template import PENDING, Variable
from zarrloc.tasks.read_images import COLUMNS, PASSED, Job, ReadImages, Rows

HELD = ("source_digest", "source_hash", ROW_DIGEST)
FIXED = ("source", "height", "width", "error", "stain", "excitation_nm", "color")

SHARD_BYTES = 128 << 20
LEAST_SHARD_FOVS, MOST_SHARD_FOVS = 8, 64
SHARDS_A_CORE = 2

BYTES_A_SECOND = 100e6
"""What a core reads, measures and writes, roughly, of uncompressed fields."""


@snapshot()
def ingest(
    source: str | Path | None,
    store: str | Path,
    config: IngestConfig | None = None,
    *,
    labels: str | Path | None = None,
    cell_lines: str | Path | None = None,
    conditions: str | Path | None = None,
    label_names: str | Path | None = None,
    manifest: str | Path | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    rehash: bool = False,
    unsigned: bool = False,
    reader: tiff.Reader | None = None,
) -> Summary:
    """Read the images of `source` into `fovs` of `store`; append what is new, redo what changed.

    `source` is a folder, glob, file or object-store prefix; `manifest` a CSV with `path` and maybe
    `channel`, `fov` and columns to keep. `labels` is OpenCell's annotation table (then
    `cell_lines` is needed for the join) or anyone's, and `label_names` what its labels are called;
    `conditions` a table or a plate map, whose columns become coordinates. `reader` replaces the
    TIFF reader.
    Raises `SourceError`, `ConfigError`, `ChannelError`, `StoreError` or `LockedError` before
    anything is written; a bad file afterwards gets an `error` in its row.
    """
    config = config or IngestConfig()
    location = Location.of(store)
    document.check_target(location)
    complete(location, GROUP)
    found = find.find(
        source,
        manifest=manifest,
        channels=config.channels or _channels_before(location),
        pattern=config.pattern,
        project=config.project,
        unsigned=unsigned,
        selection=Selection(config.only, config.genes, config.limit),
    )
    said = tables.read_all(labels, cell_lines, conditions, label_names)
    for table in said:
        table.need_match(found)
    notes: list[str] = []
    # What makes a new store impossible is refused before anything is written.
    first = None if document.is_store(location) else shape_of(found, config, unsigned, reader)

    def make(before: Before) -> AnyPlan:
        notes.clear()
        settings = _over(config, before)
        if before.group is None:
            shape = first or shape_of(found, settings, unsigned, reader)
            notes.extend((*found.notes, *shape.notes))
            old = catalog.EMPTY
        else:
            shape, old = _shape_in(before, settings), catalog.stored(before.group)
        rows = catalog.merge(old, found, _same_file(before, old))
        for table in said:
            rows, matched = catalog.label(rows, table)
            notes.extend(matched)
        work = ReadImages(
            location, shape.channels, shape.dtype, shape.height, shape.width, settings.axes,
            settings.project, shape.file_pixel_um, settings.dtype is not None, settings.lossy,
            unsigned, reader,
        )  # fmt: skip
        return _plan(before, shape, settings, rows, work, rehash)

    outcome = carry_out(location, GROUP, make, run, overwrite=overwrite, creates=True)
    summary = outcome.summary
    summary.notes[:0] = notes
    if first is not None and summary.rows_failed == summary.rows and not summary.failures:
        objects.remove(location, "")  # this run made it, and it holds nothing
        raise SourceError(
            f"none of the {summary.rows} images can be read; the first, {found[0].fov}: "
            f"{outcome.columns['error'][0]}. No store was made"
        )
    return summary


def _plan(
    before: Before,
    shape: Shape,
    config: IngestConfig,
    rows: Catalog,
    work: ReadImages,
    rehash: bool,
) -> Plan[Sequence[Job], Rows, Rows]:
    shard = config.shard_fovs or _shard_fovs(shape, len(rows))
    attrs = _attrs(shape, config, shard, before)
    held = {name: _held(before, name, len(rows)) for name in HELD}
    error = before.column("error")
    failed, again = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    if error is not None:
        failed[: len(error)] = (error != "") & (error != PENDING)
        again[: len(error)] = [str(text) in PASSED for text in error]
        again &= [one is not None for one in rows.sources]
    identities = [
        _identity(one, int(held["source_digest"][row]), int(held["source_hash"][row]), rehash)
        for row, one in enumerate(rows.sources)
    ]

    def kept(row: int) -> bool:
        # A file that failed is read again when its block is: its trouble may be over.
        same = int(held["source_digest"][row]) == identities[row] and not failed[row]
        return int(held[ROW_DIGEST][row]) != 0 and (same or rows.sources[row] is None)

    spans = [range(start, min(start + shard, len(rows))) for start in range(0, len(rows), shard)]
    coords = rows.arrays()
    channels = _channels(shape) if before.group is None else {}
    template = fovs.template(
        len(rows), len(shape.channels.roles), shape.height, shape.width, shape.dtype, shard
    )
    template |= {name: Variable.like(dims, values) for name, (dims, values) in coords.items()}
    template |= {name: Variable.like(dims, values) for name, (dims, values) in channels.items()}
    if rows.labels:
        template["grade"] = replace(template["grade"], attrs={"long_name": fovs.GRADES})
    return Plan(
        attrs,
        template,
        coords={name: values for name, (_, values) in (coords | channels).items()},
        coordinates=(*FIXED, *rows.coords),
        about={"pixel_size_um": shape.pixel_size_um, "shard_fovs": shard},
        work=work,
        columns=COLUMNS,
        parts=[
            Part(
                combine([attrs.fingerprint, *(identities[r] for r in span)]),
                [Job(rows.sources[r], identities[r], kept(r)) for r in span],
            )
            for span in spans
        ],
        again=again,
        block_s=_block_s(rows, shard * _field_bytes(shape)),
    )


def _block_s(rows: Catalog, nbytes: int) -> float | None:
    """Seconds of a block of so many bytes; not known where its files come over a network."""
    there = next((one for one in rows.sources if one is not None), None)
    if there is not None and files.is_remote(there.paths[0]):
        return None
    return nbytes / BYTES_A_SECOND


def _held(before: Before, name: str, rows: int) -> npt.NDArray[np.uint64]:
    """A column of digests as the store has it, 0 for new rows."""
    held = np.zeros(rows, np.uint64)
    column = before.column(name)
    if column is not None:
        held[: len(column)] = column
    return held


def _identity(source: FovSource | None, stored: int, content: int, rehash: bool) -> int:
    if source is None:
        return stored
    if not rehash or source.problem or files.is_remote(source.paths[0]):
        return source.identity
    try:
        found = find.content_hash(source)
    except SourceError:
        return source.identity  # the worker finds out, and says why
    return stored if found == content else combine([source.identity, found])


def _same_file(before: Before, old: Catalog) -> Callable[[int, FovSource], bool]:
    """Whether the source of a row, which lies elsewhere than it did, is the file it was made of.

    It is where name, size and time are the same, where the old file is gone, or where the bytes
    are the same: otherwise two plates whose files bear equal names would replace one another.
    """

    def same(row: int, one: FovSource) -> bool:
        path, _ = files.without_scene(old.source[row].split("|")[0])
        if one.source == old.source[row] or files.is_remote(path) or not os.path.exists(path):
            return True
        if int(digests["source_digest"][row]) == one.identity or one.problem:
            return True
        try:
            return find.content_hash(one) == int(digests["source_hash"][row])
        except SourceError:
            return True

    digests = {name: _held(before, name, len(old)) for name in ("source_digest", "source_hash")}
    return same


def _over(config: IngestConfig, before: Before) -> IngestConfig:
    """The settings that ask for something, over those the store was made with."""
    if before.attrs is None:
        return config
    had = before.attrs.config
    sticky = ("axes", "project", "shard_fovs", "lossy")
    keep = {name: getattr(config, name) or had.get(name, None) for name in sticky}
    keep["lossy"] = bool(keep["lossy"])
    if had.get("any_dtype"):
        keep["dtype"] = config.dtype or had["dtype"]
    return config.model_copy(update=keep)


def _shape_in(before: Before, config: IngestConfig) -> Shape:
    """What the store has, with what the user asks for laid over it."""
    assert before.attrs is not None
    assert before.group is not None
    had = before.attrs.config
    height, width = had["height"], had["width"]
    if config.field_size:
        height, width = map(int, config.field_size.split("x"))
    channels = _stored_channels(had)
    if config.channels:
        asked = tuple(dict.fromkeys(role_of(name.rpartition("=")[2]) for name in config.channels))
        channels = replace(channels, roles=asked)
    pixel: Any = before.group.attrs["pixel_size_um"]
    if config.pixel_size_um and config.pixel_size_um != pixel:
        raise ConfigError(
            f"the store's pixels are {pixel} um, got --pixel-size-um {config.pixel_size_um}: "
            f"`zarrloc annotate STORE --pixel-size-um {config.pixel_size_um}` changes that alone"
        )
    return Shape(
        channels, config.dtype or had["dtype"], height, width, pixel, had.get("file_pixel_um")
    )


def _stored_channels(config: Mapping[str, Any]) -> Channels:
    """Which channel of a file is which role, as the store was made with."""
    by_order = config["named_by"] != "files"
    return Channels(
        tuple(config["channels"]),
        config.get("channel_names", {}),
        by_order,
        config.get("some_channels", False),
        config["named_by"],
    )


def _channels_before(location: Location) -> tuple[str, ...]:
    """What to ask of `find`, so that a field's files are those the store was made of."""
    there = committed(location, GROUP) if document.is_store(location) else None
    config = {} if there is None else stage_attrs(there).config
    if not config.get("some_channels"):
        return ()
    return tuple(f"{name}={role}" for name, role in config["channel_names"].items())


def _attrs(shape: Shape, config: IngestConfig, shard: int, before: Before) -> StageAttrs:
    had = {} if before.attrs is None else before.attrs.config
    settings = {
        "channels": list(shape.channels.roles),
        "named_by": had.get("named_by", shape.channels.origin),
        "channel_names": dict(shape.channels.names),
        "some_channels": shape.channels.some,
        "file_pixel_um": shape.file_pixel_um,
        "any_dtype": config.dtype is not None,
        "lossy": config.lossy,
        "dtype": shape.dtype,
        "height": shape.height,
        "width": shape.width,
        "axes": config.axes,
        "project": config.project,
        "background": background.METHOD,
        "shard_fovs": shard,
    }
    return StageAttrs.of(
        "ingest", settings, {}, block_rows=shard, array="image", digested=list(DIGESTED)
    )


def _shard_fovs(shape: Shape, rows: int) -> int:
    """Fields in a shard: as many as it holds well, but so few that every core has some to do."""
    most = min(MOST_SHARD_FOVS, SHARD_BYTES // _field_bytes(shape))
    return max(1, min(most, max(LEAST_SHARD_FOVS, -(-rows // (SHARDS_A_CORE * cores())))))


def _field_bytes(shape: Shape) -> int:
    return len(shape.channels.roles) * shape.height * shape.width * np.dtype(shape.dtype).itemsize


Arrays = dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]]
"""Name -> dims, values."""


def _channels(shape: Shape) -> Arrays:
    """What is known of each channel."""
    unknown = opencell.Stain("", 0, "#ffffff")
    roles = shape.channels.roles
    stains = [opencell.STAINS.get(role, unknown) for role in roles]
    if shape.channels.origin != "opencell":
        stains = [opencell.Stain("", 0, stain.color) for stain in stains]
    return {
        "channel": (("channel",), _text(roles)),
        "stain": (("channel",), _text([stain.stain for stain in stains])),
        "color": (("channel",), _text([stain.color for stain in stains])),
        "excitation_nm": (("channel",), np.array([s.excitation_nm for s in stains], np.int32)),
    }


def _text(values: Sequence[str]) -> npt.NDArray[Any]:
    return np.array(list(values), np.dtypes.StringDType())


def failures(store: str | Path) -> str:
    """A table of the FOVs that could not be read, and why."""
    group = need(Location.of(store), GROUP, "ingest SOURCE STORE")
    error = read_column(group, "error")
    bad = np.flatnonzero((error != "") & (error != PENDING))
    source = read_column(group, "source")
    names = files.without_folder([str(path) for path in source], bad)
    width = max(map(len, names), default=0)
    return "\n".join(f"{name:{width}}  {error[row]}" for name, row in zip(names, bad, strict=True))
