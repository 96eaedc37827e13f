"""Are many workers kept busy? 200 and 1,000 Dask workers in few processes, whose blocks sleep.

    python benchmarks/workers.py 200 1000

The scheduler is a process of its own, as `dask scheduler` starts it; so is the coordinator, which
is zarrloc's own loop with its window, receipts and flushes. Blocks sleep `--block-s` seconds, so
that a thousand workers fit two cores. "busy" is the share of the workers' time from the first
submit to the last receipt in which a block was under way, the start and the last wave included.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from machine import about, report, sampled_memory

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Block, Output, Part
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.cluster import PREFETCH
from zarrloc.engine.plan import Plan
from zarrloc.engine.telemetry import Summary
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import PENDING, Variable

GROUP = "embeddings/nap"
HOSTS = 4
"""Processes that the workers share."""
START_S = 300.0

QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    # Each worker would look at the whole process's memory and network twice a second.
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "30s",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Nap:
    """Blocks of one row that sleep."""

    location: Location
    seconds: float
    group: str = GROUP
    array: str | None = None
    on_device: bool = False

    def open(self) -> None:
        """Nothing."""

    def read(self, block: Block, clock: StoreClock) -> Any:
        """Nothing."""

    def device(self, data: Any) -> Any:
        """Sleep."""
        time.sleep(self.seconds)

    def finish(self, block: Block, state: Any) -> Output:
        """No error."""
        return Output(None, {"error": np.full(len(block), "", np.dtypes.StringDType())})


async def host(address: str, count: int) -> None:
    """Be `count` workers until the scheduler goes."""
    from distributed import Worker

    folder = tempfile.mkdtemp()
    workers = [
        Worker(address, nthreads=PREFETCH, memory_limit=0, dashboard=False, local_directory=folder)
        for _ in range(count)
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


@contextmanager
def cluster(workers: int, folder: str) -> Iterator[tuple[str, int]]:
    """Address and process of a scheduler with so many workers."""
    from distributed import Client

    file = f"{folder}/scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", "0", "--no-dashboard", "--scheduler-file", file]
    environment: Any = {"env": {**os.environ, **QUIET}, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen(command, **environment)]
    try:
        while not os.path.exists(file):
            time.sleep(0.1)
        with Client(scheduler_file=file) as client:
            address = str(client.scheduler.address)
            each = [workers // HOSTS + (at < workers % HOSTS) for at in range(HOSTS)]
            for count in filter(None, each):
                command = [sys.executable, __file__, "--host", address, str(count)]
                started.append(subprocess.Popen(command, **environment))
            client.wait_for_workers(workers, timeout=START_S)
        yield address, started[0].pid
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def run(folder: str, address: str, blocks: int, seconds: float) -> Summary:
    """All blocks, once."""
    location = Location.of(f"{folder}/nap.zarr")
    wanted = StageAttrs.of("nap", {}, {}, block_rows=1, digested=["error"])
    plan = Plan(
        wanted,
        {"error": Variable(("row",), "string", (blocks,), PENDING)},
        work=Nap(location, seconds),
        columns=("error",),
        parts=[Part(digest, None) for digest in range(1, blocks + 1)],
    )
    config = RunConfig(cluster=address)
    outcome = carry_out(location, GROUP, lambda _: plan, config, creates=True)
    return outcome.summary


def measured(workers: int, seconds: float, waves: int) -> dict[str, Any]:
    """One row of the table."""
    slots = workers * PREFETCH
    blocks = slots * waves
    with tempfile.TemporaryDirectory() as folder, cluster(workers, folder) as (address, scheduler):
        there = psutil.Process(scheduler)
        before = time.process_time(), sum(there.cpu_times()[:2])
        with sampled_memory(0.5) as samples:
            summary = run(folder, address, blocks, seconds)
        cpu = time.process_time() - before[0], sum(there.cpu_times()[:2]) - before[1]
        assert (summary.blocks_run, summary.rows_failed) == (blocks, 0), summary
    mine = [sample[os.getpid()] / 1e6 for sample in samples if os.getpid() in sample]
    return {
        "workers": workers,
        "blocks": blocks,
        "seconds a block": seconds,
        "seconds, first submit to last receipt": round(summary.wall_s, 1),
        "seconds if nothing else took time": waves * seconds,
        "busy": round(summary.seconds["device"] / (summary.wall_s * slots), 3),
        "coordinator: CPU ms a block": round(1e3 * cpu[0] / blocks, 2),
        "coordinator: MB above its start": round(max(mine) - mine[0], 1),
        "scheduler: CPU ms a block": round(1e3 * cpu[1] / blocks, 2),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workers", type=int, nargs="*", default=[200, 1000])
    parser.add_argument("--block-s", type=float, default=20.0)
    parser.add_argument("--waves", type=int, default=5, help="blocks for each of a worker's slots")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        with suppress(KeyboardInterrupt):
            asyncio.run(host(options.host[0], int(options.host[1])))
        return
    before = about()
    rows = {
        f"{workers} workers": measured(workers, options.block_s, options.waves)
        for workers in options.workers
    }
    report("workers", rows, before)


if __name__ == "__main__":
    main()
