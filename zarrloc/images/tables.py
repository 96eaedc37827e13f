"""Tables of text (CSV, TSV, Excel), read strictly: whatever looks wrong is refused by its line."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarrloc.errors import SourceError

RESERVED = {
    *("background", "block", "block_bytes", "block_input", "block_output", "channel", "color"),
    *("error", "excitation_nm", "fold", "fov", "fov_index", "grade", "height", "image", "label"),
    *("row_digest", "source", "source_digest", "source_hash", "stain", "width", "x", "y"),
}
"""Names the store gives to its own arrays and dimensions: no column can become one of these."""

LABEL_COLUMNS = {"label": 3} | {
    f"{prefix}grade_{grade}": grade for grade in (3, 2, 1) for prefix in ("", "annotations_")
}
"""Columns that say which labels a field has, with the grade of theirs. A manifest may hold them."""

KNOWN = {
    *RESERVED,
    *LABEL_COLUMNS,
    *("path", "plate", "well", "site", "z", "condition", "protein", "ensg", "cell_line"),
    *("target_name", "ensg_id", "cell_line_id"),
}
"""Column names that are understood in any spelling of upper and lower case."""

DELIMITERS = (",", "\t", ";", "|")
MOST_COORDS = 200
MOST_TITLES = 5
MOST_BYTES, MOST_MERGED_BYTES = 512 << 20, 8 << 20
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*')
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Row:
    """One line of a table: its number in the file and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table: its columns in order and its rows, blank lines left out, cells stripped."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Notes on what had to be guessed."""

    def require(self, *columns: str) -> None:
        """Raise SourceError naming what is missing and what is there."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise SourceError(
                f"{self.path}: column {' and '.join(map(repr, missing))} is missing; "
                f"it has {', '.join(self.columns)}"
            )

    def with_columns(self, renamed: Mapping[str, str]) -> "Table":
        """The table with columns under other names, which a note says."""
        if not renamed:
            return self
        names = " and ".join(f"{old!r} for {new}" for old, new in renamed.items())
        rows = tuple(
            Row(row.line, {renamed.get(name, name): cell for name, cell in row.cells.items()})
            for row in self.rows
        )
        columns = tuple(renamed.get(name, name) for name in self.columns)
        return Table(self.path, columns, rows, (*self.notes, f"{self.path.name}: takes {names}"))

    def coords(self, known: Collection[str]) -> tuple[str, ...]:
        """The columns beyond `known`, which become coordinates.

        Raises SourceError where one has a name that the store uses or can't hold, or where there
        are more than 200.
        """
        extra = tuple(column for column in self.columns if column not in known)
        taken = sorted(RESERVED.intersection(extra))
        if taken:
            raise SourceError(
                f"{self.path}: column {taken[0]!r} cannot become a coordinate, the store uses that "
                f"name itself; rename it"
            )
        for column in extra:
            if not re.fullmatch(r"(?!zarr\.json$)[^\W_][^/\\\x00-\x1f\x7f]{0,99}", column):
                raise SourceError(
                    f"{self.path}: column {column[:120]!r} cannot become a coordinate; expected a "
                    "letter or digit, then at most 99 characters without slashes; rename it"
                )
        if len(extra) > MOST_COORDS:
            raise SourceError(
                f"{self.path}: has {len(extra)} further columns, each of which would become a "
                f"coordinate; at most {MOST_COORDS} can. Leave out what is no fact of a field"
            )
        return extra


@dataclass(frozen=True)
class Lines:
    """The lines of a file that are not blank: their number, and their cells, stripped."""

    path: Path
    lines: tuple[tuple[int, list[str]], ...]
    notes: tuple[str, ...] = ()


def read(path: str | Path) -> Table:
    """Read a table with one header line: text of any common delimiter and encoding, or Excel's.

    A byte order mark, CRLF, quotes, blank lines and a first line `sep=;` are fine; columns without
    a name (an index that pandas wrote) are left out, and names of columns that zarrloc knows are
    taken in any case. Raises SourceError on anything else.
    """
    return table_of(read_lines(path))


def read_lines(path: str | Path) -> Lines:
    """The cells of a text table, or of the first sheet of an Excel file, as text.

    Text is UTF-8, UTF-16 with a byte order mark, or else Windows-1252, which a note says. The
    delimiter (comma, tab, semicolon, bar) is what makes lines of equal length of the most columns.
    Raises SourceError where the file cannot be read or holds nothing.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SourceError(f"{path}: is larger than {MOST_BYTES >> 20} MiB; is it a table?")
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    notes: tuple[str, ...] = ()
    if content.startswith(_ZIP):
        lines = _sheet(path, content)
    else:
        text, notes = _decoded(path, content)
        lines = _parsed(path, text)
    if not lines:
        raise SourceError(f"{path}: is empty; a header line with the column names is expected")
    left = min(next(place for place, cell in enumerate(cells) if cell) for _, cells in lines)
    return Lines(path, tuple((line, cells[left:]) for line, cells in lines), notes)


def table_of(read: Lines) -> Table:
    """Lines as a table, the first of them the header, but for titles above it.

    Raises SourceError where they are none.
    """
    path, lines = read.path, _below_titles(read.lines)
    titles = read.lines[: len(read.lines) - len(lines)]
    header = [name.lower() if name.lower() in KNOWN else name for name in lines[0][1]]
    named = [name for name in header if name]
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise SourceError(f"{path}: column {repeated[0]!r} appears more than once")
    width = len(header)
    lines = [(line, cells if any(cells[width:]) else cells[:width]) for line, cells in lines]
    for line, cells in lines[1:]:
        if len(cells) != width:
            raise SourceError(f"{path}: line {line} has {len(cells)} cells, the header has {width}")
    rows = (
        Row(line, {name: cell for name, cell in zip(header, cells, strict=True) if name})
        for line, cells in lines[1:]
    )
    notes = [f"{path.name}: line {line} ({cells[0]!r}) is taken for a title"
             for line, cells in titles]  # fmt: skip
    return Table(path, tuple(named), tuple(rows), (*read.notes, *notes))


def _below_titles(lines: Sequence[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Lines from the header on: a title above it fills one cell, or one that is merged."""
    for start, (_, cells) in enumerate(lines[: MOST_TITLES + 1]):
        filled = {cell for cell in cells if cell}
        if len(filled) > 1 or not cells[0] or cells[0].lower() in KNOWN:
            return list(lines[start:])
    return list(lines)


def _decoded(path: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), ()
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}: is damaged UTF-16 text (byte {error.start})") from error
    notes: tuple[str, ...] = ()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise SourceError(
                f"{path}: is neither UTF-8 (byte {error.start}) nor Windows-1252 text; save it as "
                "UTF-8 CSV"
            ) from error
        notes = (f"{path.name} is not UTF-8 text; it was read as Windows-1252",)
    if "\0" in text:
        raise SourceError(f"{path}: is not a table of text; save it as UTF-8 CSV or as .xlsx")
    return text, notes


def _parsed(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The lines of the delimiter that the file names, or that fits best."""
    first, _, rest = text.partition("\n")
    if said := _SEP_LINE.fullmatch(first):
        return _split(path, rest, said[1], 1)
    found: list[tuple[bool, int, list[tuple[int, list[str]]]]] = []
    refusal: SourceError | None = None
    for delimiter in DELIMITERS:
        if delimiter not in text:
            continue
        try:
            lines = _split(path, text, delimiter)
        except SourceError as error:
            refusal = refusal or error
            continue
        below = _below_titles(lines)
        if any(other in cells[0] for _, cells in lines[: -len(below)] for other in DELIMITERS):
            below = lines  # a header of another delimiter is no title
        widths = {len(cells) for _, cells in below}
        if below and (width := len(below[0][1])) > 1:
            found.append((len(widths) == 1, width, lines))
    if found:
        return max(found, key=lambda one: one[:2])[2]
    if refusal is not None:
        raise refusal
    return _split(path, text, ",")


def _split(path: Path, text: str, delimiter: str, skipped: int = 0) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return [(line + skipped, cells) for line, cells in _stripped(reader)]
    except csv.Error as error:
        raise SourceError(f"{path}: is not a CSV table: {error}") from error


def _stripped(reader: Any) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _sheet(path: Path, content: bytes) -> list[tuple[int, list[str]]]:
    """The first sheet's cells as the user sees whole numbers and text; merged ones are alike."""
    try:
        import openpyxl
    except ImportError as error:
        raise SourceError(
            f"{path}: Excel files need openpyxl: pip install 'zarrloc[excel]', or save it as CSV"
        ) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(part.file_size for part in archive.infolist()) > MOST_BYTES:
                raise SourceError(f"{path}: unpacks to more than {MOST_BYTES >> 20} MiB")
        # Which cells are merged is known only where all of the book is read.
        streamed = len(content) > MOST_MERGED_BYTES
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=streamed, data_only=True)
        sheet = book.worksheets[0]
        rows = [[_shown(cell) for cell in row] for row in sheet.values]
        for area in () if streamed else sheet.merged_cells.ranges:
            for row in rows[area.min_row - 1 : area.max_row]:
                value = rows[area.min_row - 1][area.min_col - 1]
                row[area.min_col - 1 : area.max_col] = [value] * area.size["columns"]
        book.close()
    except SourceError:
        raise
    except Exception as error:  # a zip of something else, or a damaged one: many kinds of error
        raise SourceError(f"{path}: cannot be read as an Excel file: {error}") from error
    width = max((index + 1 for row in rows for index, cell in enumerate(row) if cell), default=0)
    padded = [row[:width] + [""] * (width - len(row)) for row in rows]
    return [(number, row) for number, row in enumerate(padded, 1) if any(row)]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
