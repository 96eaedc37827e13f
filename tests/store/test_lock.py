import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zarrloc.errors import LockedError, StoreError
from zarrloc.store import lock
from zarrloc.store.location import Location, object_store
from zarrloc.store.lock import Holder, StaleRun, hold, holder, live_holder, rewrite

STAGE = "embeddings/e"
HOLDING = """
import sys, time
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
with hold(Location.of(sys.argv[1]), "embeddings/e", "theirs"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the stage."""
    arguments = [sys.executable, "-c", HOLDING, str(tmp_path / "s")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


# --- beside a local store -----------------------------------------------------------------------


def test_a_second_holder_is_refused_with_the_first_ones_name(
    tmp_path: Path, elsewhere: "subprocess.Popen[str]"
) -> None:
    location = Location.of(tmp_path / "s")
    who = live_holder(location, STAGE)
    assert who is not None
    assert (who.run, who.pid, who.stage) == ("theirs", elsewhere.pid, STAGE)
    with pytest.raises(LockedError, match=rf"run theirs \(pid {elsewhere.pid} on .*stop it"):  # noqa: SIM117
        with hold(location, STAGE, "mine"):
            pass
    with hold(location, "fovs", "another stage"):
        pass


def test_a_killed_holder_never_blocks(tmp_path: Path, elsewhere: "subprocess.Popen[str]") -> None:
    location = Location.of(tmp_path / "s")
    os.kill(elsewhere.pid, signal.SIGKILL)
    elsewhere.wait()
    assert live_holder(location, STAGE) is None
    with hold(location, STAGE, "mine") as token:
        token.check()
        assert live_holder(location, STAGE) is not None
    assert holder(token.lock) is None
    with pytest.raises(StaleRun):
        token.check()


def test_nothing_lies_in_the_store_and_what_lies_beside_it_must_be_writable(tmp_path: Path) -> None:
    with hold(Location.of(tmp_path / "s"), STAGE, "mine"):
        assert not (tmp_path / "s").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write beside the store"):  # noqa: SIM117
        with hold(Location.of(tmp_path / "file/s"), STAGE, "mine"):
            pass


@pytest.mark.parametrize("remote", [False, True])
def test_one_object_is_rewritten_by_one_at_a_time(tmp_path: Path, remote: bool) -> None:
    location = Location.of(f"memory://rewritten-{tmp_path}" if remote else tmp_path / "s")

    def read() -> bytes:
        if location.path is not None:
            return (location.path / "count").read_bytes()
        return bytes(object_store(location.uri).get("count").bytes())

    if location.path is None:
        object_store(location.uri).put("count", b"0")
    else:
        location.path.mkdir()
        (location.path / "count").write_bytes(b"0")

    def count() -> None:
        for _ in range(20):
            rewrite(location, "count", lambda: b"%d" % (int(read()) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read() == b"80"


NO_FLOCK = """
import errno, fcntl, os
def flock(*_):
    raise OSError({number}, os.strerror({number}))
fcntl.flock = flock
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_locked_by_another_run(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location.of(tmp_path / "s")

    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with hold(location, STAGE, "first") as token:
        token.check()
        assert live_holder(location, STAGE) is not None
        with pytest.raises(LockedError, match="run first"):  # noqa: SIM117
            with hold(location, STAGE, "second"):
                pass
    assert live_holder(location, STAGE) is None
    script = NO_FLOCK.format(number=number) + HOLDING
    arguments = [sys.executable, "-c", script, location.uri]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"pid {process.pid}"):  # noqa: SIM117
            with hold(location, STAGE, "third"):
                pass
        process.kill()
    with hold(location, STAGE, "fourth") as token:  # a marker does not outlive its holder
        token.check()


def test_what_stands_in_the_way_of_a_lock_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(StoreError, match="Input/output error"):  # noqa: SIM117
        with hold(Location.of(tmp_path / "s"), STAGE, "mine"):
            pass


# --- in an object store -------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path: Path) -> Location:
    return Location.of(f"memory://{tmp_path}")


def _address(location: Location) -> str:
    return f"{location.beside.uri}/embeddings.e.lock"


def test_a_lease_is_held_and_given_back(remote: Location) -> None:
    with hold(remote, STAGE, "first") as token:
        token.check()
        with pytest.raises(LockedError, match="run first"):  # noqa: SIM117
            with hold(remote, STAGE, "second"):
                pass
        token.check()
    assert holder(token.lock) is None
    with hold(remote, STAGE, "third") as token:
        token.check()


def test_a_lease_is_renewed_and_outlives_its_expiry(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(lock, "EXPIRY_S", 0.5)
    with hold(remote, STAGE, "first") as token:
        time.sleep(0.8)
        token.check()
        with pytest.raises(LockedError):  # noqa: SIM117
            with hold(remote, STAGE, "second"):
                pass


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_learns_it(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(lock.time, "time", lambda: now[0])
    with ExitStack() as stack:
        dead = stack.enter_context(hold(remote, STAGE, "dead"))
        now[0] += lock.EXPIRY_S - 1
        with pytest.raises(LockedError):
            stack.enter_context(hold(remote, STAGE, "too early"))
        now[0] += 2
        assert live_holder(remote, STAGE) is None
        alive = stack.enter_context(hold(remote, STAGE, "alive"))
        alive.check()
        with pytest.raises(StaleRun, match="run dead no longer holds"):
            dead.check()
    assert holder(alive.lock) is None


def _died_here(location: Location) -> Holder:
    """A lease whose holder ran here, was renewed a moment ago, and lives no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    now = time.time()
    dead = Holder("dead", STAGE, "here", process.pid, now - 9, now, lock.this_machine())
    lock._put(_address(location), dead, "create")
    return dead


def test_a_process_that_died_here_is_followed_at_once(remote: Location) -> None:
    _died_here(remote)
    assert live_holder(remote, STAGE) is None
    begin = time.monotonic()
    with hold(remote, STAGE, "mine") as token:
        token.check()
    assert time.monotonic() - begin < 1


def test_a_number_that_another_process_has_now_is_no_sign_of_life(remote: Location) -> None:
    now = time.time()
    long_ago = Holder("dead", STAGE, "here", os.getpid(), now - 1e6, now, lock.this_machine())
    lock._put(_address(remote), long_ago, "create")
    with hold(remote, STAGE, "mine") as token:
        token.check()


@pytest.mark.parametrize("lives", [False, True])
def test_a_holder_elsewhere_is_given_time_for_a_sign_of_life(
    lives: bool, remote: Location, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lock, "EXPIRY_S", 1.0)
    monkeypatch.setattr(lock, "LOOK_S", 0.05)
    elsewhere = Holder("theirs", STAGE, "there", 1, time.time(), time.time(), "another")
    lock._put(_address(remote), elsewhere, "create")
    looks, get = iter(range(1000)), lock._get

    def renewing(address: str) -> Any:
        if lives and next(looks) == 3:
            lock._put(address, replace(elsewhere, renewed=time.time() + 0.1), "overwrite")
        return get(address)

    monkeypatch.setattr(lock, "_get", renewing)
    begin = time.monotonic()
    if lives:
        with pytest.raises(LockedError, match="run theirs"):  # noqa: SIM117
            with hold(remote, STAGE, "mine"):
                pass
        assert time.monotonic() - begin < 0.9
    else:
        with hold(remote, STAGE, "mine") as token:
            token.check()
        assert 0.8 < time.monotonic() - begin < 3
    assert "waiting up to 1 s for a sign of life" in caplog.text


def test_of_two_contenders_one_gets_the_lease(remote: Location) -> None:
    start, got = threading.Barrier(6), []
    leave = threading.Event()

    def contend(run: str) -> None:
        start.wait()
        try:
            with hold(remote, STAGE, run):
                got.append(run)
                while len(got) < 6 and not leave.wait(0.05):
                    pass
        except LockedError:
            got.append("")
        if len(got) == 6:
            leave.set()

    threads = [threading.Thread(target=contend, args=(f"run{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got)[:5] == [""] * 5
    assert sorted(got)[5].startswith("run")


def test_a_beat_that_fails_is_not_the_last(
    remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.02)
    put, calls = lock._put, iter(range(1000))

    def failing(*arguments: object) -> None:
        if 1 <= next(calls) < 4:
            raise OSError("the network is away")
        put(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(lock, "_put", failing)
    with hold(remote, STAGE, "first"):
        first = holder(_address(remote))
        time.sleep(0.6)
        later = holder(_address(remote))
    assert first is not None
    assert later is not None
    assert later.renewed > first.renewed
