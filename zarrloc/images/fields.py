"""One way from files to fields of view: a field is one file, or one a channel, a plane, or both."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from zarrloc.images.files import File
from zarrloc.images.roles import natural, wanted_channels
from zarrloc.store.digest import combine

Kind = Literal["opencell-proj", "opencell-stack", "image", "per-channel"]


@dataclass(frozen=True)
class FovSource:
    """Where one field of view comes from.

    `paths` holds one file, or several: one a channel with their names in `channels`, one a z plane
    with their numbers in `planes`, or both. `identity` (uint64, never 0) changes when a base name,
    a size or an mtime (ETag) does. `problem` is not empty where the field cannot be read at all;
    `duplicate_of` is then the file that came first.
    """

    fov: str
    paths: tuple[str, ...]
    identity: int
    kind: Kind
    coords: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    problem: str = ""
    duplicate_of: str | None = None
    short: str = ""
    """The name before as much of the path was added as tells it apart; empty where none was."""
    given: bool = False
    """The user gave the name: it is never changed."""
    pixel_size_um: float | None = None
    """Pixel size from an index beside the files."""

    @property
    def source(self) -> str:
        """The addresses, as the store keeps them."""
        return "|".join(self.paths)


@dataclass(frozen=True)
class Part:
    """One file of a field: what its name, an index beside it, or a table says of it."""

    file: File
    fov: str
    folder: str = ""
    """Fields of one name are one field only within the same folder."""
    channel: str = ""
    plane: str = ""
    coords: dict[str, str] = field(default_factory=dict)
    given: bool = False
    pixel_size_um: float | None = None


def joined(parts: Iterable[Part], channels: Sequence[str] = ()) -> list[FovSource]:
    """Fields of several files each; `channels`, where given, says which count."""
    parts = list(parts)
    there = sorted({part.channel for part in parts if part.channel}, key=natural)
    wanted = wanted_channels(channels, there)
    by_fov: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        if not part.channel or part.channel in wanted:
            by_fov.setdefault((part.folder, part.fov), []).append(part)
    return [_field(group, wanted) for group in by_fov.values()]


def _field(parts: Sequence[Part], wanted: dict[str, str]) -> FovSource:
    parts = sorted(
        parts, key=lambda part: (list(wanted).index(part.channel) if part.channel else 0,
                                 natural(part.plane), part.file.uri)
    )  # fmt: skip
    first = parts[0]
    names = tuple(part.channel for part in parts)
    return FovSource(
        first.fov,
        tuple(part.file.uri for part in parts),
        identity(part.file for part in parts),
        "per-channel" if first.channel else "image",
        first.coords,
        names if first.channel else (),
        tuple(part.plane for part in parts) if any(part.plane for part in parts) else (),
        problem="; ".join(_problems(parts, wanted)),
        given=first.given,
        pixel_size_um=first.pixel_size_um,
    )


def _problems(parts: Sequence[Part], wanted: dict[str, str]) -> Iterable[str]:
    yield from (f"{part.file.name}: {part.file.problem}" for part in parts if part.file.problem)
    there = {part.channel: wanted.get(part.channel, "") for part in parts}
    missing = sorted(set(wanted.values()) - set(there.values()))
    if missing:
        yield f"has no file for channel {', '.join(missing)}"
    places = Counter((there[part.channel], part.plane) for part in parts)
    twice = {place for place, count in places.items() if count > 1}
    if twice:
        names = [p.file.name for p in parts if (there[p.channel], p.plane) in twice]
        yield f"has two files for one {_called(next(iter(twice)))} ({', '.join(names)})"
    planes = {channel: {p.plane for p in parts if p.channel == channel} for channel in there}
    every = set().union(*planes.values())
    for channel, some in planes.items():
        if len(some) < len(every) and not twice:
            lost = ", ".join(sorted(every - some, key=natural))
            yield f"has no file for plane {lost or 'any'} of channel {channel}"
    if any(part.coords != parts[0].coords for part in parts):
        yield "has rows in the manifest that differ in more than path and channel"


def _called(place: tuple[str, str]) -> str:
    role, plane = place
    return ("channel" if role else "field") + (" and plane" if plane else "")


def told_apart(found: Sequence[FovSource]) -> list[FovSource]:
    """Fields of equal names, named by as much of their paths as tells them apart.

    Names that the user gave, and OpenCell's, stay: a second field of such a name is a problem.
    """
    by_name: dict[str, list[int]] = {}
    for place, one in enumerate(found):
        if not one.given and not one.kind.startswith("opencell"):
            by_name.setdefault(one.fov, []).append(place)
    named = list(found)
    for places in by_name.values():
        if len(places) > 1:
            names = _longer([named[place] for place in places])
            for place, name in zip(places, names, strict=True):
                one = named[place]
                named[place] = dataclasses.replace(one, fov=name, short=one.short or one.fov)
    return _flag_duplicates(named)


def _longer(fields: Sequence[FovSource]) -> list[str]:
    folders = [PurePosixPath(one.paths[0]).parent.parts for one in fields]
    ends = [one.fov for one in fields]
    if len(set(zip(folders, ends, strict=True))) < len(fields):  # x.tif beside x.TIFF
        ends = [PurePosixPath(one.paths[0]).name for one in fields]
    for depth in range(max(map(len, folders)) + 1):
        names = [
            "/".join((*(folder[-depth:] if depth else ()), end))
            for folder, end in zip(folders, ends, strict=True)
        ]
        if len(set(names)) == len(names):
            return names
    return ends


def further(one: FovSource, taken: set[str]) -> FovSource:
    """The field under a name that is not taken: with more and more of its path."""
    folders = PurePosixPath(one.paths[0]).parent.parts
    for depth in range(1, len(folders) + 1):
        name = "/".join((*folders[-depth:], one.short or one.fov))
        if name not in taken:
            return dataclasses.replace(one, fov=name, short=one.short or one.fov)
    return one


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


def identity(parts: Iterable[File]) -> int:
    """What changes when a base name, a size or a time (ETag) of a file does; never 0."""
    return combine(text for part in parts for text in (part.name, part.size, part.stamp))


def stem(name: str) -> str:
    """A base name without `.tif`, `.tiff`, `.ome.tif`, `.png`."""
    return re.sub(r"((\.ome)?\.tiff?|\.png)$", "", name, flags=re.IGNORECASE)
