"""Where a store lives: a local directory or an object-store prefix, and what lies beside it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from zarrloc.errors import StoreError
from zarrloc.store.remote import RemoteStore
from zarrloc.store.remote import object_store as object_store
from zarrloc.store.retry import persistent


@dataclass(frozen=True)
class Location:
    """A store's address, cheap to send to a worker. Open handles are made where they are used."""

    uri: str

    @classmethod
    def of(cls, where: "str | Path | Location") -> "Location":
        """A local path (made absolute) or a URL such as `s3://bucket/name.zarr`."""
        if isinstance(where, Location):
            return where
        text = str(where)
        if text.startswith("file://"):
            text = url2pathname(urlsplit(text).path) or "/"
        if "://" in text:
            return cls(text.rstrip("/"))
        path = Path(text).expanduser().resolve()
        if path == Path(path.anchor):
            raise StoreError(f"{where} is the root of the file system; name a folder in it")
        return cls(path.as_posix())

    @property
    def path(self) -> Path | None:
        """The local directory, or None for an object store."""
        return None if "://" in self.uri else Path(self.uri)

    @property
    def name(self) -> str:
        """The store's own name, such as `oc.zarr`."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def shown(self) -> str:
        """What to call it in a command: a local store's name, or the whole address."""
        return self.uri if self.path is None else self.name

    @property
    def beside(self) -> "Location":
        """Where locks and run logs go: beside the store, never into it."""
        return Location(f"{self.uri}.runs")

    def store(self, *, read_only: bool = False) -> Store:
        """A zarr store object for this address."""
        if self.path is not None:
            return LocalStore(self.path, read_only=read_only)
        return RemoteStore.at(self.uri, read_only=read_only)

    @persistent
    def group(self, path: str, *, mode: str = "r+") -> zarr.Group:
        """One group as it was last committed. Raises `StoreError` where it is absent."""
        store = self.store(read_only=mode == "r")
        try:
            # The format is said: zarr would otherwise look for files of format 2, too.
            options: Any = {"mode": mode, "zarr_format": 3, "use_consolidated": None}
            return zarr.open_group(store, path=path, **options)
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise StoreError(
                f"no group '{path}' in {self.uri}; `zarrloc info` lists what is there"
            ) from error

    def read_json(self, key: str) -> dict[str, Any]:
        """A JSON object of the store, such as a group's metadata."""
        if self.path is not None:
            return dict(json.loads((self.path / key).read_bytes()))
        return dict(json.loads(bytes(object_store(self.uri).get(key).bytes())))


@dataclass
class StoreClock:
    """Seconds spent reading images and masks from a store, and the bytes they are when decoded.

    Examples
    --------
    >>> clock = StoreClock()
    >>> with clock.running():
    ...     clock.bytes += len(b"what was read")
    >>> clock.bytes, clock.seconds > 0
    (13, True)
    """

    seconds: float = 0.0
    bytes: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of this block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
