"""Maps of plates: a grid as the plate lies, one for each thing that is said of its wells."""

import re
from collections.abc import Sequence

from zarrloc.errors import SourceError
from zarrloc.images import wells
from zarrloc.images.tables import MOST_TITLES, Lines, Row, Table

UNNAMED = "condition"
"""What a map says where its corner does not."""


def table_of(read: Lines) -> Table | None:
    """A plate map as a table of wells, one row each; None where these lines are no map.

    Columns are `well` and one for each map: what stands in its corner, or in a line of its own
    above it. Wells of which no map says anything have no row. Raises SourceError where a map goes
    on in a way that none can.
    """
    if not any(_columns(cells) for _, cells in read.lines[: MOST_TITLES + 1]):
        return None
    said: dict[str, dict[str, str]] = {}
    title, name = "", ""
    columns: list[int] = []
    names: list[str] = []
    for line, cells in read.lines:
        full = _full(cells)
        if found := _columns(full):
            name, title, columns = _name(full[0]) or title or UNNAMED, "", found
            if name in names:
                raise SourceError(
                    f"{read.path}: line {line} begins a second map of {name!r}; write in the "
                    "corner of each what it says"
                )
            names.append(name)
        elif len(full) == 1 and not re.fullmatch(r"[A-Za-z]{1,2}", full[0]):
            title = _name(full[0])
        else:
            _read_row(read, line, full, columns, name, said)
    rows = tuple(
        Row(number, {"well": well, **{name: held.get(name, "") for name in names}})
        for number, (well, held) in enumerate(said.items(), 1)
    )
    return Table(read.path, ("well", *names), rows, read.notes)


def _read_row(
    read: Lines,
    line: int,
    full: Sequence[str],
    columns: Sequence[int],
    name: str,
    said: dict[str, dict[str, str]],
) -> None:
    """Put what a map's row says of its wells into `said`."""
    row = wells.number_of_row(full[0]) if re.fullmatch(r"[A-Za-z]{1,2}", full[0]) else 0
    if not 1 <= row <= wells.MOST_ROWS or not columns or len(full) > len(columns) + 1:
        raise SourceError(
            f"{read.path}: line {line} is no row of a plate map: expected a letter and at most "
            f"{len(columns)} wells, got {', '.join(map(repr, full[:4]))}"
        )
    for column, value in zip(columns, full[1:], strict=False):
        if value:
            held = said.setdefault(str(wells.at(row, column)), {})
            if name in held:
                raise SourceError(f"{read.path}: line {line} says row {full[0]} of {name!r} again")
            held[name] = value


def _columns(cells: Sequence[str]) -> list[int]:
    """The numbers of the columns of a map that begins with these cells; none where none does."""
    full = _full(cells)
    numbers = [_number(cell) or 0 for cell in full[1:]]
    rising = all(low < high for low, high in zip([0, *numbers], numbers, strict=False))
    is_header = len(numbers) > 1 and rising and numbers[-1] <= wells.MOST_COLUMNS
    return numbers if is_header and _number(full[0]) is None else []


def _full(cells: Sequence[str]) -> list[str]:
    """Without the empty cells at the end."""
    last = max((index for index, cell in enumerate(cells) if cell), default=-1)
    return list(cells[: last + 1])


def _number(cell: str) -> int | None:
    return int(cell) if re.fullmatch(r"\d{1,3}", cell) else None


def _name(corner: str) -> str:
    """A corner that says something; `<>`, `Row` and the like do not."""
    plain = corner.strip().rstrip(":")
    return (
        ""
        if plain.lower() in ("row", "rows", "well", "plate", "") or not plain[0].isalnum()
        else plain
    )
