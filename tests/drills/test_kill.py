"""`kill -9` of worker, coordinator or both, at random moments of each stage.

The same command then ends with the arrays and chunk objects of a run that nothing befell. A victim
without workers dies just before one of its operations on files, each as likely as another; one
with workers is killed from outside, at any time.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import psutil
import pytest

from tests.drills.pipeline import LOCAL, SERIAL, Tally, draws
from tests.drills.victims import CONTEXT, RAISED, SECONDS, count, saying, start
from tests.drills.works import PREPARED, Work, Works

KILLS = 5
"""Of each stage, in `make drill`."""

WHOM = ("worker", "coordinator", "both")
POOLED = (
    "ingest",
    "segment",
    "cells",
    "embed fields",
    "embed cells",
)  # what a pool of workers does


def _die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kills_itself(work: Work, rng: np.random.Generator, operations: int) -> str:
    store = work.fresh("victim.zarr")
    deadly, counted = int(rng.integers(operations)) + 1, CONTEXT.Value("L", 0, lock=False)
    process = start(work.do, store, SERIAL, partial(count, store, counted, deadly, _die))
    process.join(SECONDS)
    assert process.exitcode is not None, "hangs"
    said = saying(process, store)
    assert process.exitcode != RAISED, said
    work.finish(store)
    return _ended(process)


def _is_killed(work: Work, rng: np.random.Generator, seconds: float, whom: str) -> str:
    """Kill a worker, the coordinator or both, at any time from the first worker's start."""
    store = work.fresh("victim.zarr")
    process = start(work.do, store, LOCAL)
    own = psutil.Process(process.pid)
    _until_a_worker_is_there(process, own)
    process.join(rng.uniform(0, seconds))
    workers = _workers(own)
    if whom != "worker":
        process.kill()
    for worker in {"worker": workers[:1], "coordinator": [], "both": workers}[whom]:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    process.join(SECONDS)
    assert process.exitcode is not None, "hangs"
    said = saying(process, store)
    assert process.exitcode != RAISED, said
    assert work.do(store, SERIAL) == 0  # while orphaned workers may still be at it
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, f"{len(alive)} workers live on"
    work.finish(store)
    return _ended(process)


def _ended(process: Any) -> str:
    return "ended" if process.exitcode else "went on to the end"


def _until_a_worker_is_there(process: Any, own: psutil.Process) -> None:
    end = time.monotonic() + SECONDS
    while process.is_alive() and not _workers(own):
        assert time.monotonic() < end, "no worker in all this time"
        time.sleep(0.05)


def _workers(own: psutil.Process) -> list[psutil.Process]:
    try:
        return [one for one in own.children(recursive=True) if "spawn_main" in str(one.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _seconds_with_workers(work: Work) -> float:
    """How long the work takes from the first worker's start, undisturbed."""
    store = work.fresh("measured.zarr")
    process = start(work.do, store, LOCAL)
    _until_a_worker_is_there(process, psutil.Process(process.pid))
    begun = time.monotonic()
    process.join(SECONDS)
    said = saying(process, store)
    assert process.exitcode == 0, said
    work.assert_done(store)
    return time.monotonic() - begun


def _drill_alone(works: Works, names: Iterable[str], kills: int, seed: int) -> None:
    tally = Tally()
    for turn, name in enumerate(names):
        work = works[name]
        operations = work.operations()
        for n, rng in enumerate(draws(kills, seed + turn)):
            with tally.of(f"{name}, kill {n}"):
                tally.ended[_kills_itself(work, rng, operations)] += 1
    tally.tell("kill -9 before any operation on files")


def test_a_draw_of_kills(works: Works) -> None:
    _drill_alone(works, ["append", "segment"], 2, seed=1)


@pytest.mark.drill
def test_kills_before_any_operation_on_files(works: Works) -> None:
    _drill_alone(works, PREPARED, KILLS, seed=2)


@pytest.mark.drill
@pytest.mark.parametrize("name", POOLED)
def test_kills_of_workers_and_coordinators(works: Works, name: str) -> None:
    tally = Tally()
    work = works[name]
    seconds = _seconds_with_workers(work)
    for n, rng in enumerate(draws(2 * len(WHOM), 3 + POOLED.index(name))):
        whom = WHOM[n % len(WHOM)]
        with tally.of(f"{name}, {whom}, kill {n}"):
            tally.ended[f"{whom}: {_is_killed(work, rng, seconds, whom)}"] += 1
    tally.tell("kill -9 of processes")
