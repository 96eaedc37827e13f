"""Committed groups, opened: what every reader of a store begins with."""

from pathlib import Path
from typing import Any

import zarr

from zarrloc.errors import StoreError
from zarrloc.store import document
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.document import State
from zarrloc.store.location import Location


def need(location: Location, path: str, made_by: str) -> zarr.Group:
    """The committed group.

    Raises
    ------
    StoreError
        Where it is absent, saying which command makes it (`made_by`), or unreadable, saying how
        to mend it.
    """
    found = document.readable(location, document.look(location, path))
    if found.state is not State.COMMITTED:
        kind = path.split("/")[0]
        there = [name for name in document.groups(location) if name.split("/")[0] == kind]
        has = f"; the store has {', '.join(there)}" if there else ""
        raise StoreError(f"no '{path}' in {location.uri}{has}; make it with `zarrloc {made_by}`")
    return location.group(path, mode="r")


def committed(location: Location, path: str) -> zarr.Group | None:
    """The group as last committed, or None where it is absent or was never finished."""
    found = document.readable(location, document.look(location, path))
    return location.group(path, mode="r") if found.state is State.COMMITTED else None


def stage_attrs(group: zarr.Group) -> StageAttrs:
    """The `zarrloc` attributes of a group, validated."""
    return StageAttrs.model_validate(group.attrs["zarrloc"])


def open_store(where: "str | Path | Location") -> Any:
    """The whole store as an `xarray.DataTree`, one node a group, read lazily.

    `open_store(p)["fovs"].to_dataset()` is what `xarray.open_zarr(p, group="fovs")` gives.

    Raises
    ------
    StoreError
        Where there is no store, or one of another format.
    """
    import xarray as xr

    location = Location.of(where)
    document.read_root(location)
    store = location.store(read_only=True)
    return xr.DataTree.from_dict(
        {path: xr.open_zarr(store, group=path) for path in document.groups(location)}
    )
