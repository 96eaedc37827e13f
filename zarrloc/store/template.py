"""The store contract: what groups hold, how they are allocated, committed and opened.

A group is allocated once from a template of `Variable`s. Workers then write whole shards of its
one grid array; the coordinator writes everything else. Consolidating the group's metadata is the
commit: a group without it was never finished and is allocated anew.

The root's consolidated metadata is an index of the committed groups: xarray opens a group through
the root and warns where that has none. It is a copy, made anew at every commit under a lock of its
own; zarrloc itself trusts the leaf groups alone.
"""

import json
import re
import shutil
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict
from zarr.codecs import BloscCodec

from zarrloc.errors import ConfigError, StoreError
from zarrloc.store.digest import fingerprint
from zarrloc.store.location import Location
from zarrloc.store.lock import rewrite

FORMAT = 1
"""Version of the layout, in the root's attributes. A newer one is refused by number."""

COLUMN_CHUNK = 8192
"""Rows of a per-row column in one chunk: fixed, so that appending never rewrites old layouts."""

PENDING = "pending"
"""The `error` of a row that no run has reached yet."""

# By benchmarks/codecs.py on real 16-bit fields: writes 1.6 to 3.4 times as fast as blosc's zstd at
# levels 1 to 5, for 2 to 5 % more bytes. With Blosc's own threads, stored bytes would vary.
blosc.use_threads = False
PIXELS = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
COLUMNS = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


@dataclass(frozen=True)
class Variable:
    """One array of a group: `dims` name its axes; `grid` arrays are written by workers."""

    dims: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    fill: Any = 0
    grid_chunk: int = 0
    """0: a column, written by the coordinator. Else rows in one chunk of a worker's array."""
    grid_shard: int = 0
    """Rows in one shard, where it differs from the chunk."""
    attrs: Mapping[str, Any] = field(default_factory=dict)


class StageAttrs(BaseModel):
    """`zarrloc` in a stage group's attributes: how its values came to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    """Every setting that changes values."""
    inputs: dict[str, str]
    """Group path -> fingerprint of what was read."""
    fingerprint: str
    """Hash of stage, config and inputs; not of paths, FOV lists, labels or workers."""
    block_rows: int = 0
    """Rows of one block, 0 for groups that are written in one piece."""
    array: str | None = None
    """The one array that workers write, in whole shards; its blocks have receipts."""
    digested: list[str] = []
    """The columns that a block's digest covers beside that array."""
    execution: dict[str, Any] = {}
    """Batch size, threads, device kind and precision: settled once, reused on resume."""
    versions: dict[str, str] = {}

    @classmethod
    def of(
        cls, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], **rest: Any
    ) -> "StageAttrs":
        """Attributes with their fingerprint computed."""
        parts: dict[str, Any] = {"stage": stage, "config": dict(config), "inputs": dict(inputs)}
        return cls(**parts, fingerprint=fingerprint(parts), versions=versions(), **rest)

    def difference(self, other: "StageAttrs") -> list[str]:
        """Human lines such as `size: 224 -> 448`, from this to `other`."""
        before = {**_flat(self.config), **{f"input {k}": v for k, v in self.inputs.items()}}
        after = {**_flat(other.config), **{f"input {k}": v for k, v in other.inputs.items()}}
        return [
            f"{key}: {before.get(key, '(none)')} -> {after.get(key, '(none)')}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def versions() -> dict[str, str]:
    """Versions of the software that decides values."""
    from importlib.metadata import version

    return {name: version(name) for name in ("zarrloc", "numpy", "zarr", "torch")}


# --- allocate, resize, commit -------------------------------------------------------------------


def check_target(location: Location) -> None:
    """Refuse, before anything is written, what cannot become or is not a store of this format."""
    path = location.path
    if path is not None and path.exists():
        if not path.is_dir():
            raise StoreError(f"{path} is a file; name a store that is new, or a zarrloc one")
        if any(path.iterdir()) and not (path / "zarr.json").exists():
            raise StoreError(f"{path} is a folder but not a Zarr store; name a store that is new")
    try:
        check_format(location, root_attrs(location))
    except FileNotFoundError:
        return


def ensure_root(location: Location) -> None:
    """Make the root group where there is none."""
    try:
        root_attrs(location)
    except FileNotFoundError:
        try:
            zarr.create_group(location.store(), attributes={"format": FORMAT}, zarr_format=3)
        except OSError as error:
            raise StoreError(f"cannot write {location.uri}: {error.strerror or error}") from error


def root_attrs(location: Location) -> dict[str, Any]:
    """The root's attributes. FileNotFoundError where there is no store."""
    store = location.store(read_only=True)
    return dict(zarr.open_group(store, mode="r", use_consolidated=False).attrs)


def check_store(location: Location) -> None:
    """Refuse an address without a zarrloc store that this version can read."""
    try:
        check_format(location, root_attrs(location))
    except FileNotFoundError as error:
        raise StoreError(
            f"no store at {location.uri}; `zarrloc ingest SOURCE {location.name}` makes one"
        ) from error


def check_format(location: Location, attrs: Mapping[str, Any]) -> None:
    """Refuse what is not a zarrloc store, or one of a later format."""
    found = attrs.get("format")
    if not isinstance(found, int):
        raise StoreError(
            f"{location.uri} is a Zarr group but not a zarrloc store (its root has no `format`)"
        )
    if found > FORMAT:
        raise StoreError(
            f"{location.uri} has store format {found}; this zarrloc reads up to {FORMAT}: "
            "upgrade zarrloc"
        )


def allocate(
    location: Location,
    path: str,
    variables: Mapping[str, Variable],
    *,
    attrs: Mapping[str, Any],
    coords: Iterable[str],
) -> zarr.Group:
    """Allocate group `path` anew from its template; whatever lay there is removed first.

    It is not committed: call `commit` once its columns are written.
    """
    remove(location, path)
    group = zarr.create_group(
        location.store(),
        path=path,
        zarr_format=3,
        attributes={**attrs, "coordinates": " ".join(sorted(coords))},
    )
    for name, variable in variables.items():
        add_variable(group, name, variable)
    return group


def add_variable(group: zarr.Group, name: str, variable: Variable) -> None:
    """Create one array of a group, replacing one of that name."""
    rows, *rest = variable.shape
    shards: tuple[int, ...] | None = None
    if variable.grid_chunk:
        chunks = (variable.grid_chunk, *rest)
        shards = (variable.grid_shard, *rest) if variable.grid_shard else None
    else:
        chunks = (COLUMN_CHUNK, *rest)
    text = variable.dtype == "string"
    group.create_array(
        name,
        shape=(rows, *rest),
        dtype=zarr.dtype.VariableLengthUTF8() if text else variable.dtype,  # type: ignore[arg-type]
        chunks=tuple(max(1, size) for size in chunks),
        shards=shards,
        compressors=PIXELS if variable.grid_chunk else COLUMNS,
        fill_value="" if text and variable.fill == 0 else variable.fill,
        dimension_names=variable.dims,
        attributes=dict(variable.attrs),
        overwrite=True,
    )


def resize(group: zarr.Group, dim: str, rows: int) -> None:
    """Give `rows` entries to every array that has `dim`."""
    for _, array in group.arrays():
        names = array.metadata.dimension_names or ()  # type: ignore[union-attr]
        if dim in names:
            shape = [
                rows if name == dim else size for name, size in zip(names, array.shape, strict=True)
            ]
            if tuple(shape) != array.shape:
                array.resize(tuple(shape))


def commit(location: Location, path: str) -> None:
    """Consolidate one leaf group, the rewrite that commits its present state, and index it."""
    with warnings.catch_warnings():
        # zarr warns that v3 has not specified consolidated metadata yet; xarray needs it to open
        # a group without listing it.
        warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
        zarr.consolidate_metadata(location.store(), path=path, zarr_format=3)
    publish(location)


def publish(location: Location) -> None:
    """Rewrite the root's index of groups from the committed leaf groups as they are now."""
    rewrite(location, "zarr.json", lambda: json.dumps(_indexed_root(location)).encode())


def _indexed_root(location: Location) -> dict[str, Any]:
    index: dict[str, Any] = {}
    for path in groups(location):
        for parent in _parents(path):
            index[parent] = location.read_json(f"{parent}/zarr.json")
        leaf = location.read_json(f"{path}/zarr.json")
        arrays = leaf.pop("consolidated_metadata")["metadata"]
        index[path] = leaf
        index.update({f"{path}/{name}": array for name, array in arrays.items()})
    root = location.read_json("zarr.json")
    consolidated = {"kind": "inline", "must_understand": False, "metadata": index}
    return {**root, "consolidated_metadata": consolidated}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def committed(location: Location, path: str) -> zarr.Group | None:
    """The group as last committed, or None where it is absent or was never finished."""
    try:
        return zarr.open_group(
            location.store(read_only=True), path=path, mode="r", use_consolidated=True
        )
    except (FileNotFoundError, KeyError, ValueError):
        return None


def need(location: Location, path: str, made_by: str) -> zarr.Group:
    """The committed group, or a `StoreError` that says which command makes it."""
    check_store(location)
    group = committed(location, path)
    if group is None:
        kind = path.split("/")[0]
        there = [name for name in groups(location) if name.split("/")[0] == kind]
        has = f"; the store has {', '.join(there)}" if there else ""
        raise StoreError(f"no '{path}' in {location.uri}{has}; make it with `zarrloc {made_by}`")
    return group


def remove(location: Location, path: str) -> None:
    """Delete group `path` and everything under it; a local group leaves the store in one rename."""
    if location.path is None:
        import asyncio

        asyncio.run(location.store().delete_dir(path))
        return
    target = location.path / path
    beside = location.beside.path
    if target.exists() and beside is not None:
        beside.mkdir(exist_ok=True)
        doomed = beside / f"removed-{uuid.uuid4().hex}"
        target.rename(doomed)
        shutil.rmtree(doomed)


def stage_attrs(group: zarr.Group) -> StageAttrs:
    """The `zarrloc` attributes of a group, validated."""
    return StageAttrs.model_validate(group.attrs["zarrloc"])


def update_attrs(location: Location, path: str, **attrs: Any) -> None:
    """Rewrite attributes of a committed group in one atomic write."""
    # Opened consolidated: an unconsolidated handle would write the attributes without the
    # consolidated metadata, and so take the commit back.
    group = zarr.open_group(location.store(), path=path, mode="r+", use_consolidated=True)
    group.attrs.update(attrs)


def check_name(name: str) -> str:
    """A name that can be a group: up to 100 letters, digits, `.`, `_` and `-`, not hidden."""
    if name == "zarr.json" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"name {name[:120]!r} cannot name a group; use up to 100 letters, digits, '.', '_' "
            "and '-'"
        )
    return name


def claim(
    location: Location, path: str, wanted: StageAttrs, *, overwrite: bool
) -> StageAttrs | None:
    """What stands under this name already: its attributes, or None for a fresh allocation.

    Raises `ConfigError` with the difference where the same name was made with other settings.
    """
    group = committed(location, path)
    if group is None or overwrite:
        return None
    found = stage_attrs(group)
    if found.fingerprint != wanted.fingerprint:
        changes = "; ".join(found.difference(wanted)) or f"stage: {found.stage} -> {wanted.stage}"
        raise ConfigError(
            f"'{path}' was made with other settings ({changes}); "
            "pass --overwrite to make it anew, or another --name"
        )
    return found


def write_group(
    location: Location,
    path: str,
    variables: Mapping[str, tuple[tuple[str, ...], npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, Any],
    coords: Iterable[str] = (),
) -> None:
    """Write a small group in one piece (a split, a head): name -> (dims, values). Replaces it."""
    template = {
        name: Variable(
            dims, "string" if values.dtype.kind in "TUO" else values.dtype.str, values.shape
        )
        for name, (dims, values) in variables.items()
    }
    group = allocate(location, path, template, attrs=attrs, coords=coords)
    for name, (_, values) in variables.items():
        write_column(group, name, values)
    commit(location, path)


def write_column(group: zarr.Group, name: str, values: npt.NDArray[Any], start: int = 0) -> None:
    """Write rows `start` onwards of a coordinator's array."""
    if values.dtype.kind in "UO":
        values = values.astype(np.dtypes.StringDType())
    array = array_of(group, name)
    if values.ndim == 0:
        array[...] = values
    elif len(values):
        array[start : start + len(values)] = values


def read_column(
    group: zarr.Group, name: str, stop: int | None = None, start: int = 0
) -> npt.NDArray[Any]:
    """Rows `start` to `stop` of an array, as one contiguous slice; all of them by default."""
    return np.asarray(array_of(group, name)[start:stop])


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array `name` of a group, which stores every chunk that is written to it."""
    array = group[name]
    assert isinstance(array, zarr.Array), f"{group.path}/{name} is a group"
    # With empty chunks left out, "no object" would mean both "all zero" and "not done". Metadata
    # do not remember this: a handle has it or has it not.
    return array.with_config({"write_empty_chunks": True})


# --- look ---------------------------------------------------------------------------------------


def groups(location: Location) -> list[str]:
    """Paths of the committed groups, in the order of the work."""
    kinds = ("fovs", "segmentations", "cells", "embeddings", "splits", "heads")
    try:
        root = zarr.open_group(location.store(read_only=True), mode="r", use_consolidated=False)
    except FileNotFoundError:
        return []
    found = []
    for kind in kinds:
        if kind not in root:
            continue
        if kind == "fovs":
            names = [kind]
        else:
            parent = root[kind]
            assert isinstance(parent, zarr.Group)
            names = [f"{kind}/{name}" for name in sorted(parent.group_keys())]
        found += [name for name in names if committed(location, name) is not None]
    return found


def open_store(where: "str | Path | Location") -> Any:
    """The whole store as an `xarray.DataTree`, one node a group, read lazily.

    `open_store(p)["fovs"].to_dataset()` is what `xarray.open_zarr(p, group="fovs")` gives.
    Raises `StoreError` where there is no store or a newer format.
    """
    import xarray as xr

    location = Location.of(where)
    check_store(location)
    store = location.store(read_only=True)
    return xr.DataTree.from_dict(
        {path: xr.open_zarr(store, group=path) for path in groups(location)}
    )
