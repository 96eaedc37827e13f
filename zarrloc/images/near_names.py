"""Names in messages: some of many, and the two of different sides that are most alike."""

import re
from collections.abc import Callable, Sequence

from zarrloc.images import wells


def some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def quoted(name: str) -> str:
    return repr(name).replace("\\\\", "\\")


def _as_number(name: str) -> str:
    try:
        return repr(float(re.split(r"[/\\]", name)[-1]))
    except ValueError:
        return ""


def _as_base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1].casefold()


def _as_stem(name: str) -> str:
    return re.sub(r"(\.ome)?\.[a-z0-9]{1,5}$", "", _as_base(name))


_SPREADSHEET = (
    "they are equal as numbers: a spreadsheet changed the names; format that column as text"
)
_LIKENESS: tuple[tuple[Callable[[str], str], str], ...] = (
    (str.casefold, "they differ in upper and lower case"),
    (_as_base, "they agree in the file's name but not in its folders: give the file's name alone, "
     "or as much of the path as both have"),
    (_as_number, _SPREADSHEET),
    (_as_stem, "they differ in the file's extension"),
    (lambda name: _as_number(_as_stem(name)), _SPREADSHEET),
    (lambda name: (" " in name and wells.name_of(name.split()[0])) or "",
     "the wells agree, their plates or sites do not: spell these as the fields do, or leave the "
     "column out"),
)  # fmt: skip


def nearest(mine: Sequence[str], theirs: Sequence[str]) -> tuple[str, str, str]:
    """A name of each side, alike if any are, and in what they differ."""
    for form, difference in _LIKENESS:
        there = {key: name for name in theirs if (key := form(name))}
        for name in mine:
            if form(name) in there:
                return name, there[form(name)], f" ({difference})"
    return mine[0] if mine else "", theirs[0], ""
