"""Columns of tables that other people call otherwise."""

import re

from zarrloc.images import tables, wells
from zarrloc.images.tables import Table

IDENTITIES = ("protein", "ensg", "cell_line")

NAMING = ("fov", "path", "well", "target_name", *IDENTITIES)
"""Columns that say which fields a row speaks of."""

CALLED = {"id": "fov", "fieldofview": "fov", "imageid": "fov"}
CALLED |= dict.fromkeys(("filename", "file", "filepath", "imagename", "imagefile"), "path")
CALLED |= dict.fromkeys(("wellid", "wellname", "wellposition", "metadatawell"), "well")
"""What others call them, without spaces and marks."""


def usual(table: Table, labelled: bool = True) -> Table:
    """Columns that others call otherwise under the names used here, which a note says."""
    plain = {re.sub(r"[\W_]", "", name).lower(): name for name in reversed(table.columns)}
    renamed: dict[str, str] = {}
    if not set(NAMING) & set(table.columns):
        renamed = {plain[other]: name for other, name in CALLED.items() if other in plain}
        renamed = dict(list(renamed.items())[:1])
        if "well" in renamed.values() and "metadataplate" in plain:
            renamed[plain["metadataplate"]] = "plate"
    if labelled and not set(tables.LABEL_COLUMNS) & set(table.columns):
        given = [plain[other] for other in ("target", "labels") if other in plain]
        renamed |= dict.fromkeys(given[:1], "label")
    table = table.with_columns(renamed)
    column = plain.get("column", plain.get("col"))
    if set(NAMING) & set(table.columns) or "row" not in plain or column is None:
        return table
    return _with_wells(table, plain["row"], column)


def _with_wells(table: Table, row: str, column: str) -> Table:
    """A table whose wells stand in two columns, with one; as it is where these are no wells."""
    found = []
    for one in table.rows:
        first, second = one.cells[row], one.cells[column]
        name = f"r{first}c{second}" if first.isdecimal() else f"{first}{second}"
        if wells.name_of(name) is None:
            return table
        cells = {name: cell for name, cell in one.cells.items() if name not in (row, column)}
        found.append(tables.Row(one.line, {**cells, "well": name}))
    columns = (*(name for name in table.columns if name not in (row, column)), "well")
    note = f"{table.path.name}: takes {row!r} and {column!r} for well"
    return Table(table.path, columns, tuple(found), (*table.notes, note))
