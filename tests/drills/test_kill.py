"""`kill -9` of worker, coordinator or both, at random moments of each stage.

The same command then ends with the arrays and chunk objects of a run that nothing befell. A victim
without workers dies just before one of its operations on files, each as likely as another; one
with workers is killed from outside, at any time.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.drills.pipeline import (
    LOCAL,
    PRETRAINING,
    SERIAL,
    STAGES,
    Tally,
    assert_whole,
    draws,
    judge,
    make_images,
    relabel,
    run_of,
)
from tests.drills.victims import CONTEXT, RAISED, SECONDS, Do, load_once, saying, start
from zarrloc.config.run import RunConfig
from zarrloc.engine.verify import verify

FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Operations on files, as Python's audit events name them."""

SERIAL_KILLS, CLUSTER_KILLS = 6, 6
"""Of each stage, in `make drill`."""


@dataclass
class Work:
    """What is killed, the store it starts from, and the store it is to end with."""

    do: Do
    before: Path | None
    after: Path
    operations: int = 0
    seconds: float = 0.0


def _die(folder: str, count: Any, deadly: int) -> None:
    """Have this process die before its `deadly`th operation on files of the drill."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FILES and str(arguments[0]).startswith(folder):
            count.value += 1
            if count.value == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(heard)


def _counted(work: Work, store: Path, deadly: int = 0) -> tuple[Any, Any]:
    count = CONTEXT.Value("L", 0, lock=False)
    return start(
        work.do, store, SERIAL, partial(_die, str(store.with_suffix("")), count, deadly)
    ), count


PREPARED: dict[str, Do] = {
    "append": STAGES["ingest"],
    "ingest": STAGES["ingest"],
    "relabel": relabel,
    "ingest --overwrite": partial(STAGES["ingest"], overwrite=True),
    **{name: STAGES[name] for name in ("segment", "cells", "embed fields", "embed cells")},
    "label": judge,
    "split": STAGES["split"],
    "train": STAGES["train"],
    "predict": STAGES["predict"],
    "embed --overwrite": partial(STAGES["embed fields"], overwrite=True),
    "pretrain": PRETRAINING,
}
"""Every way to change a store, in an order in which each finds what it needs."""


class Works:
    """The work of every kind, made when it is first asked for, with all before it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "s.zarr"
        self._left = iter(PREPARED.items())
        self._made: dict[str, Work] = {}

    def __getitem__(self, name: str) -> Work:
        while name not in self._made:
            self._make(*next(self._left))
        return self._made[name]

    def _make(self, name: str, do: Do) -> None:
        if name == "append":  # the last shard is half full before
            make_images(self.folder, 5)
            assert do(self.store, SERIAL) == 0
            make_images(self.folder)
        if name == "ingest":
            shutil.rmtree(self.store)
        before, after = self.folder / f"before-{name}", self.folder / f"after-{name}.zarr"
        if self.store.exists():
            shutil.copytree(self.store, before)
        assert do(self.store, SERIAL) == 0
        shutil.copytree(self.store, after)
        self._made[name] = Work(do, before if before.exists() else None, after)


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Works:
    load_once()
    return Works(tmp_path_factory.mktemp("kill"))


def _fresh(work: Work, name: str) -> Path:
    """A store of this name as it is before the work."""
    store = work.after.with_name(name)
    for path in (store, run_of(store)):
        shutil.rmtree(path, ignore_errors=True)
    if work.before is not None:
        shutil.copytree(work.before, store)
    return store


def _killed(work: Work, rng: np.random.Generator, whom: str) -> str:
    """Kill it once, do it again, compare. Returns whether that ended the first run."""
    store = _fresh(work, "victim.zarr")
    workers: list[psutil.Process] = []
    if whom == "itself":
        process, _ = _counted(work, store, int(rng.integers(work.operations)) + 1)
    else:
        process = start(work.do, store, LOCAL)
        workers = _kill_from_outside(process, rng.uniform(0, work.seconds), whom)
    process.join(SECONDS)
    assert process.exitcode is not None, "hangs"
    assert process.exitcode != RAISED, saying(process, store)
    assert work.do(store, SERIAL) == 0  # while orphaned workers may still be at it
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, f"{len(alive)} workers live on"
    verify(store, repair=True)  # a killed write may leave a `.partial` file
    assert_whole(store, work.after)
    if run_of(store).exists():
        _assert_same_training(run_of(store), run_of(work.after.with_name("s.zarr")))
    return "ended" if process.exitcode else "went on to the end"


def _kill_from_outside(process: Any, after: float, whom: str) -> list[psutil.Process]:
    """Kill a worker, the coordinator or both, `after` seconds from the first worker's start."""
    own = psutil.Process(process.pid)
    end = time.monotonic() + SECONDS
    while process.is_alive() and not _workers(own):
        assert time.monotonic() < end, "no worker in all this time"
        time.sleep(0.05)
    process.join(after)
    workers = _workers(own)
    if whom != "worker":
        process.kill()
    for worker in {"worker": workers[:1], "coordinator": [], "both": workers}[whom]:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    return workers


def _workers(own: psutil.Process) -> list[psutil.Process]:
    try:
        return [one for one in own.children(recursive=True) if "spawn_main" in str(one.cmdline())]
    except psutil.NoSuchProcess:
        return []


def _assert_same_training(run: Path, other: Path) -> None:
    for name in ("backbone.safetensors", "run.json"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name


def _measure(work: Work, run: RunConfig) -> None:
    """How many operations it makes, and how long it takes, undisturbed."""
    store, count = _fresh(work, "measured.zarr"), None
    if run is SERIAL:
        process, count = _counted(work, store)
    else:
        process = start(work.do, store, run)
        own = psutil.Process(process.pid)
        while process.is_alive() and not _workers(own):
            time.sleep(0.05)
    begun = time.monotonic()
    process.join(SECONDS)
    assert process.exitcode == 0, saying(process, store)
    work.operations, work.seconds = count.value if count else 0, time.monotonic() - begun
    assert_whole(store, work.after)


def _drill(works: Works, names: Iterable[str], whom: Sequence[str], kills: int, seed: int) -> None:
    tally = Tally()
    for turn, name in enumerate(names):
        work = works[name]
        _measure(work, SERIAL if whom == ("itself",) else LOCAL)
        for n, rng in enumerate(draws(kills, seed + turn)):
            victim = whom[n % len(whom)]
            try:
                tally.ended[f"{victim}: {_killed(work, rng, victim)}"] += 1
            except Exception as error:
                tally.lost.append(f"{name}, {victim}, {n}: {type(error).__name__}: {error}")
    tally.tell("kill -9")


def test_a_draw_of_kills(works: Works) -> None:
    _drill(works, ["append", "segment"], ("itself",), 2, seed=1)


@pytest.mark.drill
def test_kills_before_any_operation_on_files(works: Works) -> None:
    _drill(works, PREPARED, ("itself",), SERIAL_KILLS, seed=2)


@pytest.mark.drill
def test_kills_of_workers_and_coordinators(works: Works) -> None:
    names = ("ingest", "segment", "cells", "embed fields", "embed cells")
    _drill(works, names, ("worker", "coordinator", "both"), CLUSTER_KILLS, seed=3)
