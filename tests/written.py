"""Groups written by hand, in the layout of the contract."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store import columns, document, objects
from zarrloc.store.digest import row_digests
from zarrloc.store.location import Location
from zarrloc.store.template import Variable

GRID = ("image", "mask", "embedding")


def write_group(
    location: Location,
    path: str,
    arrays: Mapping[str, tuple[tuple[str, ...], npt.NDArray[Any]]],
    *,
    attrs: Mapping[str, Any],
    coords: Iterable[str] = (),
    shard: int = 2,
) -> None:
    """Write a group, with the digests of its grid array's rows."""
    arrays = dict(arrays)
    for name in GRID:
        if name in arrays:
            dims, values = arrays[name]
            arrays[ROW_DIGEST] = (dims[:1], row_digests(values))
    given = {}
    for name, (dims, values) in arrays.items():
        grid = {"grid_chunk": 1, "grid_shard": shard} if name in GRID else {}
        given[name] = (Variable.like(dims, values, **grid), values)
    columns.write_group(
        location, path, given, coordinates=" ".join(sorted({*coords} & {*arrays})), **attrs
    )


def drop(location: Location, path: str) -> None:
    """Take a group out of the store and of the root's index."""
    objects.remove(location, path)
    root = document.read_root(location)
    index = root["consolidated_metadata"]["metadata"]
    kept = {k: v for k, v in index.items() if k != path and not k.startswith(f"{path}/")}
    whole = document.root_document(kept)
    objects.write(location, "zarr.json", document.dumped(whole))


def revise(
    location: Location, path: str, **arrays: tuple[tuple[str, ...], npt.NDArray[Any]]
) -> None:
    """Add or replace columns of a group; of its grid array, the rows' digests with it."""
    given = {name: (dims, np.asarray(values)) for name, (dims, values) in arrays.items()}
    for name in GRID:
        if name in given:
            dims, values = given[name]
            given[ROW_DIGEST] = (dims[:1], row_digests(values))
    columns.revise(
        location, path, {n: (Variable.like(dims, v), v) for n, (dims, v) in given.items()}
    )


def put(location: Location, path: str, name: str, index: Any, value: Any) -> None:
    """Change some values of an array, as a stage would have written it."""
    group = location.group(path, mode="r")
    values = columns.read_column(group, name)
    values[index] = value
    dims = columns.array_of(group, name).metadata.dimension_names  # type: ignore[union-attr]
    revise(location, path, **{name: (tuple(map(str, dims or ())), values)})
