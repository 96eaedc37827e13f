"""What rows of a table and fields of view are called, in the one form that makes both equal."""

import os
from collections.abc import Iterator, Sequence

from zarrloc.images import files, wells
from zarrloc.images.fields import FovSource


def fov_keys(source: FovSource) -> tuple[str, ...]:
    """Its name, and what the names of its files begin with, as other tables call it."""
    names = [path.rsplit("/", 1)[-1] for path in source.paths]
    begin = os.path.commonprefix(names)  # noqa: RUF071  (of names, not of folders)
    return source.fov, begin.split(".")[0].rstrip(" _-")


def row_paths(path: str, folder: str) -> tuple[str, ...]:
    if files.is_remote(path):
        return (path,)
    path = path.replace("\\", "/")
    return tuple(dict.fromkeys(map(os.path.normpath, (path, os.path.join(folder, path)))))


def path_keys(source: FovSource) -> Iterator[str]:
    for path in source.paths:
        full = path if files.is_remote(path) else os.path.abspath(path)
        yield full
        parts = full.split("/")
        yield from ("/".join(parts[start:]) for start in range(1, len(parts)))


def well_key(cells: dict[str, str], beside: Sequence[str]) -> tuple[str, ...]:
    well = cells.get("well", "")
    if not well:
        return ()
    rest = [cells.get(name, "") for name in beside]
    numbers = [part.lstrip("0") or "0" if part.isdecimal() else part for part in rest]
    return (" ".join([wells.name_of(well) or well, *numbers]),)


def cell_line_key(name: str) -> str:
    # `CID001050` in a file name is 1050 in the table.
    return name.removeprefix("CID").lstrip("0")
