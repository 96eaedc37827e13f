"""Single objects of a store, by key: read, replaced whole, listed, moved, removed.

Zarr's own interface has no functions for this. `path` is a prefix such as `embeddings/dino`.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from zarrloc.store.location import Location
from zarrloc.store.remote import at_once, fetched, held, listed, object_store, store_errors
from zarrloc.store.retry import persistent

T = TypeVar("T")
R = TypeVar("R")


def each(location: Location, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, in order; side by side where the store is remote."""
    return list(map(function, items)) if location.path is not None else at_once(function, items)


@persistent
def read(location: Location, key: str) -> bytes | None:
    """The object's bytes, or None where there is none."""
    if location.path is not None:
        try:
            return (location.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
    where, memory = f"{location.uri}/{key}", held()
    if memory is not None and where in memory:
        return memory[where]
    found: bytes | None
    try:
        found = fetched(object_store(location.uri), key, where)
    except FileNotFoundError:
        found = None
    if memory is not None and found is not None:  # what is absent may come
        memory[where] = found
    return found


@persistent
def size(location: Location, key: str) -> int:
    """The object's size in bytes; 0 where there is none."""
    try:
        if location.path is not None:
            return (location.path / key).stat().st_size
        with store_errors(f"{location.uri}/{key}"):
            return int(object_store(location.uri).head(key)["size"])
    except (FileNotFoundError, NotADirectoryError):
        return 0


@persistent
def write(location: Location, key: str, data: bytes) -> None:
    """Replace the object in one step: a reader finds the old bytes or the new ones."""
    if location.path is None:
        with store_errors(f"{location.uri}/{key}"):
            object_store(location.uri).put(key, data, use_multipart=False)
        return
    target = location.path / key
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@persistent
def children(location: Location, path: str = "") -> list[str]:
    """Names directly below `path` that have something below them, sorted."""
    if location.path is not None:
        try:
            with os.scandir(location.path / path) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
    prefix = f"{path}/" if path else ""
    with store_errors(location.uri):
        found = object_store(location.uri).list_with_delimiter(prefix or None)
    return sorted(
        name.rstrip("/").removeprefix(prefix) for name in map(str, found["common_prefixes"])
    )


@persistent
def names(location: Location) -> set[str]:
    """Names of the objects, or files, that lie directly in `location`."""
    if location.path is not None:
        return {file.name for file in location.path.glob("*") if file.is_file()}
    with store_errors(location.uri):
        found = object_store(location.uri).list_with_delimiter()
    return {str(one["path"]) for one in found["objects"]}


def keys(location: Location, path: str) -> Iterator[str]:
    """Keys of all objects below `path`; what a killed write left is none yet."""
    if location.path is not None:
        for file in (location.path / path).rglob("*"):
            if file.is_file() and file.suffix != ".partial":
                yield file.relative_to(location.path).as_posix()
        return
    for one in listed(object_store(location.uri), f"{path}/", location.uri):
        yield str(one["path"])


def holds_any(location: Location, path: str) -> bool:
    """Whether there is any object below `path`."""
    return next(keys(location, path), None) is not None


def remove(location: Location, path: str) -> None:
    """Delete everything below `path`; a local folder leaves the store in one rename."""
    if location.path is None:
        found = list(keys(location, path))
        if found:
            with store_errors(location.uri):
                object_store(location.uri).delete(found)
        return
    target, beside = location.path / path, location.beside.path
    if target.exists() and beside is not None:
        beside.mkdir(exist_ok=True)
        doomed = beside / f"removed-{uuid.uuid4().hex}"
        target.rename(doomed)
        for one in beside.glob("removed-*"):  # a killed run may have left some
            shutil.rmtree(one, ignore_errors=True)


def remove_one(location: Location, key: str) -> None:
    """Delete one object, if it is there."""
    if location.path is not None:
        (location.path / key).unlink(missing_ok=True)
    elif read(location, key) is not None:
        with store_errors(location.uri):
            object_store(location.uri).delete(key)


def move(location: Location, source: str, target: str) -> None:
    """Put all that lies below `source` in the place of what lies below `target`.

    An object store has no rename: there, objects are copied one by one, `target`'s own metadata
    first removed and last written, so that a reader sees a whole group or none.
    """
    if location.path is not None:
        remove(location, target)
        (location.path / source).rename(location.path / target)
        return
    store, last = object_store(location.uri), f"{source}/zarr.json"
    remove_one(location, f"{target}/zarr.json")
    remove(location, target)

    def copy(key: str) -> None:
        with store_errors(location.uri):
            store.copy(key, target + key.removeprefix(source))

    each(location, copy, [key for key in keys(location, source) if key != last])
    copy(last)
    remove(location, source)
