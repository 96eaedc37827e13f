"""Rows as a table file, block by block: CSV, Parquet, Excel."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from zarrloc.errors import ConfigError
from zarrloc.exports.extras import library
from zarrloc.exports.rows import Rows

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""

TABLES = ("csv", "parquet", "xlsx")
"""The formats written here."""

XLSX_ROWS, XLSX_COLUMNS, XLSX_TEXT = 1_048_576, 16_384, 32_767
"""Limits of a sheet, its header included, and of a cell's text."""

NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write_csv(rows: Rows, out: Path) -> None:
    """One line a row, UTF-8. Text that a spreadsheet would run as a formula gets a `'` before."""
    with open(out, "w", newline="", encoding="utf-8") as file:
        for number, frame in enumerate(rows.frames()):
            shown = frame.apply(_text_column)
            shown.to_csv(file, header=number == 0, index=False, lineterminator="\n")


def _text_column(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column whose texts cannot be formulas; numbers as they are."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(object).map(defused)
    return column


def defused(text: Any) -> Any:
    """The text, with a `'` before it where a spreadsheet would take it for a formula."""
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text


def write_parquet(rows: Rows, out: Path) -> None:
    """One row group a block; texts are dictionaries, provenance is in the file's metadata."""
    library("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    try:
        for frame in rows.frames():
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                kept = dict(table.schema.metadata or {})
                kept[b"zarrloc"] = json.dumps({"what": rows.what, **rows.about}).encode()
                schema = table.schema.with_metadata(kept)
                writer = pq.ParquetWriter(out, schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def check_xlsx(rows: Rows) -> None:
    """Refuse what no sheet can hold."""
    columns = rows.obs.shape[1] + len(rows.matrix.names)
    if len(rows) >= XLSX_ROWS or columns > XLSX_COLUMNS:
        raise ConfigError(
            f"'{rows.what}' has {len(rows):,} rows and {columns:,} columns, a sheet holds "
            f"{XLSX_ROWS - 1:,} and {XLSX_COLUMNS:,}; export to parquet or csv"
        )


def write_xlsx(rows: Rows, out: Path) -> None:
    """One sheet with a bold header that stays in sight. Texts are stored as texts, never run."""
    library("openpyxl")
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    check_xlsx(rows)
    book = Workbook(write_only=True)
    sheet = book.create_sheet(rows.what.replace("/", " ")[:31])
    sheet.freeze_panes = "B2"

    def cell(value: Any, header: bool = False) -> Any:
        if not isinstance(value, str):
            return None if value is None or _missing(value) else value
        made = WriteOnlyCell(sheet, NOT_XML.sub("\ufffd", defused(value))[:XLSX_TEXT])
        made.data_type = "s"
        if header:
            made.font = Font(bold=True)
        return made

    header = [*map(str, rows.obs.columns), *rows.matrix.names]
    sheet.append([cell(name, header=True) for name in header])
    for frame in rows.frames():
        for values in frame.astype(object).itertuples(index=False, name=None):
            sheet.append([cell(_plain(value)) for value in values])
    book.save(out)


def _plain(value: Any) -> Any:
    """A number, bool or text of Python's own; float32 without its binary tail."""
    if isinstance(value, np.float32):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value


def _missing(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
