import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zarr

from tests.engine.toys import SERIAL
from zarrloc.config.run import RunConfig
from zarrloc.engine import cluster, schedulers
from zarrloc.engine.cluster import THREAD_VARIABLES, ZARR_THREADS, Cluster, Load, executor
from zarrloc.engine.executors import Dask, Done, Serial
from zarrloc.errors import ClusterError, ConfigError
from zarrloc.models.forward import inference


def _environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in (*THREAD_VARIABLES, ZARR_THREADS)}


def _zarr_threads() -> object:
    return zarr.config.get("threading.max_workers")


def _cpu_over_wall(threads: int) -> float:
    """CPU time over wall time of matrix products in a process that would use all its cores."""
    torch.set_num_threads(4)
    matrix = torch.ones(600, 600)
    with inference(threads):
        wall, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 0.5:
            matrix @ matrix
        return (time.process_time() - cpu) / (time.perf_counter() - wall)


def test_a_local_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = _environment()
    config = RunConfig(memory_limit="2GB", dashboard=":0", profile=tmp_path / "profile.html")
    with executor("local", config, workers=1, threads=2, prefetch=2) as pool:
        assert isinstance(pool, Dask)
        assert pool.workers == 1
        assert pool.dashboard.startswith("http://")
        (there,) = pool.client.run(_environment).values()
        assert there == dict.fromkeys((*THREAD_VARIABLES, ZARR_THREADS), "2")
        assert list(pool.client.run(_zarr_threads).values()) == [2]
        (about,) = pool.client.scheduler_info()["workers"].values()
        assert (about["nthreads"], about["memory_limit"]) == (2, 2_000_000_000)
        pool.submit([("load", (1,))], _cpu_over_wall)
        (end,) = pool.completed()
        assert end.key == "load"
        assert end.value < 1.4
    assert _environment() == before
    assert "<html" in (tmp_path / "profile.html").read_text()


def test_threads_are_those_of_the_task_and_the_callers_come_back() -> None:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(_cpu_over_wall, 1).result() < 1.4
    torch.set_num_threads(before)
    with inference(3):
        assert torch.get_num_threads() == 3
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


def _divide(a: int, b: int) -> float:
    return a / b


def test_serial_runs_what_is_asked_for_in_this_process() -> None:
    with executor("serial", SERIAL, workers=9, threads=1, prefetch=2) as pool:
        pool.submit([("a", (6, 3)), ("b", (1, 0)), ("c", (1, 1))], _divide)
        assert pool.completed() == [Done("a", 2.0)]
        (bad,) = pool.completed()
        assert isinstance(bad.error, ZeroDivisionError)
        assert not bad.killed
        pool.cancel()
        assert pool.workers == 1
        with pytest.raises(IndexError):
            pool.completed()


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        ("serial", {"profile": "p.html"}, ConfigError, "--profile needs a Dask cluster"),
        ("cuda", {}, ClusterError, "cuda"),
        ("tcp://127.0.0.1:1", {}, ClusterError, "no Dask scheduler.*127.0.0.1:1"),
    ],
)
def test_what_cannot_start_says_why(
    kind: str, options: dict[str, Any], error: type[Exception], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(schedulers, "CONNECT_S", 1)
    with pytest.raises(error, match=words):  # noqa: SIM117
        with executor(kind, RunConfig(**options), workers=1, threads=1, prefetch=1):
            pass


MANY = Load(blocks=99)


def test_auto_takes_the_gpu_only_for_a_stage_that_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "has_cuda", lambda: True)
    on_device = Load(blocks=99, on_device=True)
    assert cluster.choose(RunConfig(), on_device) == "cuda"
    assert cluster.choose(RunConfig(), MANY) == "local"
    assert cluster.choose(RunConfig(cluster="serial"), on_device) == "serial"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert cluster.places("cuda") == 3  # so that each has a third of the cores
    assert cluster.places("local") == cluster.cores()
    monkeypatch.setattr(cluster, "has_cuda", lambda: False)
    assert cluster.choose(RunConfig(), on_device) == "local"


@pytest.mark.parametrize(
    ("load", "options", "kind"),
    [
        (Load(blocks=1), {}, "serial"),
        (Load(blocks=1, on_device=True), {}, "serial"),
        (Load(blocks=2), {}, "local"),
        (Load(blocks=8, block_s=0.1), {}, "serial"),
        (Load(blocks=8, block_s=1.0), {}, "local"),
        (Load(blocks=1, crashed=True), {}, "local"),  # maybe it killed this process
        (Load(blocks=1), {"workers": 1}, "local"),
        (Load(blocks=1), {"memory_limit": "2GB"}, "local"),
        (Load(blocks=1), {"profile": "p.html"}, "local"),
        (Load(blocks=1), {"cluster": "local"}, "local"),
    ],
)
def test_auto_starts_no_workers_for_what_is_done_sooner_without(
    load: Load, options: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "has_cuda", lambda: False)
    assert cluster.choose(RunConfig(**options), load) == kind


def test_a_command_has_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int]] = []

    @contextmanager
    def noted(kind: str, _: RunConfig, *, workers: int, **__: int) -> Iterator[Serial]:
        started.append((kind, workers))
        pool = Serial()
        pool.kind = kind
        yield pool
        started.append((f"end of {kind}", workers))

    monkeypatch.setattr(cluster, "executor", noted)
    monkeypatch.setattr(cluster, "cores", lambda: 4)
    monkeypatch.setattr(cluster, "has_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    small = Load(blocks=1)
    with Cluster(RunConfig()) as one:
        assert one.executor(small)[1] == 4
        assert one.executor(MANY)[1] == 1
        pool, _ = one.executor(MANY)
        assert one.executor(small)[0] is pool  # its workers run already
        one.executor(Load(blocks=9, on_device=True))
    assert started == [
        ("serial", 1), ("end of serial", 1), ("local", 4), ("end of local", 4), ("cuda", 1),
        ("end of cuda", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "enough", "asked"),
    [
        ((64, 64), False, None),
        ((64, 4096), True, 4096),
        ((1024, -1), True, cluster.MOST_OPEN_FILES),
        ((-1, -1), True, None),
    ],
)
def test_too_few_open_files_are_said_before_workers_wait_for_ever(
    limits: tuple[int, int], enough: bool, asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: set_to.append(both[0]))
    if enough:
        cluster.need_open_files(2)
        assert set_to == ([] if asked is None else [asked])
        return
    with pytest.raises(ClusterError, match=r"at most 64 files.*2 workers need 112.*ulimit"):
        cluster.need_open_files(2)


def test_a_worker_that_does_not_end_is_killed() -> None:
    class Stuck:
        def __init__(self, pid: int) -> None:
            self.workers = {0: SimpleNamespace(pid=pid), 1: SimpleNamespace(pid=None)}

        def close(self, timeout: float) -> None:
            raise TimeoutError(timeout)

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        cluster._close(Stuck(process.pid))
        assert process.wait(10) == -signal.SIGKILL
        cluster._close(Stuck(process.pid))  # gone already
