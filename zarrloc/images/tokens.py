"""Files named by hand: which differ only in a word for the channel, the plane or the folder."""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zarrloc.images import files, wells
from zarrloc.images.fields import FovSource, Part, stem
from zarrloc.images.files import File
from zarrloc.images.roles import means

_SEPARATORS = re.compile(r"([_\-. ,()\[\]]+)")
_STAINS = (
    r"alexa|(?:alexa|af)\d{3}|cy[2357]|(?:m|td|e|t)?(?:cherry|tomato|rfp|bfp|cfp|yfp|venus|ruby)"
    r"|tritc|rhodamine|texasred|txred|mitotracker\w*|syto\d*|wga|cona|agp|rna|lyso\w*|edu|brdu|ki67"
    r"|dic|phase|phasecontrast|tl|trans|pol|blue|green|red|yellow|farred|far_red|uv"
)
_WAVES = r"(?:4[0-9]{2}|5[0-9]{2}|6[0-9]{2}|7[0-9]{2})(?:nm)?|(?:ex|em)\d{3}"
_NUMBERED = r"(?:wv|w|ch|channel)\d{1,2}|c\d"
MOST_CHANNELS = 8
_METAMORPH = r"w\d[a-z][a-z0-9]*"  # `w1DAPI`
_CHANNEL = re.compile(rf"{_STAINS}|{_WAVES}|{_NUMBERED}|{_METAMORPH}", re.IGNORECASE)
_PLANE = re.compile(r"(?:z|zstep|slice|plane)0*(\d{1,3})", re.IGNORECASE)
_SITE = re.compile(r"(?:s|f|fld|site|field|fov|pos|xy)0*(\d{1,4})", re.IGNORECASE)
_WELL = re.compile(r"[A-P]\d{2}|A[A-F]\d{2}")
_TAGGED = re.compile(r"(w\d)([a-z][a-z0-9]*)", re.IGNORECASE)


def is_channel(word: str) -> bool:
    """Whether a word of a name may stand for a channel."""
    return means(word) is not None or _CHANNEL.fullmatch(word) is not None


def by_channel(
    found: Sequence[File], holds_one: Callable[[File], bool]
) -> tuple[list[Part], list[File]]:
    """Parts of fields whose files differ only in a channel's word, and the other files.

    `holds_one` says of a file whether it holds one channel: others are images of their own, and
    `c1` in their names is a condition.
    """
    for words in (_in_names, _in_folders):
        grouped: dict[tuple[str, str], dict[str, File]] = defaultdict(dict)
        choices = {file.uri: list(words(file)) for file in found}
        for file in found:
            for folder, fov, word in choices[file.uri]:
                grouped[folder, fov][word] = file
        parts = []
        channels: set[str] = set()
        for file in found:
            best = max(choices[file.uri], key=lambda one: _worth(one, grouped), default=None)
            if best is None:
                continue
            folder, fov, word = best
            if len(grouped[folder, fov]) > 1:
                channels.add(word)
            parts.append(Part(file, fov, folder, _label(word)))
        parts = [part for part in parts if part.channel in set(map(_label, channels))]
        if (
            1 < len(channels) <= MOST_CHANNELS
            and 2 * len(parts) >= len(found)
            and (words is _in_names or _are_stains(channels))
            and all(holds_one(file) for file in _one_each(parts))
        ):
            taken = {part.file.uri for part in parts}
            return parts, [file for file in found if file.uri not in taken]
    return [], list(found)


def _worth(choice: tuple[str, str, str], grouped: Mapping[Any, Mapping[str, File]]) -> Any:
    """Sort key of words that may be the channel: a stain, then the word that varies most."""
    folder, fov, word = choice
    several = len(grouped[folder, fov])
    return several > 1, re.fullmatch(_NUMBERED, word, re.IGNORECASE) is None, several


def _are_stains(words: Iterable[str]) -> bool:
    """Whether folders are channels rather than classes: one is a nucleus, or all have numbers."""
    return any(means(word) == "nucleus" for word in words) or all(
        re.fullmatch(rf"{_NUMBERED}|{_WAVES}", word, re.IGNORECASE) for word in words
    )


def by_plane(parts: Sequence[Part]) -> list[Part]:
    """The parts with their planes, where fields differ only in a word such as `z03`."""
    split = [(part, *_without_plane(part.fov)) for part in parts]
    planes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for part, fov, plane in split:
        if plane:
            planes[part.folder, fov].add(plane)
    return [
        dataclasses.replace(part, fov=fov, plane=plane)
        if plane and not part.plane and len(planes[part.folder, fov]) > 1
        else part
        for part, fov, plane in split
    ]


def with_wells(found: Sequence[FovSource]) -> list[FovSource]:
    """The fields with plate, well and site as coordinates, where all their names hold a well."""
    said = [_well_and_site(one) for one in found]
    if len({s["well"] for s in said if s}) < 2 or not all(said):
        return list(found)
    return [
        dataclasses.replace(one, coords={**coords, **one.coords})
        for one, coords in zip(found, said, strict=True)
    ]


def _well_and_site(one: FovSource) -> dict[str, str]:
    words = _SEPARATORS.split(one.short or one.fov)[::2]
    named = [word for word in words if _WELL.fullmatch(word)]
    if len(named) != 1 or wells.name_of(named[0]) is None:
        return {}
    sites = [match[1] for word in words if (match := _SITE.fullmatch(word))]
    return {
        "plate": files.base_name(files.folder_of(one.paths)),
        "well": wells.name_of(named[0]) or "",
        "site": sites[0] if len(sites) == 1 else "",
    }


def _in_names(file: File) -> list[tuple[str, str, str]]:
    """Folder, name without the word, and the word, for each word that may be a channel."""
    pieces = _SEPARATORS.split(stem(file.name))
    found = []
    for place in range(len(pieces) - 1, -1, -2):
        word = pieces[place]
        if is_channel(word) and not (re.fullmatch(r"C\d", word) and place):  # a well
            rest = [*pieces[: max(place - 1, 0)], *pieces[place + 1 :]]
            name = "".join(rest).strip("_-. ") or stem(file.name)
            found.append((file.uri.rpartition("/")[0], name, pieces[place]))
    return found


def _in_folders(file: File) -> list[tuple[str, str, str]]:
    """As `_in_names`, for a folder that has the channel's name."""
    parent, _, name = file.uri.rpartition("/")
    above, _, folder = parent.rpartition("/")
    words = [folder, *_SEPARATORS.split(folder)[::2]]
    channel = next((word for word in words if is_channel(word)), None)
    return [(above, stem(name), channel)] if channel else []


def _label(word: str) -> str:
    tagged = _TAGGED.fullmatch(word)
    return f"{tagged[1]}: {tagged[2]}" if tagged and means(tagged[2]) else word


def _one_each(parts: Sequence[Part]) -> list[File]:
    return list({part.channel: part.file for part in parts}.values())


def _without_plane(name: str) -> tuple[str, str]:
    pieces = _SEPARATORS.split(name)
    for place in range(len(pieces) - 1, -1, -2):
        match = _PLANE.fullmatch(pieces[place])
        if match:
            rest = [*pieces[: max(place - 1, 0)], *pieces[place + 1 :]]
            return "".join(rest).strip("_-. ") or name, match[1]
    return name, ""
