import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.toys import LOCAL, run_toy
from zarrloc.config.run import RunConfig
from zarrloc.engine import executors
from zarrloc.engine.cluster import Cluster, Load, executor
from zarrloc.engine.executors import Dask, Done
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


def test_a_run_goes_on_while_a_suspect_is_tried(tmp_path: Path) -> None:
    with Cluster(LOCAL) as cluster:
        first, _ = cluster.executor(Load(blocks=2))
        summary = run_toy(tmp_path / "s", 160, do={1: "kill"}, nap=0.1, config=cluster)
        assert cluster.executor(Load(blocks=2))[0] is first
    assert (summary.exit_code, summary.rows_failed, summary.blocks_run) == (3, 1, 40)
    events = next((tmp_path / "s.runs").glob("*.jsonl")).read_text().splitlines()
    guilty = next(at for at, line in enumerate(events) if '"event": "guilty"' in line)
    later = sum('"event": "block"' in line for line in events[guilty:])
    assert later > 5
