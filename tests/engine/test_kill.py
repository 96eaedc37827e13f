"""Deaths in the middle of a run, of a worker and of the coordinator: nothing but time is lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import psutil
import pytest
import zarr

from tests.engine.toys import GROUP, LOCAL, run_toy
from tests.objects import assert_nothing_but_zarr, assert_same
from zarrloc.engine.verify import verify
from zarrloc.store.info import info

REPOSITORY = Path(__file__).parents[2]
ROWS = 400
GUARDED = f"""
import sys
from tests.engine.toys import LOCAL, run_toy

if __name__ == "__main__":
    try:
        sys.exit(run_toy(sys.argv[1], rows={ROWS}, nap=0.2, config=LOCAL).exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped")
"""
UNGUARDED = """
import sys
from tests.engine.toys import LOCAL, run_toy

run_toy(sys.argv[1], config=LOCAL)
"""


def _until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _script(
    folder: Path, text: str, *arguments: object, inherited: Any = signal.default_int_handler
) -> "subprocess.Popen[str]":
    path = folder / "script.py"
    path.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, inherited),  # whatever pytest has itself
    )


def _blocks_logged(store: Path) -> int:
    logs = store.with_name(f"{store.name}.runs").glob("*.jsonl")
    return sum(log.read_text().count('"event": "block"') for log in logs)


def _done(store: Path) -> int:
    try:
        group = zarr.open_group(store, path=GROUP, mode="r")
        return int(np.count_nonzero(group["block_output"][:]))  # type: ignore[index, arg-type]
    except (FileNotFoundError, KeyError):
        return 0


@contextmanager
def _running(
    folder: Path, store: Path, inherited: Any = signal.default_int_handler
) -> Iterator["subprocess.Popen[str]"]:
    """A run that has some receipts in the store and has not come to its end."""
    process = _script(folder, GUARDED, store, inherited=inherited)
    try:
        _until(lambda: process.poll() is not None or _done(store) > 0)
        assert process.poll() is None, process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate()


def _finished(store: Path, whole: Path) -> None:
    """What is left is done by the same command, and nothing tells that there was a break."""
    done = _done(store)
    assert 0 < done < ROWS // 4
    assert run_toy(store, rows=ROWS).blocks_run == ROWS // 4 - done
    verify(store, repair=True)  # a killed write may leave a `.partial` file
    run_toy(whole, rows=ROWS)
    assert_same(store, whole, GROUP)
    assert_nothing_but_zarr(store)
    assert all(not found.bad for found in verify(store, deep=True))


def test_the_coordinator_is_killed(tmp_path: Path) -> None:
    with _running(tmp_path, tmp_path / "s") as process:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        # Its lock died with it, and its workers follow.
        assert "held_by" not in info(tmp_path / "s")["groups"][GROUP]
        _until(lambda: not any(worker.is_running() for worker in workers))
    _finished(tmp_path / "s", tmp_path / "whole")


@pytest.mark.parametrize(
    ("how", "to_all", "inherited"),
    [
        (signal.SIGINT, True, signal.SIG_IGN),
        pytest.param(signal.SIGINT, True, signal.default_int_handler, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, signal.SIG_IGN, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_stopped(
    tmp_path: Path, how: signal.Signals, to_all: bool, inherited: signal.Handlers
) -> None:
    with _running(tmp_path, tmp_path / "s", inherited) as process:
        # A terminal's Ctrl-C reaches the workers too, a batch system's SIGTERM the coordinator.
        (os.killpg if to_all else os.kill)(process.pid, how)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert said.strip().splitlines()[-1] == "stopped", said
    assert "Traceback" not in said, said
    _finished(tmp_path / "s", tmp_path / "whole")


def test_a_worker_is_killed(tmp_path: Path) -> None:
    store = tmp_path / "s"

    def kill() -> None:
        _until(lambda: _blocks_logged(store) > 8)
        named = (
            child for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())
        )
        next(named).kill()

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run_toy(store, rows=ROWS, nap=0.05, config=LOCAL)
    killer.join()
    assert (summary.exit_code, summary.blocks_run) == (0, ROWS // 4)
    log = next((tmp_path / "s.runs").glob("*.jsonl")).read_text()
    assert '"event": "suspect"' in log
    verify(store, repair=True)
    run_toy(tmp_path / "whole", rows=ROWS)
    assert_same(store, tmp_path / "whole", GROUP)


@pytest.mark.skipif(
    tuple(map(int, distributed.__version__.split(".")[:2])) < (2026, 6),
    reason="older Dask starts workers that die again and again, for minutes, before it gives up",
)
def test_a_script_without_a_guard_is_an_error(tmp_path: Path) -> None:
    _, said = _script(tmp_path, UNGUARDED, tmp_path / "s").communicate(timeout=200)
    assert "WorkerError" in said
    assert "`if __name__ == '__main__':`" in said.strip().splitlines()[-1]
