import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.engine.toys import LOCAL, run_toy
from zarrloc.config.run import RunConfig
from zarrloc.engine import cluster as cluster_module
from zarrloc.engine import executors
from zarrloc.engine.cluster import Cluster, Load, executor
from zarrloc.engine.executors import Dask, Done, Serial
from zarrloc.errors import WorkerError

ONE = RunConfig(cluster="local", workers=1, dashboard=":0")


@pytest.fixture(scope="module")
def workers() -> Iterator[Dask]:
    with executor("local", ONE, workers=1, threads=1, prefetch=2) as pool:
        assert isinstance(pool, Dask)
        yield pool


def _square(number: int) -> int:
    return number * number


def _close_nannies(pool: Dask) -> None:
    """As a cluster does with a worker that is not back in time."""
    for nanny in list(pool.cluster.workers.values()):
        pool.cluster.sync(nanny.close)


def test_a_slow_gather_is_no_death(workers: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    gather = type(workers.client).gather
    calls = []

    async def slow(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            time.sleep(0)
            import asyncio

            await asyncio.sleep(30)
        return await gather(workers.client, *arguments, **options)

    monkeypatch.setattr(workers.client, "gather", slow)
    monkeypatch.setattr(workers, "_patience", 0.2)
    workers.submit([("slow", (7,))], _square)
    assert workers.completed() == [Done("slow", 49)]
    assert len(calls) == 3


def test_a_value_that_is_nowhere_died_with_its_worker(
    workers: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(workers.client, "gather", nothing)
    monkeypatch.setattr(executors, "LOSSES", 2)
    workers.submit([("lost", (7,))], _square)
    assert workers.completed() == [Done("lost", killed=True)]


def test_workers_that_are_gone_for_good_are_started_again(
    workers: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "LOOK_S", 0.2)
    _close_nannies(workers)
    workers.submit([("again", (8,))], _square)
    assert workers.completed() == [Done("again", 64)]


def test_a_cluster_that_stays_without_workers_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LOOK_S", 0.1)
    monkeypatch.setattr(executors, "ABANDONED_S", 0.5)
    with executor("local", ONE, workers=1, threads=1, prefetch=2) as pool:
        assert isinstance(pool, Dask)
        monkeypatch.setattr(pool, "_revive", lambda: None)
        _close_nannies(pool)
        pool.submit([("never", (8,))], _square)
        with pytest.raises(WorkerError, match=r"no worker is left.*the same command continues"):
            pool.completed()


class Deadly(Serial):
    """Kills for every call of block 0 that does not skip its row 1."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[int, bool]] = []

    def completed(self) -> list[Done]:
        key, arguments, function = self._queue.popleft()
        _, block, _, _, alone = arguments
        self.ran.append((block.index, alone))
        if block.index == 0 and 1 not in block.skip:
            return [Done(key, killed=True, begun=alone)]
        return [Done(key, function(*arguments))]


def test_a_run_goes_on_while_a_suspect_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Deadly()
    monkeypatch.setattr(cluster_module, "executor", lambda *_, **__: nullcontext(pool))
    summary = run_toy(tmp_path / "s", 40)
    assert (summary.exit_code, summary.rows_failed, summary.blocks_run) == (3, 1, 10)
    # Block, its four rows, and the block without the one: before the others, not after them.
    assert pool.ran[:7] == [(0, False), *[(0, True)] * 6]
    assert pool.ran[7:] == [(block, False) for block in range(1, 10)]


@pytest.mark.slow
def test_a_cluster_outlives_a_plan_whose_block_killed_a_worker(tmp_path: Path) -> None:
    with Cluster(LOCAL) as cluster:
        first, _ = cluster.executor(Load(blocks=2))
        summary = run_toy(tmp_path / "s", 24, do={1: "kill"}, config=cluster)
        assert cluster.executor(Load(blocks=2))[0] is first
    assert (summary.exit_code, summary.rows_failed, summary.blocks_run) == (3, 1, 6)


@pytest.mark.slow
def test_one_worker_that_is_killed_again_and_again_comes_to_the_end(tmp_path: Path) -> None:
    bad = dict.fromkeys(range(1, 24, 4), "kill")
    summary = run_toy(tmp_path / "s", 24, do=bad, config=ONE)
    assert (summary.exit_code, summary.rows_failed, summary.blocks_run) == (3, 6, 6)
