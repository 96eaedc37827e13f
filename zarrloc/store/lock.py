"""One live run a stage of a store: a file lock beside a local store, a lease beside a remote one.

The kernel frees a file lock when its holder dies. A lease in an object store is taken by
conditional put, renewed every 10 s and dead after 60 s without renewal.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from zarrloc.errors import LockedError, StoreError
from zarrloc.store.location import Location, object_store
from zarrloc.store.remote import BrokenOffError, in_words

HEARTBEAT_S = 10.0
EXPIRY_S = 60.0


@dataclass(frozen=True)
class Holder:
    """Who holds a stage."""

    run: str
    stage: str
    host: str
    pid: int
    since: float
    renewed: float = 0.0

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run} (pid {self.pid} on {self.host}, since {since})"


class StaleRun(RuntimeError):
    """Another run took this stage over: the task must not write."""


@dataclass(frozen=True)
class RunToken:
    """Names the run a task belongs to, and where to ask whether it is still the one."""

    run: str
    lock: str

    def check(self) -> None:
        """Raise `StaleRun` unless this run still holds the stage."""
        now = holder(self.lock)
        if now is None or now.run != self.run:
            raise StaleRun(f"run {self.run} no longer holds {self.lock}")


def holder(lock: str) -> Holder | None:
    """Who wrote the lock at this address last; None where nobody ever did."""
    if "://" in lock:
        found = _get(lock)
        return None if found is None else found[0]
    try:
        with open(lock, encoding="utf-8") as file:
            return Holder(**json.loads(file.read()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def live_holder(location: Location, stage: str) -> Holder | None:
    """Who is writing `stage` of the store now; None where nobody is, or its writer died."""
    lock = _address(location, stage)
    found = holder(lock)
    if found is None or "://" in lock:
        return None if found is None or time.time() - found.renewed >= EXPIRY_S else found
    with open(lock, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return found
    return None


def _address(location: Location, stage: str) -> str:
    return f"{location.beside.uri}/{lock_name(stage)}"


def lock_name(stage: str) -> str:
    """What the lock of a stage is called."""
    return f"{stage.replace('/', '.')}.lock"


@contextmanager
def hold(location: Location, stage: str, run: str) -> Iterator[RunToken]:
    """Hold `stage` (a group path) of the store for run `run`.

    Raises `LockedError` naming the live holder.
    """
    now = time.time()
    me = Holder(run, stage, socket.gethostname(), os.getpid(), now, now)
    lock = _address(location, stage)
    if location.path is None:
        with _lease(location, lock, me) as token:
            yield token
        return
    path = Path(lock)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  held until released
    except OSError as error:
        raise StoreError(
            f"cannot write beside the store, {path.parent}: {error.strerror}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _locked(location, stage, holder(lock)) from error
        _write(file, me)
        try:
            yield RunToken(run, lock)
        finally:
            file.truncate(0)


def _locked(location: Location, stage: str, who: Holder | None) -> LockedError:
    return LockedError(
        f"'{stage}' of {location.uri} is being written by {who or 'another run'}; "
        "wait for it, or stop it first"
    )


def _write(file: IO[str], me: Holder) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(asdict(me)))
    file.flush()


def rewrite(location: Location, key: str, make: Callable[[], bytes]) -> None:
    """Replace one object of the store by `make()`, as if no one else did so meanwhile."""
    if location.path is None:
        _rewrite_remote(location, key, make)
        return
    beside = location.beside.path
    assert beside is not None
    beside.mkdir(parents=True, exist_ok=True)
    with open(beside / "root.lock", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        partial = beside / f"root-{os.getpid()}.partial"
        partial.write_bytes(make())
        partial.replace(location.path / key)


# --- object stores ------------------------------------------------------------------------------


def _split(lock: str) -> tuple[Any, str]:
    prefix, name = lock.rsplit("/", 1)
    return object_store(prefix), name


def _get(lock: str) -> tuple[Holder, dict[str, Any]] | None:
    store, name = _split(lock)
    try:
        with in_words(lock):
            found = store.get(name)
    except FileNotFoundError:
        return None
    tag = {"e_tag": found.meta["e_tag"]}
    if found.meta.get("version"):
        tag["version"] = found.meta["version"]
    return Holder(**json.loads(bytes(found.bytes()))), tag


def _put(lock: str, me: Holder, mode: Any) -> None:
    store, name = _split(lock)
    with in_words(lock):
        store.put(name, json.dumps(asdict(me)).encode(), mode=mode, use_multipart=False)


def _rewrite_remote(location: Location, key: str, make: Callable[[], bytes]) -> None:
    from obstore.exceptions import PreconditionError

    store = object_store(location.uri)
    while True:
        try:
            with in_words(f"{location.uri}/{key}"):
                tag: Any = {"e_tag": store.head(key)["e_tag"]}
                store.put(key, make(), mode=tag, use_multipart=False)
            return
        except (PreconditionError, BrokenOffError):
            continue  # another stage committed in between, or the answer was lost: read again


@contextmanager
def _lease(location: Location, lock: str, me: Holder) -> Iterator[RunToken]:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    found = _get(lock)
    if found is not None and time.time() - found[0].renewed < EXPIRY_S:
        raise _locked(location, me.stage, found[0])
    try:
        _put(lock, me, "create" if found is None else found[1])
    except (AlreadyExistsError, PreconditionError, BrokenOffError) as error:
        there = holder(lock)  # its answer may have been lost
        if there is None or there.run != me.run:
            raise _locked(location, me.stage, there) from error
    token = RunToken(me.run, lock)
    token.check()
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(lock, me, stop), daemon=True)
    beat.start()
    try:
        yield token
    finally:
        stop.set()
        beat.join()
        found = _get(lock)
        if found is not None and found[0].run == me.run:
            store, name = _split(lock)
            with in_words(lock):
                store.delete(name)


def _renew(lock: str, me: Holder, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # The network may be away for a while: the next beat comes in time for the expiry.
        with suppress(Exception):
            found = _get(lock)
            if found is None or found[0].run != me.run:
                return  # taken over: every task's token check now fails, and the run ends
            _put(lock, replace(me, renewed=time.time()), found[1])
