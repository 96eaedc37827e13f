"""A table of facts about fields of view: what it says, and which fields its rows match."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zarrloc.errors import SourceError
from zarrloc.images.fields import FovSource
from zarrloc.images.near_names import nearest, quoted, some

SHOWN = 5


@dataclass(frozen=True)
class Row:
    """What is said of one field: `grades` `(label,)` uint8 0..3, and the coords' `values`."""

    grades: npt.NDArray[np.uint8]
    values: dict[str, str]
    lines: frozenset[int]


@dataclass(frozen=True)
class LabelTable:
    """A vocabulary, the names of further coords, and what is said under each key of a field."""

    path: Path
    labels: tuple[str, ...]
    coords: tuple[str, ...]
    rows: dict[str, Row]
    keys: Callable[[FovSource], Iterable[str]]
    """The keys under which a field may stand, the most exact first."""
    column: str
    """What rows are named by."""
    names: dict[int, str]
    """The name in each line of the file."""
    notes: tuple[str, ...] = ()
    labelled: bool = True
    """Whether it has labels; a field listed without any then has none."""

    def match(self, source: FovSource) -> Row | None:
        """The row for this field of view, or None."""
        return next((self.rows[key] for key in self.keys(source) if key in self.rows), None)

    def need_match(self, found: Sequence[FovSource]) -> None:
        """Raise SourceError, with a key of each side, where no row matches any field."""
        if any(self.match(one) for one in found):
            return
        where = (
            f"{self.path}: none of its {len(self.names)} rows matches any of {len(found)} fields"
        )
        theirs = sorted({key for one in found if (key := self._key_of(one))})
        if not theirs:
            raise SourceError(
                f"{where}: its rows are named by {self.column}, which no field has; name them by "
                "fov or path, or give the fields that coordinate (file names, --manifest)"
            )
        mine, other, hint = nearest(list(self.names.values()), theirs)
        raise SourceError(
            f"{where}: it has {self.column} {quoted(mine)}, the fields have {quoted(other)}"
            f"{hint}; nothing was read"
        )

    def account(self, found: Sequence[FovSource], others: Sequence[FovSource] = ()) -> list[str]:
        """Notes: how many of `found` are matched, and which rows match none of these or others."""
        matches = [(one, self.match(one)) for one in found]
        without = [one.fov for one, match in matches if match is None]
        what = "labels" if self.labelled else "conditions"
        if without:
            count = f"{len(found) - len(without)} of {len(found)} FOVs matched; without: "
            notes = [f"{what}: {count}{some(without, 10)}"]
        else:
            notes = [f"{what}: all {len(found)} FOVs matched"]
        said = [match for _, match in matches] + [self.match(one) for one in others]
        used = {line for match in said if match is not None for line in match.lines}
        idle = [name for line, name in self.names.items() if line not in used]
        if idle:
            them = some([f"{self.column} {name!r}" for name in idle], SHOWN)
            notes.append(
                f"{self.path.name}: {len(idle)} of {len(self.names)} rows match no field: {them}"
            )
        if self.column == "well":
            plates = {one.coords.get("plate", "") for one, match in matches if match is not None}
            if len(plates) > 1:
                notes.append(
                    f"{self.path.name}: names wells without their plate; it was taken for each of "
                    f"{len(plates)} plates ({some(sorted(plates), SHOWN)}). A column plate tells "
                    "them apart"
                )
        return [*notes, *self.notes]

    def _key_of(self, source: FovSource) -> str:
        """How a field would have to be called in the table."""
        if self.column == "path":
            return source.paths[0]
        return next(iter(self.keys(source)), "")
