"""What a run needs, gone in the middle: room on the disk, the right to write, file descriptors.

The command ends with one line that says so, and nothing is torn: with the cause gone, the same
command continues. (A worker that runs out of memory is drilled in `test_one_bad_field`.)
"""

import errno
import os
import resource
import subprocess
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.drills.pipeline import LOCAL, SERIAL, Tally, draws
from tests.drills.victims import CONTEXT, RAISED, SECONDS, count, saying, start
from tests.drills.works import PREPARED, Work, Works
from zarrloc.config.run import RunConfig

LACKS = {
    "disk full": errno.ENOSPC,
    "read-only": errno.EROFS,
    "no right to write": errno.EACCES,
    "too few file descriptors": errno.EMFILE,
}
NAMES = ("append", "segment", "embed fields", "train", "pretrain")
DISK = 256 << 20
FEW = 64  # file descriptors


def _refuse(number: int, path: str) -> None:
    raise OSError(number, os.strerror(number), path)


def _starved(work: Work, rng: np.random.Generator, operations: int, lack: str) -> str:
    """From a random operation on that writes, each is refused, as the system would."""
    store = work.fresh("victim.zarr")
    counted, when = CONTEXT.Value("L", 0, lock=False), int(rng.integers(operations)) + 1
    refuse = partial(_refuse, LACKS[lack])
    starving = partial(count, store, counted, when, refuse, writes=True, lasting=True)
    process = start(work.do, store, SERIAL, starving)
    process.join(SECONDS)
    _assert_told(process, store, os.strerror(LACKS[lack]))
    work.finish(store)
    return lack


def _assert_told(process: object, store: Path, *words: str) -> None:
    said, code = saying(process, store), process.exitcode  # type: ignore[attr-defined]
    assert code is not None, "hangs"
    assert code not in (0, RAISED), (code, said)
    assert "Traceback" not in said, said
    assert any(word in said for word in words), (code, said)


def _drill(works: Works, names: Iterable[str], lacks: Iterable[str], seed: int) -> None:
    tally = Tally()
    for turn, name in enumerate(names):
        work = works[name]
        operations = work.operations(writes=True)
        for lack, rng in zip(lacks, draws(len(LACKS), seed + turn), strict=False):
            with tally.of(f"{name}, {lack}"):
                tally.ended[_starved(work, rng, operations, lack)] += 1
    tally.tell("nothing to write with, in the middle")


def test_a_draw_of_scarcity(works: Works) -> None:
    _drill(works, ["append", "segment"], ["disk full", "no right to write"], seed=1)


@pytest.mark.drill
def test_scarcity_in_every_stage(works: Works) -> None:
    _drill(works, PREPARED, LACKS, seed=2)


# --- the real thing, where this user may mount a file system ------------------------------------


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own."""
    where = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(where)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if made.returncode:
        pytest.skip(f"needs the right to mount a file system: {made.stderr.strip()}")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.mark.drill
def test_a_real_disk_runs_full(disk: Path) -> None:
    works, tally = Works(disk), Tally()
    for turn, name in enumerate(NAMES):
        work = works[name]
        store = work.fresh("victim.zarr")
        needed = _free(disk)
        assert work.do(store, SERIAL) == 0
        needed -= _free(disk)
        for n, rng in enumerate(draws(3, turn)):
            with tally.of(f"{name}, {n}"):
                _fill(disk, work, int(rng.uniform(0, 0.8) * needed), SERIAL)
                tally.ended["one line, and on"] += 1
    tally.tell("a real disk runs full")


def _fill(disk: Path, work: Work, left: int, run: RunConfig) -> None:
    store, filler = work.fresh("victim.zarr"), disk / "filler"
    try:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, _free(disk) - left))
        process = start(work.do, store, run)
        process.join(SECONDS)
    finally:
        filler.unlink()
    _assert_told(process, store, os.strerror(errno.ENOSPC))
    work.finish(store)


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.drill
def test_a_real_read_only_disk(disk: Path) -> None:
    works, tally = Works(disk / "only"), Tally()
    for name in NAMES:
        work = works[name]
        store = work.fresh("victim.zarr")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        try:
            with tally.of(name):
                assert work.do is not None
                with pytest.raises(Exception, match=r"(?i)read-only"):
                    work.do(store, SERIAL)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with tally.of(name):
            work.finish(store)
            tally.ended["one line, and on"] += 1
    tally.tell("a real read-only disk")


@pytest.mark.drill
@pytest.mark.parametrize("name", ["ingest", "segment"])
def test_workers_with_few_file_descriptors(works: Works, name: str) -> None:
    work = works[name]
    store = work.fresh("victim.zarr")
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (FEW, FEW))
    process = start(work.do, store, LOCAL, few)
    process.join(SECONDS)
    said = saying(process, store)
    assert process.exitcode not in (None, RAISED), (process.exitcode, said)
    assert "Traceback" not in said, said
    work.finish(store)
