"""CellProfiler's image tables: `FileName_DNA`, `PathName_DNA`, `Metadata_Well` a row a field."""

import os
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from zarrloc.errors import SourceError
from zarrloc.images import files, wells
from zarrloc.images.fields import Part, stem
from zarrloc.images.tables import RESERVED, Row, Table

_COLUMN = re.compile(r"(?:Image_)?(?P<kind>FileName|PathName|URL|Metadata)_(?P<name>.+)")
_PLANES = {"z", "zplane", "plane", "zposition"}
_NO_FACTS = _PLANES | {"filelocation", "frame", "series", "c", "t", "channel", "channelname"}


def is_image_table(table: Table) -> bool:
    """Whether CellProfiler wrote the table, or it is made for it (`load_data.csv`)."""
    return any(kind in ("FileName", "URL") for kind, _, _ in _columns(table))


def parts(table: Table, resolved: Callable[[str], str], *, unsigned: bool = False) -> list[Part]:
    """The files of a table, each with its channel; what stands in `Metadata_` become coordinates.

    `resolved` turns a path of the table into one on this machine: paths of other machines are
    tried by their base names alone. Raises SourceError where a row names no file.
    """
    columns = _columns(table)
    channels = list(dict.fromkeys(n for k, n, _ in columns if k in ("FileName", "URL")))
    found = []
    for row in table.rows:
        said = {name.lower(): row.cells[column] for k, name, column in columns if k == "Metadata"}
        plane = next((said[name] for name in said if name in _PLANES), "")
        coords = {_coord(name): value for name, value in said.items() if name not in _NO_FACTS}
        if well := wells.name_of(coords.get("well", "")):
            coords["well"] = well
        for channel in channels:
            path = _path(table, row, channel, resolved)
            file = files.stat(path, unsigned=unsigned)
            site = coords.get("site", "")
            name = [coords.get("plate", ""), coords.get("well", ""), site and f"s{site}"]
            first = _path(table, row, channels[0], resolved)
            fov = (
                "_".join(filter(None, name))
                if coords.get("well")
                else stem(os.path.basename(first))
            )
            folder = "" if plane else str(row.line)
            found.append(Part(file, fov, folder, channel, plane, coords))
    return found


def _columns(table: Table) -> list[tuple[str, str, str]]:
    """Kind, name and full name of the columns that count."""
    matches = [(column, _COLUMN.fullmatch(column)) for column in table.columns]
    return [(match["kind"], match["name"], column) for column, match in matches if match]


def _coord(name: str) -> str:
    return f"metadata_{name}" if name in RESERVED else name


def _path(table: Table, row: Row, channel: str, resolved: Callable[[str], str]) -> str:
    cells = {}
    for kind, name, column in _columns(table):
        if name == channel:
            cells[kind] = row.cells[column]
    if cells.get("FileName"):
        folder = cells.get("PathName", "").replace("\\", "/").rstrip("/")
        path = f"{folder}/{cells['FileName']}" if folder else cells["FileName"]
    elif cells.get("URL"):
        url = urlsplit(cells["URL"])
        path = unquote(url.path) if url.scheme == "file" else cells["URL"]
    else:
        raise SourceError(f"{table.path}: line {row.line} names no file for channel {channel}")
    here = resolved(path)
    if files.is_remote(here) or os.path.exists(here):
        return here
    beside = resolved(path.rsplit("/", 1)[-1])
    return beside if os.path.exists(beside) else here
