"""Columns: arrays along the rows of a group that the coordinator writes, and reads as a whole.

A committed column has a digest in its group's attributes; one that a run is writing has none until
the run commits.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc  # type: ignore[import-untyped]

from zarrloc.errors import DamageError, StoreError
from zarrloc.store import document, objects
from zarrloc.store.digest import digest
from zarrloc.store.document import Document
from zarrloc.store.location import Location
from zarrloc.store.pipeline import read_by_zarrs
from zarrloc.store.remote import RemoteStore, at_once, held
from zarrloc.store.retry import persistent
from zarrloc.store.template import Variable, separator_of


def put_columns(
    location: Location,
    path: str,
    group: Document,
    values: Mapping[str, tuple[Variable, npt.NDArray[Any]]],
) -> None:
    """Write whole columns beside what they replace, and note them in `group`, to be committed.

    A column's chunks have two sets of keys, `c/0` and `c.0`, used in turn: readers of the
    committed document find the old values until the commit, and all new ones afterwards.
    """
    digests = dict(group.attributes.get("column_digests", {}))

    def put(name: str) -> dict[str, Any]:
        variable, column = values[name]
        there = group.arrays.get(name)
        turn = "." if there is not None and separator_of(there) == "/" else "/"
        metadata = variable.metadata(turn)
        document.write_array(location, path, name, metadata)
        array = zarr.open_array(location.store(), path=f"{path}/{name}", mode="r+", zarr_format=3)
        fill_array(storing_all(array), column)
        return metadata

    for name, metadata in zip(values, objects.each(location, put, values), strict=True):
        column = values[name][1]
        group.arrays[name] = metadata
        if "/" in name:
            group.arrays[name.rpartition("/")[0]] = document.bare_group()
        digests[name] = column_digest(column)
    group.attributes["column_digests"] = digests


def write_group(
    location: Location,
    path: str,
    values: Mapping[str, tuple[Variable, npt.NDArray[Any]]],
    **attributes: Any,
) -> None:
    """Write a new group whole, without any run behind it."""
    objects.remove(location, path)
    document.begin(location, path, attributes)
    found = Document(dict(attributes), {})
    put_columns(location, path, found, values)
    document.commit(location, path, found)


def revise(
    location: Location,
    path: str,
    values: Mapping[str, tuple[Variable, npt.NDArray[Any]]],
    **attributes: Any,
) -> None:
    """Change columns and attributes of a committed group, all in one commit, under its lock."""
    found = document.readable(location, document.look(location, path)).document
    assert found is not None, f"{path} is committed"
    document.align(location, path, found)
    put_columns(location, path, found, values)
    found.attributes.update(attributes)
    document.commit(location, path, found)
    document.align(location, path, found)


def write_column(group: zarr.Group, name: str, values: npt.NDArray[Any], start: int = 0) -> None:
    """Write rows `start` onwards of a coordinator's array."""
    fill_array(array_of(group, name), values, start)


@persistent
def fill_array(array: zarr.Array[Any], values: npt.NDArray[Any], start: int = 0) -> None:
    """Write rows `start` onwards of an opened array."""
    if values.dtype.kind in "UO":
        values = values.astype(np.dtypes.StringDType())
    blosc.use_threads = False  # with its own threads, stored bytes vary from run to run
    if len(values):
        array[start : start + len(values)] = values


def read_column(
    group: zarr.Group, name: str, stop: int | None = None, start: int = 0
) -> npt.NDArray[Any]:
    """Rows `start` to `stop` of an array, as one contiguous slice; all of them by default.

    A whole column is compared with its digest in the group's attributes.

    Raises
    ------
    DamageError
        Where the column is damaged.
    """
    array = array_of(group, name)
    digests: Any = group.attrs.get("column_digests", {})
    whole = start == 0 and (stop is None or stop >= array.shape[0])
    if held() is not None and whole and name in digests:
        blank = np.zeros(array.shape, array.dtype)  # such as `error`: known without a request
        if column_digest(blank) == digests[name]:
            return blank
    values = decoded(array, slice(start, stop))
    if len(values) == array.shape[0] and digests.get(name, "") not in ("", column_digest(values)):
        raise DamageError(f"{_broken(array)}: its values are not those that were written")
    return values


def read_columns(
    group: zarr.Group, names: Iterable[str], stop: int | None = None, start: int = 0
) -> dict[str, npt.NDArray[Any]]:
    """Several columns as `read_column` reads them, side by side where the store is remote."""
    names = list(names)

    def read(name: str) -> npt.NDArray[Any]:
        return read_column(group, name, stop, start)

    remote = getattr(group.store, "_store", group.store).__class__ is RemoteStore
    return dict(zip(names, at_once(read, names) if remote else map(read, names), strict=True))


class OnDemand(Mapping[str, npt.NDArray[Any]]):
    """Columns of a group, each read when it is first asked for."""

    def __init__(self, group: zarr.Group, names: Iterable[str]) -> None:
        self._group, self._names = group, tuple(names)
        self._held: dict[str, npt.NDArray[Any]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._held:
            self._held[name] = read_column(self._group, name)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def decoded(array: zarr.Array[Any], index: int | slice) -> npt.NDArray[Any]:
    """Some rows of an array, without a comparison.

    Raises
    ------
    DamageError
        Where the stored bytes cannot be decoded.
    """
    try:
        return _values(array, index)
    except (StoreError, OSError, TimeoutError, MemoryError):  # the disk or the store, no damage
        raise
    except Exception as error:  # codecs raise what they like on damaged bytes
        raise DamageError(f"{_broken(array)}: {type(error).__name__}: {error}") from error


@persistent
def _values(array: zarr.Array[Any], index: int | slice) -> npt.NDArray[Any]:
    return np.asarray(array[index])


def _broken(array: zarr.Array[Any]) -> str:
    return (
        f"'{array.path}' is damaged (`zarrloc verify STORE --deep --repair` marks what has "
        "to be done again)"
    )


def column_digest(values: npt.NDArray[Any]) -> str:
    """16 hex digits of a column's values, shape and dtype."""
    return f"{digest({'': values}):016x}"


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array `name` of a group, which stores every chunk that is written to it."""
    array = group[name]
    assert isinstance(array, zarr.Array), f"{group.path}/{name} is a group"
    with read_by_zarrs(array):
        return storing_all(array)


def storing_all(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """The array, storing chunks that hold nothing but its fill value, too.

    Left out, "no object" would mean both "all zero" and "not done". Metadata do not remember
    this: a handle has it or has it not.
    """
    return array.with_config({"write_empty_chunks": True})
