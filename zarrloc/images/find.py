"""What SOURCE means: a folder, glob, manifest or object-store prefix as a list of FOV sources."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xxhash import xxh3_64

from zarrloc.errors import SourceError
from zarrloc.images import files, opencell, tables
from zarrloc.images.files import File
from zarrloc.images.roles import role_of
from zarrloc.store.digest import combine

Kind = Literal["opencell-proj", "opencell-stack", "image", "per-channel"]

# Masks that tools (our simulator among them) lay beside OpenCell's images.
_DERIVED = re.compile(r"OC-FOV_.+_(cells|nuclei|masks?|seg)\.tiff?", re.IGNORECASE)


@dataclass(frozen=True)
class FovSource:
    """Where one field of view comes from.

    `paths` holds one file, or one a channel with their names in `channels`. `identity` (uint64,
    never 0) changes when a base name, a size or an mtime (ETag) does. `problem` is not empty
    where the field cannot be read at all; `duplicate_of` is then the file that came first.
    """

    fov: str
    paths: tuple[str, ...]
    identity: int
    kind: Kind
    coords: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    problem: str = ""
    duplicate_of: str | None = None


def find(
    source: str | Path | None,
    *,
    manifest: str | Path | None = None,
    channels: Sequence[str] = (),
    project: str | None = None,
    unsigned: bool = False,
) -> list[FovSource]:
    """List the fields of view of SOURCE, in the order of their file names.

    `source` is a TIFF, a folder (searched recursively), a glob, a glob with `{channel}` in the
    base name (one file a channel), an object-store prefix (`unsigned` for a public one), or a
    manifest CSV. A manifest has `path`, maybe `channel` and `fov`; other columns become coords;
    its paths are relative to it, or to `source` where that is given too. Where OpenCell's
    projection and stack of one field are both there, the projection counts, with `project` the
    stack. Raises SourceError where nothing is found.
    """
    text = "" if source is None else os.fspath(source)
    if manifest is None and text.lower().endswith(".csv"):
        manifest, text = text, ""
    if manifest is not None:
        found = _from_manifest(Path(manifest), text, channels, unsigned)
        text = os.fspath(manifest)
    elif "{channel}" in text:
        found = _from_pattern(text, channels)
    else:
        found = list(map(_whole, _one_kind(_images(text, unsigned), project)))
    if not found:
        raise SourceError(f"{text}: holds no .tif or .tiff file")
    return _flag_duplicates(sorted(found, key=lambda one: (_name(one.paths[0]), one.paths)))


def content_hash(source: FovSource, *, unsigned: bool = False) -> int:
    """xxh3-64 over the bytes of a field's files, for where mtimes can't be trusted (--rehash).

    Raises SourceError where one cannot be read.
    """
    digest = xxh3_64()
    for uri in source.paths:
        digest.update(files.data(uri, unsigned=unsigned))
    return digest.intdigest() or 1


def _images(source: str, unsigned: bool) -> Iterator[File]:
    remote = files.is_remote(source)
    if os.path.isdir(source) or (remote and not _is_tiff(source)):
        listed = files.walk(source, unsigned=unsigned)
    elif glob.has_magic(source) and not remote and not os.path.exists(source):
        listed = map(files.stat, glob.iglob(source, recursive=True))
    else:
        single = files.stat(source, unsigned=unsigned)
        if single.problem:
            raise SourceError(f"{source or 'SOURCE'}: {single.problem}")
        yield single
        return
    yield from (
        file for file in listed if _is_tiff(file.name) and not _DERIVED.fullmatch(file.name)
    )


def _is_tiff(name: str) -> bool:
    return name.lower().endswith((".tif", ".tiff"))


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
            _stem(file.name), (file.uri,), _identity([file]), "image", problem=file.problem
        )
    coords = {"protein": name.gene, "ensg": name.ensg, "cell_line": name.cell_line}
    kind: Kind = "opencell-proj" if name.kind == "proj" else "opencell-stack"
    return FovSource(name.fov, (file.uri,), _identity([file]), kind, coords, problem=file.problem)


def _from_manifest(
    manifest: Path, base: str, channels: Sequence[str], unsigned: bool
) -> list[FovSource]:
    table = tables.read(manifest)
    table.require("path")
    coords = table.coords({"path", "channel", "fov", *tables.LABEL_COLUMNS})
    whole, parts = [], []
    for row in table.rows:
        if not row.cells["path"]:
            raise SourceError(f"{manifest}: line {row.line} has no path")
        file = files.stat(_resolved(row.cells["path"], manifest.parent, base), unsigned=unsigned)
        values = {name: row.cells[name] for name in coords}
        fov, channel = row.cells.get("fov", ""), row.cells.get("channel", "")
        if channel:
            parts.append(_Part(fov or _without(file.name, channel), channel, file, values))
        else:
            one = _whole(file)
            whole.append(dataclasses.replace(one, fov=fov or one.fov, coords=one.coords | values))
    if not table.rows:
        raise SourceError(f"{manifest}: lists no file")
    return whole + _joined(parts, channels)


def _resolved(path: str, folder: Path, base: str) -> str:
    if files.is_remote(path):
        return path
    if files.is_remote(base):
        return f"{base.rstrip('/')}/{path}"
    beside = folder / path
    return os.fspath(beside if beside.exists() or not base else Path(base) / path)


def _from_pattern(pattern: str, channels: Sequence[str]) -> list[FovSource]:
    base = os.path.basename(pattern)
    if base.count("{channel}") != 1 or "{channel}" in os.path.dirname(pattern):
        raise SourceError(f"{pattern}: {{channel}} must stand once, in the base name")
    regex = re.escape(base).replace(r"\*", ".*").replace(r"\?", ".")
    name_of = re.compile(regex.replace(r"\{channel\}", "(?P<channel>.+?)"))
    parts = []
    for path in sorted(glob.iglob(pattern.replace("{channel}", "*"), recursive=True)):
        file = files.stat(path)
        match = name_of.fullmatch(file.name)
        if match:
            channel = match["channel"]
            parts.append(_Part(_without(file.name, channel), channel, file, {}))
    return _joined(parts, channels)


@dataclass(frozen=True)
class _Part:
    """One channel's file of a field."""

    fov: str
    channel: str
    file: File
    coords: dict[str, str]


def _without(name: str, channel: str) -> str:
    """What is left of a base name when its channel is taken out: the name of the field."""
    stem = _stem(name)
    before, found, after = stem.lower().rpartition(channel.lower())
    if not found:
        raise SourceError(
            f"{name}: its name does not hold its channel {channel!r}, so the field it belongs to "
            "is unknown; give the manifest a column fov"
        )
    return stem[: len(before)].rstrip("_-. ") + stem[len(stem) - len(after) :]


def _joined(parts: Sequence[_Part], channels: Sequence[str]) -> list[FovSource]:
    """Fields of one file a channel; `channels`, where given, says which count."""
    wanted = tuple(dict.fromkeys(map(role_of, channels or [part.channel for part in parts])))
    by_fov: dict[str, list[_Part]] = {}
    for part in parts:
        if role_of(part.channel) in wanted:
            by_fov.setdefault(part.fov, []).append(part)
    return [_per_channel(fov, group, wanted) for fov, group in by_fov.items()]


def _per_channel(fov: str, parts: Sequence[_Part], wanted: Sequence[str]) -> FovSource:
    parts = sorted(parts, key=lambda part: wanted.index(role_of(part.channel)))
    roles = [role_of(part.channel) for part in parts]
    missing = [role for role in wanted if role not in roles]
    problems = [f"{part.file.name}: {part.file.problem}" for part in parts if part.file.problem]
    if missing:
        problems.append(f"has no file for channel {', '.join(missing)}")
    if len(roles) > len(set(roles)):
        names = ", ".join(part.file.name for part in parts)
        problems.append(f"has two files for one channel ({names})")
    if any(part.coords != parts[0].coords for part in parts):
        problems.append("has rows in the manifest that differ in more than path and channel")
    return FovSource(
        fov,
        tuple(part.file.uri for part in parts),
        _identity([part.file for part in parts]),
        "per-channel",
        parts[0].coords,
        tuple(part.channel for part in parts),
        problem="; ".join(problems),
    )


def _flag_duplicates(found: Iterable[FovSource]) -> list[FovSource]:
    first: dict[str, FovSource] = {}
    flagged = []
    for one in found:
        original = first.setdefault(one.fov, one)
        if original is not one:
            problem = (
                f"is a second {one.fov}: {original.paths[0]} came first; remove one, or tell them "
                "apart in the column fov of a --manifest"
            )
            one = dataclasses.replace(one, problem=problem, duplicate_of=original.paths[0])
        flagged.append(one)
    return flagged


def _identity(parts: Iterable[File]) -> int:
    return combine(text for part in parts for text in (part.name, part.size, part.stamp))


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    return re.sub(r"(\.ome)?\.tiff?$", "", name, flags=re.IGNORECASE)
