"""One live run a stage of a store: a file lock beside a local store, a lease beside a remote one.

The kernel frees a file lock when its holder dies; where the file system has none (Lustre, some
NFS), a marker file takes its place. A lease in an object store is taken by conditional put, renewed
every 10 s and dead after 60 s without renewal, or as soon as its holder is known to be dead.
"""

import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from zarrloc.errors import LockedError, StoreError
from zarrloc.store.location import Location, object_store
from zarrloc.store.remote import BrokenOffError, store_errors

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
EXPIRY_S = 60.0
LOOK_S = 1.0
"""How often a lease that may be dead is looked at."""


NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no file locks."""

SOFT = ".softlock"


@dataclass(frozen=True)
class Holder:
    """Who holds a stage."""

    run: str
    stage: str
    host: str
    pid: int
    since: float
    renewed: float = 0.0
    machine: str = ""
    """Where `pid` means this process and no other: since its boot, and in its container."""

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process does."""
        return self.machine == this_machine() != ""

    @property
    def is_dead(self) -> bool:
        """Whether it ran here, and does no longer."""
        import psutil  # type: ignore[import-untyped]

        if not self.is_here:
            return False
        try:
            # A later process may have been given its number.
            return float(psutil.Process(self.pid).create_time()) > self.since + 1
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"run {self.run} (pid {self.pid} on {self.host}, since {since})"


@cache
def this_machine() -> str:
    """The boot and the space of process numbers that this process lives in; "" where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


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
    if found is None or found.is_dead:
        return None
    if "://" in lock:
        return None if time.time() - found.renewed >= EXPIRY_S else found
    if found.is_here:
        return found
    with suppress(Timeout, OSError):
        _acquired(Path(lock)).release()
        return None
    return found


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
    me = Holder(run, stage, socket.gethostname(), os.getpid(), now, now, this_machine())
    lock = _address(location, stage)
    if location.path is None:
        with _lease(location, lock, me) as token:
            yield token
        return
    path = Path(lock)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = _acquired(path)
    except Timeout as error:
        raise _locked(location, stage, holder(lock), path.with_suffix(SOFT)) from error
    except OSError as error:
        raise StoreError(
            f"cannot write beside the store, {path.parent}: {error.strerror or error}"
        ) from error
    try:
        path.write_text(json.dumps(asdict(me)), encoding="utf-8")
        yield RunToken(run, lock)
    finally:
        path.write_text("", encoding="utf-8")
        there.release()


def _acquired(path: Path, timeout: float = 0) -> BaseFileLock:
    """The lock that belongs to `path`, held. Raises `Timeout`, or `OSError` where none is had."""
    lock: BaseFileLock = FileLock(path.with_suffix(".flock"), fallback_to_soft=False)
    try:
        return lock.acquire(timeout=timeout).lock
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    # Its very existence is the lock: a file that a file lock has left behind would pass for it.
    return SoftFileLock(path.with_suffix(SOFT)).acquire(timeout=timeout).lock


def _locked(
    location: Location, stage: str, who: Holder | None, marker: Path | None = None
) -> LockedError:
    elsewhere = who is not None and not who.is_here and marker is not None and marker.exists()
    died = f" (if it is known to be dead, delete {marker})" if elsewhere else ""
    return LockedError(
        f"'{stage}' of {location.uri} is being written by {who or 'another run'}; "
        f"wait for it, or stop it first{died}"
    )


def rewrite(location: Location, key: str, make: Callable[[], bytes]) -> None:
    """Replace one object of the store by `make()`, as if no one else did so meanwhile."""
    if location.path is None:
        _rewrite_remote(location, key, make)
        return
    beside = location.beside.path
    assert beside is not None
    beside.mkdir(parents=True, exist_ok=True)
    lock = _acquired(beside / "root.lock", timeout=-1)
    try:
        partial = beside / f"root-{os.getpid()}.partial"
        partial.write_bytes(make())
        partial.replace(location.path / key)
    finally:
        lock.release()


# --- object stores ------------------------------------------------------------------------------


def _split(lock: str) -> tuple[Any, str]:
    prefix, name = lock.rsplit("/", 1)
    return object_store(prefix), name


def _get(lock: str) -> tuple[Holder, dict[str, Any]] | None:
    store, name = _split(lock)
    try:
        with store_errors(lock):
            found = store.get(name)
    except FileNotFoundError:
        return None
    tag = {"e_tag": found.meta["e_tag"]}
    if found.meta.get("version"):
        tag["version"] = found.meta["version"]
    return Holder(**json.loads(bytes(found.bytes()))), tag


def _put(lock: str, me: Holder, mode: Any) -> None:
    store, name = _split(lock)
    with store_errors(lock):
        store.put(name, json.dumps(asdict(me)).encode(), mode=mode, use_multipart=False)


def _rewrite_remote(location: Location, key: str, make: Callable[[], bytes]) -> None:
    from obstore.exceptions import PreconditionError

    store = object_store(location.uri)
    while True:
        try:
            with store_errors(f"{location.uri}/{key}"):
                tag: Any = {"e_tag": store.head(key)["e_tag"]}
                store.put(key, make(), mode=tag, use_multipart=False)
            return
        except (PreconditionError, BrokenOffError):
            continue  # another stage committed in between, or the answer was lost: read again


@contextmanager
def _lease(location: Location, lock: str, me: Holder) -> Iterator[RunToken]:
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    found = _outlived(location, lock, me.stage)
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
            with store_errors(lock):
                store.delete(name)


def _outlived(location: Location, lock: str, stage: str) -> tuple[Holder, dict[str, Any]] | None:
    """What stands at the lock, once its holder is dead. Raises `LockedError` where it lives."""
    found = _get(lock)
    if found is None or found[0].is_dead:
        return found
    first = found[0]
    if first.is_here and time.time() - first.renewed < EXPIRY_S:
        raise _locked(location, stage, first)
    announced = False
    while found is not None and (left := first.renewed + EXPIRY_S - time.time()) > 0:
        if found[0] != first:  # it was renewed
            raise _locked(location, stage, found[0])
        if not announced:
            log.warning(
                "'%s' of %s was last written by %s: waiting up to %.0f s for a sign of life",
                *(stage, location.uri, first, left),
            )
            announced = True
        time.sleep(min(LOOK_S, left))
        found = _get(lock)
    if found is not None and found[0] != first:
        raise _locked(location, stage, found[0])
    return found


def _renew(lock: str, me: Holder, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # The network may be away for a while: the next beat comes in time for the expiry.
        with suppress(Exception):
            found = _get(lock)
            if found is None or found[0].run != me.run:
                return  # taken over: every task's token check now fails, and the run ends
            _put(lock, replace(me, renewed=time.time()), found[1])
