"""What SOURCE means: a folder, glob, manifest or object-store prefix as a list of FOV sources."""

import dataclasses
import functools
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from xxhash import xxh3_64

from zarrloc.errors import SourceError
from zarrloc.images import cellprofiler, files, formats, opencell, plates, tables, tokens
from zarrloc.images.fields import FovSource, Kind, Part, identity, joined, stem, told_apart
from zarrloc.images.files import File
from zarrloc.images.patterns import Pattern, is_pattern, split_pattern
from zarrloc.images.select import ALL, Selection, logged

# Masks that tools (our simulator among them) lay beside OpenCell's images.
_DERIVED = re.compile(r"OC-FOV_.+_(cells|nuclei|masks?|seg)\.tiff?", re.IGNORECASE)


CHANGED = "was changed while it was read; run the same command again"


class Fields(list[FovSource]):
    """Fields of view, and what was understood of their names."""

    def __init__(self, fields: Iterable[FovSource], notes: Iterable[str] = ()) -> None:
        super().__init__(fields)
        self.notes = tuple(notes)


def find(
    source: str | Path | None,
    *,
    manifest: str | Path | None = None,
    channels: Sequence[str] = (),
    pattern: str | None = None,
    project: str | None = None,
    unsigned: bool = False,
    selection: Selection = ALL,
) -> Fields:
    """List the fields of view of SOURCE, in the order of their file names.

    `source` is a TIFF, a folder (searched recursively), a glob, a glob with fields such as
    `{channel}` and `{z}` (see `patterns.Pattern`), an object-store prefix (`unsigned` for a public
    one), or a manifest CSV; `pattern` says what the names below `source` mean. Names that
    microscopes give, and names that differ only in a word for the channel or the plane, are
    understood without. A manifest has `path`, maybe `channel`, `z` and `fov`; other columns become
    coords; its paths are relative to it, or to `source` where that is given too. CellProfiler's
    image tables are manifests, too. Where OpenCell's projection and stack of one field are both
    there, the projection counts, with `project` the stack. `selection` takes some of them. The
    progress of a long listing is logged. Raises SourceError where nothing is found.
    """
    images = partial(_images, unsigned=unsigned, selection=selection)
    text = "" if source is None else os.fspath(source)
    if manifest is None and text.lower().endswith(".csv"):
        manifest, text = text, ""
    notes: list[str] = []
    if manifest is not None:
        found = _from_manifest(Path(manifest), text, channels, unsigned)
        text = os.fspath(manifest)
    elif pattern is not None:
        found = _from_pattern(pattern, images(text), channels, notes)
    elif is_pattern(text):
        where, named = split_pattern(text)
        listed = list(images(where))
        fields = Pattern(named).fields
        by_vendor = plates.recognise(listed, unsigned=unsigned)
        if fields == ("channel",) and by_vendor.parts and not by_vendor.rest:
            found, notes = joined(by_vendor.parts, channels), list(by_vendor.notes)
        else:
            found = _from_pattern(named, listed, channels, notes)
    else:
        found = _understood(list(images(text)), channels, project, unsigned, notes)
    found = selection.of(found)
    if not found:
        why = notes[0] if notes else "holds no image (TIFF, PNG, OME-Zarr, CZI, LIF, ND2)"
        raise SourceError(f"{text}: {why}")
    by_name = sorted(found, key=lambda one: (_name(one.paths[0]), one.paths))[: selection.limit]
    return Fields(told_apart(by_name), notes)


def _understood(
    listed: Sequence[File],
    channels: Sequence[str],
    project: str | None,
    unsigned: bool,
    notes: list[str],
) -> list[FovSource]:
    """Fields of files whose names nobody explained: by vendor, by a word, else one a file."""
    held, rest = _of_containers(listed, unsigned)
    known = [file for file in rest if opencell.parse_name(file.name)]
    others = [file for file in rest if not opencell.parse_name(file.name)]
    by_vendor = plates.recognise(others, unsigned=unsigned)
    notes += by_vendor.notes
    parts, rest = tokens.by_channel(by_vendor.rest, lambda file: _holds_one(file, unsigned))
    if parts:
        words = ", ".join(sorted({part.channel for part in parts}))
        notes.append(f"{len(parts)} files differ in a word for their channel: {words}")
    alone = [Part(file, stem(file.name), file.uri.rpartition("/")[0]) for file in rest]
    parts, alone = tokens.by_plane(parts), tokens.by_plane(alone)
    planes = [part for part in alone if part.plane]
    if planes or any(part.plane for part in parts):
        notes.append("files differ in a number for their z plane: they are planes of one field")
    whole = [_whole(part.file) for part in alone if not part.plane]
    anyones = [*joined(parts, channels), *joined(planes), *whole]
    return [
        *held,
        *map(_whole, _one_kind(known, project)),
        *joined(by_vendor.parts, channels),
        *tokens.with_wells(anyones),
    ]


def _holds_one(file: File, unsigned: bool) -> bool:
    """Whether a file holds one channel, as far as its header can be read."""
    try:
        return formats.header(file.uri, unsigned=unsigned).size("C") == 1
    except SourceError:
        return True


def content_hash(source: FovSource, *, unsigned: bool = False) -> int:
    """xxh3-64 over the bytes of a field's files, for where mtimes can't be trusted (--rehash).

    Raises SourceError where one cannot be read.
    """
    digest = xxh3_64()
    for uri in (part for path in source.paths for part in formats.contents(path)):
        digest.update(files.data(uri, unsigned=unsigned))
    return digest.intdigest() or 1


def refuse_changed(source: FovSource, *, unsigned: bool = False) -> None:
    """Compare a field's files with what was listed: to be called when all of them were read.

    Raises
    ------
    SourceError
        Where one was changed, replaced or removed meanwhile: what was read may be of two versions.
    """
    parts = (part for path in source.paths for part in formats.contents(path))
    found = [files.stat(uri, unsigned=unsigned) for uri in parts]
    # Without an ETag, a list's times may be finer than those of a single object.
    known = all(not files.is_remote(file.uri) or file.has_etag for file in found)
    if known and identity(found) != source.identity:
        raise SourceError(CHANGED)


def _images(source: str, *, unsigned: bool, selection: Selection) -> Iterator[File]:
    remote = files.is_remote(source)
    if formats.is_other(source.rstrip("/")) and (remote or os.path.isdir(source)):
        yield File(files.absolute(source.rstrip("/")))
        return
    if remote and not formats.is_plain(source):
        roots = selection.roots(source, unsigned=unsigned)
        listed: Iterable[File] = chain.from_iterable(
            files.walk(root, unsigned=unsigned) for root in roots
        )
    elif os.path.isdir(source):
        listed = files.walk(source)
    elif glob.has_magic(source) and not remote and not os.path.exists(source):
        listed = map(_stat, sorted(glob.iglob(_glob(source), recursive=True)))
    else:
        single = files.stat(source, unsigned=unsigned)
        if single.problem:
            raise SourceError(f"{source or 'SOURCE'}: {single.problem}")
        yield single
        return
    taken = (
        file
        for file in logged(listed, source)
        if (formats.is_plain(file.name) or formats.is_other(file.name))
        and not _DERIVED.fullmatch(file.name)
        and not plates.THUMBNAIL.fullmatch(file.name)
        and selection.takes(file)
    )
    yield from _without_pictures(selection.enough(taken) if remote else taken, source)


def _without_pictures(found: Iterable[File], source: str) -> list[File]:
    """The images: PNGs beside files of other kinds are pictures of something else."""
    every = list(found)
    if source.lower().endswith(".png"):
        return every
    images = [file for file in every if not formats.is_picture(file.name)]
    return images or every


def _stat(uri: str) -> File:
    if uri.rstrip("/").lower().endswith(".zarr") and os.path.isdir(uri):
        return File(files.absolute(uri))
    return files.stat(uri)


def _of_containers(listed: Sequence[File], unsigned: bool) -> tuple[list[FovSource], list[File]]:
    """Fields of the files that may hold several images, and the files that none of them names."""
    found: list[FovSource] = []
    named: set[str] = set()
    for file in listed:
        if not formats.is_other(file.name):
            continue
        try:
            mine = formats.fields(file.uri, unsigned=unsigned)
        except SourceError as error:
            problem = file.problem or str(error)
            fov = file.name.partition(".")[0]
            mine = [FovSource(fov, (file.uri,), identity([file]), "image", problem=problem)]
        named |= {uri for one in mine for path in one.paths for uri in formats.contents(path)}
        found += mine
    rest = [f for f in listed if not formats.is_other(f.name) and f.uri not in named]
    return found, rest


def _one_kind(found: Iterable[File], project: str | None) -> list[File]:
    found = list(found)
    names = {file.uri: opencell.parse_name(file.name) for file in found}
    wanted = "stack" if project else "proj"
    there = {name.fov for name in names.values() if name and name.kind == wanted}

    def counts(file: File) -> bool:
        name = names[file.uri]
        return name is None or name.kind == wanted or name.fov not in there

    return list(filter(counts, found))


def _whole(file: File) -> FovSource:
    name = opencell.parse_name(file.name)
    if name is None:
        return FovSource(
            stem(file.name), (file.uri,), identity([file]), "image", problem=file.problem
        )
    coords = {"protein": name.gene, "ensg": name.ensg, "cell_line": name.cell_line}
    kind: Kind = "opencell-proj" if name.kind == "proj" else "opencell-stack"
    return FovSource(name.fov, (file.uri,), identity([file]), kind, coords, problem=file.problem)


def _from_manifest(
    manifest: Path, base: str, channels: Sequence[str], unsigned: bool
) -> list[FovSource]:
    table = tables.read(manifest)
    if cellprofiler.is_image_table(table):
        resolved = functools.partial(_resolved, folder=manifest.parent, base=base)
        return joined(cellprofiler.parts(table, resolved, unsigned=unsigned), channels)
    table.require("path")
    coords = table.coords({"path", "channel", "fov", "z", *tables.LABEL_COLUMNS})
    whole, parts = [], []
    for row in table.rows:
        if not row.cells["path"]:
            raise SourceError(f"{manifest}: line {row.line} has no path")
    uris = [_resolved(row.cells["path"], manifest.parent, base) for row in table.rows]
    for row, file in zip(table.rows, files.stats(uris, unsigned=unsigned), strict=True):
        values = {name: row.cells[name] for name in coords}
        fov, channel, plane = (row.cells.get(name, "") for name in ("fov", "channel", "z"))
        if channel:
            name = fov or _without(file.name, channel)
            folder = "" if fov else os.path.dirname(file.uri)
            parts.append(Part(file, name, folder, channel, plane, values, given=bool(fov)))
        elif plane:
            if not fov:
                raise SourceError(
                    f"{manifest}: line {row.line} has a z and no fov; give the manifest a column "
                    "fov, which says what planes belong together"
                )
            parts.append(Part(file, fov, "", "", plane, values, given=True))
        else:
            one = _whole(file)
            coords_of = one.coords | values
            named = bool(fov)
            whole.append(
                dataclasses.replace(one, fov=fov or one.fov, coords=coords_of, given=named)
            )
    if not table.rows:
        raise SourceError(f"{manifest}: lists no file")
    clash = len({(one.fov, one.channel, one.plane) for one in parts}) < len(parts)
    if not clash:  # channels may lie in folders of their own
        parts = [dataclasses.replace(one, folder="") for one in parts]
    return whole + joined(parts, channels)


def _resolved(path: str, folder: Path, base: str) -> str:
    if files.is_remote(path):
        return path
    if files.is_remote(base):
        return f"{base.rstrip('/')}/{path}"
    beside = folder / path
    return os.fspath(beside if beside.exists() or not base else Path(base) / path)


def _from_pattern(
    pattern: str, found: Iterable[File], channels: Sequence[str], notes: list[str]
) -> list[FovSource]:
    listed = list(found)
    parts = Pattern(pattern).parts(listed)
    if len(parts) < len(listed):
        unlike = next(f for f in listed if f.uri not in {part.file.uri for part in parts})
        notes.append(
            f"{len(listed) - len(parts)} of {len(listed)} files do not match {pattern!r}, such as "
            f"{unlike.name}"
        )
    return joined(tokens.by_plane(parts), channels)


def _without(name: str, channel: str) -> str:
    """What is left of a base name when its channel is taken out: the name of the field."""
    bare = stem(name)
    before, found, after = bare.lower().rpartition(channel.lower())
    if not found:
        raise SourceError(
            f"{name}: its name does not hold its channel {channel!r}, so the field it belongs to "
            "is unknown; give the manifest a column fov"
        )
    return bare[: len(before)].rstrip("_-. ") + bare[len(bare) - len(after) :]


def _glob(pattern: str) -> str:
    """The pattern with brackets that stand in the name of a folder taken literally."""
    folder, rest = "", pattern
    while "/" in rest:
        first, _, tail = rest.partition("/")
        if not glob.has_magic(first) or not os.path.isdir(folder + first):
            if glob.has_magic(first):
                break
            folder, rest = f"{folder}{first}/", tail
            continue
        folder, rest = f"{folder}{first}/", tail
    return glob.escape(folder) + rest


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
