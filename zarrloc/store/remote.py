"""Object stores: their clients, and messages for their failures.

Credentials, region and endpoint come from the environment, as each provider names them; README's
"Object stores" lists them. A failed request is tried again for a minute before it is an error.
"""

import asyncio
import itertools
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from zarr.storage import ObjectStore as ZarrObjectStore

from zarrloc.errors import RemoteError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

RETRY: Any = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15)},
    "retry_timeout": timedelta(seconds=60),
}
"""Bursts of 503 pass within it; what lasts longer is an error, and the same command continues."""

CLIENT: Any = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    # Of a whole answer: a shard of 128 MiB over a slow line takes its minutes.
    "timeout": timedelta(seconds=600),
}

AT_ONCE = 16
"""Requests in flight: most of a request's time is waiting."""

CONNECT_S = 5.0
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")

T = TypeVar("T")
R = TypeVar("R")


class ForbiddenError(StoreError):
    """This object may not be read, or not with these credentials."""


class BrokenOffError(RemoteError):
    """The connection ended in the middle of an answer."""


@cache
def object_store(uri: str, *, unsigned: bool = False) -> "ObjectStore":
    """The client of a URL, or of a prefix; `unsigned` for a public bucket.

    `memory://NAME` lives in this process alone.

    Raises
    ------
    StoreError
        Where the address or the settings cannot be right, or nothing listens at the endpoint.
    """
    from obstore.exceptions import BaseError
    from obstore.store import MemoryStore, from_url

    if uri.startswith("memory://"):
        return MemoryStore()
    endpoint = endpoint_of(uri)
    if endpoint:
        _check_endpoint(endpoint)
    config: Any = {"skip_signature": True} if unsigned else {}
    if endpoint and uri.startswith("s3"):
        config["endpoint"] = endpoint
    client = {**CLIENT, "allow_http": _http_allowed()}  # given options hide the environment's
    try:
        make: Any = from_url  # whose options differ from provider to provider
        store: ObjectStore = make(
            uri, config=config or None, client_options=client, retry_config=RETRY
        )
        return store
    except (BaseError, ValueError) as error:
        raise StoreError(
            f"{uri}: {_first_line(error)}; expected a folder, or an address such as "
            "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
        ) from error


def endpoint_of(uri: str) -> str:
    """The endpoint that the environment names for an S3 address; "" for the provider's own."""
    if not uri.startswith("s3"):
        return ""
    return next((value for name in ENDPOINTS if (value := os.environ.get(name, ""))), "")


@cache
def _check_endpoint(endpoint: str) -> None:
    """Refuse, within a moment, an endpoint that can't be used. The client itself takes a minute."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError(
            f"AWS_ENDPOINT_URL is {endpoint!r}; expected an address such as https://HOST:PORT"
        )
    if parts.scheme == "http" and not _http_allowed():
        raise StoreError(
            f"AWS_ENDPOINT_URL is {endpoint}, without encryption; set AWS_ALLOW_HTTP=true if that "
            "is meant"
        )
    if any(os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES):
        return  # a proxy may reach what this process cannot
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"no object store answers at {endpoint} ({_reason(error)}); check AWS_ENDPOINT_URL and "
            "whether the server runs"
        ) from error


def _http_allowed() -> bool:
    found = [os.environ.get(f"{cloud}ALLOW_HTTP", "") for cloud in ("AWS_", "AZURE_", "")]
    return any(value.lower() in ("1", "true", "yes", "on", "y") for value in found)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# --- messages for failures -----------------------------------------------------------------------

REFUSED = {
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "AccessDenied": "access denied",
    "AuthorizationHeaderMalformed": "the region is another",
    "PermanentRedirect": "the bucket is in another region",
}
KEYS = (
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION, or read a "
    "public bucket with --unsigned"
)


def as_store_error(error: BaseException, where: str) -> StoreError:
    """An obstore error as one line with its cure.

    Gives a `StoreError` for what only the user can mend (bucket, credentials, region), else a
    `RemoteError`: the same command continues once the store answers.
    """
    text = str(error)
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        at = endpoint_of(where)
        return StoreError(
            f"there is no bucket '{urlsplit(where).netloc}'{f' at {at}' if at else ''}; make it "
            "first, or check the address"
        )
    if "MissingAccessKeyId" in text or "Missing AccessKeyId" in text or "169.254." in text:
        return StoreError(f"{where}: no credentials for the object store; {KEYS}")
    if "BadScheme" in text or "builder error" in text:
        return StoreError(
            f"{where}: the endpoint is plain http; set AWS_ALLOW_HTTP=true if that is meant"
        )
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d{3})", text)
    refused = code is not None and code[1] in REFUSED
    if refused or (status is not None and status[1] in ("401", "403")):
        why = REFUSED.get(code[1] if code else "", f"answer {status[1] if status else '403'}")
        kind = ForbiddenError if why in (REFUSED["AccessDenied"], "answer 403") else StoreError
        return kind(f"{where}: the object store refuses ({why}); {KEYS}")
    sort = RemoteError
    if status is not None:
        why = f"answers {status[1]}{f' {code[1]}' if code else ''}"
    elif "timed out" in text or "Timeout" in text:
        why = "did not answer in time"
    elif "kind: Connect" in text:
        why = "cannot be reached"
    elif re.search(r"kind: (Interrupted|Body|Decode|Request)|IncompleteMessage", text):
        sort, why = BrokenOffError, "broke off its answer"
    else:
        why = f"failed: {_first_line(error)}"
    return sort(f"{where}: the object store {why}; the same command continues from here")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turn obstore's errors into ours, but for FileNotFoundError: an object that is absent."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
            raise as_store_error(error, where) from error
        raise
    except (BaseError, PermissionError) as error:
        raise as_store_error(error, where) from error


TRIES = 4
PAUSE_S = 0.2
"""The client itself repeats what is refused, but not what breaks off in the middle."""


def fetched(store: Any, key: str, where: str) -> bytes:
    """All bytes of an object, as often tried as it takes. Raises `FileNotFoundError`."""
    for attempt in itertools.count(1):
        try:
            with store_errors(where):
                return bytes(store.get(key).bytes())
        except BrokenOffError:
            if attempt == TRIES:
                raise
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


def listed(store: Any, prefix: str | None, where: str) -> Iterator[Any]:
    """What the store says of each object below a prefix; where it breaks off, it is asked on.

    A listing comes in the order of its keys, a page at a time.
    """
    last, attempt = None, 0
    while True:
        try:
            with store_errors(where):
                for batch in store.list(prefix, offset=last):
                    for one in batch:
                        yield one
                        last, attempt = one["path"], 0
                return
        except BrokenOffError:
            attempt += 1
            if attempt == TRIES:
                raise
            time.sleep(PAUSE_S * 2**attempt)


def at_once(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` of each item, side by side, their results in order."""
    items = list(items)
    contexts = [copy_context() for _ in items]  # of the snapshot
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda context, item: context.run(function, item), contexts, items))


# --- the store that zarr reads and writes -------------------------------------------------------

_SNAPSHOT: ContextVar[dict[str, bytes | None] | None] = ContextVar("snapshot", default=None)


@contextmanager
def snapshot() -> Iterator[None]:
    """Fetch each whole object at most once within this block, which must not write.

    For a look at a store that answers "is there anything to do": its metadata and columns are
    asked for by many readers, and a request takes tens of milliseconds. One inside another
    shares its memory.
    """
    token = _SNAPSHOT.set({} if held() is None else held())
    try:
        yield
    finally:
        _SNAPSHOT.reset(token)


@contextmanager
def present() -> Iterator[None]:
    """Leave the snapshot for this block: fetch what is there now, and write.

    What the snapshot held is forgotten: it may have been written over.
    """
    before = held()
    token = _SNAPSHOT.set(None)
    try:
        yield
    finally:
        _SNAPSHOT.reset(token)
        if before is not None:
            before.clear()


def held() -> dict[str, bytes | None] | None:
    """What the current snapshot has fetched, by address; None outside of one."""
    return _SNAPSHOT.get()


class RemoteStore(ZarrObjectStore[Any]):
    """zarr's store over obstore, with messages for failures and the current snapshot's memory."""

    def __init__(
        self, store: Any, *, read_only: bool = False, uri: str = "", memory: Any = None
    ) -> None:
        super().__init__(store, read_only=read_only)
        self.uri, self.memory = uri, memory

    @classmethod
    def at(cls, uri: str, *, read_only: bool = False) -> "RemoteStore":
        """The store at an address."""
        return cls(object_store(uri), read_only=read_only, uri=uri, memory=held())

    def with_read_only(self, read_only: bool = False) -> "RemoteStore":
        """The same store, read-only or not."""
        return type(self)(self.store, read_only=read_only, uri=self.uri, memory=self.memory)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """The object's bytes, or None where there is none."""
        where = f"{self.uri}/{key}"
        if self.memory is not None and byte_range is None and where in self.memory:
            known = self.memory[where]
            return None if known is None else prototype.buffer.from_bytes(known)
        found = await self._tried(
            where, lambda: ZarrObjectStore.get(self, key, prototype, byte_range)
        )
        if self.memory is not None and byte_range is None:
            self.memory[where] = None if found is None else found.to_bytes()
        return found

    async def _tried(self, where: str, call: Callable[[], Awaitable[T]]) -> T:
        for attempt in itertools.count(1):
            try:
                with store_errors(where):
                    return await call()
            except BrokenOffError:
                if attempt == TRIES:
                    raise
                await asyncio.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        with store_errors(f"{self.uri}/{key}"):
            return await super().exists(key)

    async def set(self, key: str, value: Any) -> None:
        """Replace the object."""
        await self._tried(f"{self.uri}/{key}", lambda: ZarrObjectStore.set(self, key, value))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        with store_errors(f"{self.uri}/{key}"):
            await super().delete(key)

    async def getsize(self, key: str) -> int:
        """The object's size in bytes. Raises `FileNotFoundError` where there is none."""
        return await self._tried(f"{self.uri}/{key}", lambda: ZarrObjectStore.getsize(self, key))
