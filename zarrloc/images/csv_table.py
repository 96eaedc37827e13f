"""CSV tables of strings, read strictly: whatever looks wrong is refused with its line number."""

import csv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarrloc.errors import SourceError

RESERVED = {
    *("background", "block", "block_bytes", "block_input", "block_output", "channel", "color"),
    *("error", "excitation_nm", "fold", "fov", "fov_index", "grade", "height", "image", "label"),
    *("source", "source_digest", "source_hash", "stain", "width", "x", "y"),
}
"""Names the store gives to its own arrays and dimensions: no column can become one of these."""

LABEL_COLUMNS = {"label": 3} | {
    f"{prefix}grade_{grade}": grade for grade in (3, 2, 1) for prefix in ("", "annotations_")
}
"""Columns that say which labels a field has, with the grade of theirs. A manifest may hold them."""


@dataclass(frozen=True)
class Row:
    """One line of a table: its number in the file and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns in order and its rows, blank lines left out, cells stripped."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def require(self, *columns: str) -> None:
        """Raise SourceError naming what is missing and what is there."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise SourceError(
                f"{self.path}: column {' and '.join(map(repr, missing))} is missing; "
                f"it has {', '.join(self.columns)}"
            )

    def coords(self, known: Collection[str]) -> tuple[str, ...]:
        """The columns beyond `known`, which become coordinates. SourceError on a reserved name."""
        extra = tuple(column for column in self.columns if column not in known)
        taken = sorted(RESERVED.intersection(extra))
        if taken:
            raise SourceError(
                f"{self.path}: column {taken[0]!r} cannot become a coordinate, the store uses that "
                f"name itself; rename it"
            )
        return extra


def read_csv(path: str | Path) -> Table:
    """Read a comma-separated UTF-8 table with one header line.

    A byte order mark, CRLF, quotes and blank lines are fine; columns without a name (an index
    that pandas wrote) are left out. Raises SourceError on anything else.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(_lines(csv.reader(file, strict=True)))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV"
        ) from error
    except csv.Error as error:
        raise SourceError(f"{path}: is not a CSV table: {error}") from error
    if not lines:
        raise SourceError(f"{path}: is empty; a header line with the column names is expected")
    header = lines[0][1]
    named = [name for name in header if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise SourceError(f"{path}: column {repeated[0]!r} appears more than once")
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise SourceError(
                f"{path}: line {line} has {len(cells)} cells, the header has {len(header)}"
            )
    rows = (
        Row(line, {name: cell for name, cell in zip(header, cells, strict=True) if name})
        for line, cells in lines[1:]
    )
    return Table(path, tuple(named), tuple(rows))


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped
