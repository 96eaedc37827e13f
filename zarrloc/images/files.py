"""Files on a disk or in an object store (`s3://bucket/prefix`), listed and read the same way.

A store that does not answer is no fault of a file: it ends the work with a `RemoteError` or a
`StoreError`, while a fault of one file is reported for that file alone.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any

from zarrloc.errors import SourceError, StoreError
from zarrloc.store.remote import (
    ForbiddenError,
    at_once,
    fetched,
    listed,
    object_store,
    store_errors,
)
from zarrloc.store.retry import CANNOT_BE_OPENED, is_of_a_row, persistent, reason

FORBIDDEN = "these credentials may not read it"


@dataclass(frozen=True)
class File:
    """One file as listed: `stamp` is its mtime in ns or its ETag; `problem` why it has none."""

    uri: str
    size: int = 0
    stamp: str = ""
    problem: str = ""

    @property
    def name(self) -> str:
        """The base name."""
        return base_name(self.uri)

    @property
    def has_etag(self) -> bool:
        """Whether the stamp is an ETag, which is the same however an object is looked at."""
        return self.stamp.startswith(('"', "W/"))


def base_name(uri: str) -> str:
    """What stands behind the last slash of an address."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def without_folder(sources: Sequence[str], rows: Iterable[int]) -> list[str]:
    """The files of some rows, without the folder in which the files of all rows lie."""
    paths = [source.split("|")[0] for source in sources]
    shared = f"{folder_of(paths)}/"
    return [paths[row].removeprefix(shared) for row in rows]


def folder_of(paths: Sequence[str]) -> str:
    """The innermost folder that holds all of some files."""
    folders = [path.split("/")[:-1] for path in paths]
    same = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
    return "/".join(names[0] for names in same)


_SCENE = re.compile(r"(.+\.(?:czi|lif|nd2|companion\.ome))#(\d+)", re.IGNORECASE | re.DOTALL)


def without_scene(uri: str) -> tuple[str, int | None]:
    """The file of an address, and which of its images is meant, as in `slide.czi#3`."""
    match = _SCENE.fullmatch(uri)
    return (match[1], int(match[2])) if match else (uri, None)


def is_remote(uri: str) -> bool:
    """Whether this is an address in an object store rather than a path."""
    return "://" in uri


def absolute(uri: str) -> str:
    """The address as a reader in any other folder can use it."""
    return uri if is_remote(uri) or not uri else slashed(os.path.abspath(uri))


def slashed(path: str, separator: str = os.sep) -> str:
    """A path with the slashes that addresses have, which Windows takes as well."""
    return path if separator == "/" else path.replace(separator, "/")


@persistent
def stat(uri: str, *, unsigned: bool = False) -> File:
    """Look at one file; what stands in the way becomes its `problem`. Its `uri` is absolute."""
    uri = absolute(uri)
    try:
        if is_remote(uri):
            store, key = _located(uri, unsigned)
            with store_errors(uri):
                return _remote_file(uri, store.head(key))
        if any("\ud800" <= letter <= "\udfff" for letter in uri):  # no string of a store holds it
            return File(ascii(uri)[1:-1], problem="has a name that is not UTF-8; rename it")
        found = os.stat(uri)
        if not S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            return File(uri, problem="is not a file")
        return File(uri, found.st_size, str(found.st_mtime_ns))
    except ForbiddenError:
        return File(uri, problem=f"{CANNOT_BE_OPENED}: {FORBIDDEN}")
    except StoreError:
        raise
    except OSError as error:
        if not is_of_a_row(error):
            raise
        return File(uri, problem=f"{CANNOT_BE_OPENED}: {reason(error)}")


def walk(folder: str, *, unsigned: bool = False) -> Iterator[File]:
    """Every file below a folder or prefix, but nothing hidden. SourceError where it can't look.

    Links to folders are followed, each folder once: a loop of links ends.
    """
    try:
        yield from _remote_files(folder, unsigned) if is_remote(folder) else _local_files(folder)
    except StoreError:
        raise
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed: {reason(error)}") from error


def _remote_files(folder: str, unsigned: bool) -> Iterator[File]:
    store, prefix = _located(folder, unsigned)
    root, _ = _split(folder)
    for meta in listed(store, prefix, folder):
        below = meta["path"].removeprefix(prefix)
        if not any(part.startswith(".") for part in below.split("/")):
            yield _remote_file(f"{root}/{meta['path']}", meta)


@persistent
def _local_files(folder: str) -> list[File]:
    found = []
    seen = set(map(_place, [Path(folder).resolve(), *Path(folder).resolve().parents]))
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and _is_new(os.path.join(parent, name), seen)
        ]
        for name in [name for name in folders if name.lower().endswith(".zarr")]:
            folders.remove(name)  # one file to us, and thousands to the file system
            found.append(File(absolute(os.path.join(parent, name))))
        found += [stat(os.path.join(parent, name)) for name in names if not name.startswith(".")]
    return found


@persistent
def folders(folder: str, *, unsigned: bool = False) -> list[str]:
    """Names of the folders directly below a prefix of an object store."""
    store, prefix = _located(folder, unsigned)
    with store_errors(folder):
        found = store.list_with_delimiter(f"{prefix.rstrip('/')}/" if prefix else None)
    return [str(one).rstrip("/").rpartition("/")[2] for one in found["common_prefixes"]]


def stats(uris: Sequence[str], *, unsigned: bool = False) -> list[File]:
    """Look at several files, side by side those of an object store."""
    look = partial(stat, unsigned=unsigned)
    return at_once(look, uris) if any(map(is_remote, uris)) else list(map(look, uris))


def content(uri: str, *, unsigned: bool = False) -> bytes | Path:
    """What a reader opens: a path on disk, or the bytes of an object. SourceError."""
    return data(uri, unsigned=unsigned) if is_remote(uri) else Path(uri)


@persistent
def data(uri: str, *, unsigned: bool = False) -> bytes:
    """All bytes of one file. SourceError."""
    try:
        if not is_remote(uri):
            return Path(uri).read_bytes()
        store, key = _located(uri, unsigned)
        return fetched(store, key, uri)
    except ForbiddenError as error:
        raise SourceError(f"{CANNOT_BE_OPENED}: {FORBIDDEN}") from error
    except StoreError:
        raise
    except OSError as error:
        if not is_of_a_row(error):
            raise
        raise SourceError(f"{CANNOT_BE_OPENED}: {reason(error)}") from error


def _located(uri: str, unsigned: bool) -> tuple[Any, str]:
    # Not urlsplit: a key may hold `#` and `?`.
    root, key = _split(uri)
    return (object_store(root, unsigned=True) if unsigned else object_store(root)), key


def _split(uri: str) -> tuple[str, str]:
    scheme, rest = uri.split("://", 1)
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def _remote_file(uri: str, meta: Any) -> File:
    return File(uri, meta["size"], meta["e_tag"] or str(meta["last_modified"]))


def _place(folder: str | Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    place = _place(folder)
    if place in seen:
        return False
    seen.add(place)
    return True


def _raise(error: OSError) -> None:
    raise error
