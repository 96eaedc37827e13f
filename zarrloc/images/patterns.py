"""Names of files by the user's own pattern, such as `{plate}_{well}_s{site}_w{channel}{*}.tif`."""

import re
from collections.abc import Iterable

from zarrloc.errors import SourceError
from zarrloc.images import wells
from zarrloc.images.fields import Part, stem
from zarrloc.images.files import File
from zarrloc.images.tables import RESERVED

GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

_TOKEN = re.compile(r"\{(?P<field>[a-z][a-z0-9_]*|\*)\}|(?P<deep>\*\*/)|(?P<any>\*)|(?P<one>\?)")
_SHAPES = {
    "well": r"[A-Za-z]{1,2}\d{1,2}",
    "row": r"(?:[A-Za-z]{1,2}|\d{1,2})",
    "col": r"\d{1,2}",
    "site": r"\d+",
    "z": r"\d+",
    "t": r"\d+",
}
_BEFORE = "before_the_pattern"
_LEFT_OUT = ("channel", "z")
# A separator and the letter before a channel or a plane: `_w` of `_w1`.
_MARK = re.compile(r"[_\-. ]*(?:(?<![A-Za-z])(?:wv|w|channel|ch|c|z|p))?$", re.IGNORECASE)


def is_pattern(text: str) -> bool:
    """Whether this is a pattern with named fields rather than a path or a plain glob."""
    return any(match["field"] for match in _TOKEN.finditer(text))


def split_pattern(text: str) -> tuple[str, str]:
    """The glob that finds every file which may match, and the pattern from its first field on."""
    pieces = text.split("/")
    first = next(place for place, piece in enumerate(pieces) if is_pattern(piece))
    return re.sub(r"\{(?:[a-z][a-z0-9_]*|\*)\}", "*", text), "/".join(pieces[first:])


class Pattern:
    """What the name of a file says, by the user's pattern.

    `{channel}` and `{z}` tell the files of one field apart; `{plate}`, `{well}` (or `{row}` and
    `{col}`), `{site}` and any other field become coordinates; `{fov}` is the field's name; `{*}`
    is what does not count, such as a GUID. `*` is any text, and counts.

    Raises
    ------
    SourceError
        Where a field stands twice or bears a name that the store uses itself.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        fields = [m["field"] for m in _TOKEN.finditer(text) if m["field"] not in (None, "*")]
        twice = sorted({name for name in fields if fields.count(name) > 1})
        taken = sorted(RESERVED.difference({"channel", "fov"}).intersection(fields))
        if twice:
            raise SourceError(f"{text}: {{{twice[0]}}} must stand once")
        if taken:
            raise SourceError(
                f"{text}: {{{taken[0]}}} cannot become a coordinate, the store uses that name "
                "itself; rename it"
            )
        self.fields = tuple(fields)
        self._regex = re.compile(rf"(?P<{_BEFORE}>(?:.*/)?){self._translated(text)}", re.DOTALL)

    def _translated(self, text: str) -> str:
        out, last, ignored = "", 0, 0
        for match in _TOKEN.finditer(text):
            out += re.escape(text[last : match.start()])
            last = match.end()
            field = match["field"]
            if field == "*":
                out += f"(?P<ignored{ignored}>{GUID}|[^/]*?)"
                ignored += 1
            elif field:
                end = ""
                if text[last:].startswith("{*}"):  # as much as looks like one word
                    end = rf"(?={GUID}|[\W_]|$)"
                out += f"(?P<{field}>{_SHAPES.get(field, '[^/]+?')}){end}"
            elif match["deep"]:
                out += "(?:[^/]+/)*"
            else:
                out += "[^/]*" if match["any"] else "[^/]"
        return out + re.escape(text[last:])

    def parts(self, files: Iterable[File]) -> list[Part]:
        """The files whose names match, each with what its name says."""
        found = (self.part(file) for file in files)
        return [part for part in found if part is not None]

    def part(self, file: File) -> Part | None:
        """What the name says; None where it does not match."""
        match = self._regex.fullmatch(file.uri)
        if match is None:
            return None
        said = {name: match[name] for name in self.fields}
        row, column = said.pop("row", ""), said.pop("col", "")
        if row and column:
            said["well"] = f"r{row}c{column}" if row.isdecimal() else row + column
        coords = {n: v for n, v in said.items() if n not in (*_LEFT_OUT, "fov")}
        if "well" in coords:
            coords["well"] = wells.name_of(coords["well"]) or coords["well"]
        name = said.get("fov") or self._bare(match)
        return Part(file, name, match[_BEFORE], said.get("channel", ""), said.get("z", ""), coords)

    def _bare(self, match: re.Match[str]) -> str:
        """What is left of a name without channel, plane and what does not count."""
        spans = sorted(
            match.span(name)
            for name in match.groupdict()
            if name in _LEFT_OUT or name.startswith("ignored")
        )
        text, out, last = match.string, "", match.end(_BEFORE)
        for start, end in spans:
            out += _MARK.sub("", text[last:start])
            last = end
        left = stem(out + text[last:])
        return "_".join(filter(None, left.split("/"))) or stem(text.rsplit("/", 1)[-1])
