"""Where blocks run: this process, local processes, one process a GPU, or a running scheduler."""

import logging
import math
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from zarrloc.config.run import RunConfig
from zarrloc.engine import schedulers
from zarrloc.engine.executors import Dask, Executor, Serial
from zarrloc.errors import ClusterError, ConfigError, WorkerError

PREFETCH = 2
"""Blocks in flight a worker: one reads and decodes while the other computes."""

MOST_PREFETCH = 8
"""The same of a worker with a GPU, which computes faster than a core decodes."""

START_S = 2.0
"""What starting workers costs at least; with torch it is three times that."""

SLURM_JOBS = 4
"""Jobs of `--cluster slurm`, where `--workers` says nothing."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows ends a process by SIGTERM, which nothing there can ignore."""

CLOSE_S = 30.0
"""How long a cluster of our own may take to end, before its workers are killed."""

OPEN_FILES, OPEN_FILES_A_WORKER = 64, 24
"""What a coordinator needs, and each of its workers: connections, pipes, shards."""
MOST_OPEN_FILES = 65536

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ZARR_THREADS = "ZARR_THREADING__MAX_WORKERS"
MOST_ZARR_THREADS = 4
"""zarr's own default, four more than there are cores, made a worker's reads and writes cost three
to six times the CPU time of one thread, most of it in the kernel."""


def refuse_inside_import() -> None:
    """Raise where a spawned worker imports a user's script that has no `__main__` guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(
            "a zarrloc stage was started while a worker process imported your script; put the "
            "script's work under `if __name__ == '__main__':` so that importing it does nothing"
        )


def cores() -> int:
    """CPU cores this process may use, by its affinity and its control group."""
    from dask.system import cpu_count

    return int(cpu_count())


def has_cuda() -> bool:
    """Whether torch sees a GPU here."""
    import torch

    return bool(torch.cuda.is_available())


def places(kind: str) -> int:
    """How many workers a cluster of this kind has room for here: one a GPU, or one a core."""
    if kind != "cuda":
        return cores()
    import torch

    return max(1, torch.cuda.device_count())


@dataclass(frozen=True)
class Load:
    """What a plan has to do, as far as it decides on what the plan runs."""

    blocks: int
    on_device: bool = False
    block_s: float | None = None
    """About how long a core takes for a block; None where that is not known."""
    threads: int | None = None
    """Compute threads that are settled already."""
    crashed: bool = False
    """The last run of it was cut off, maybe by a block that kills its process."""

    @property
    def is_small(self) -> bool:
        """Whether it is done here before workers would have started, or would keep only one."""
        rest = (self.blocks - 1) * (math.inf if self.block_s is None else self.block_s)
        return not self.crashed and (self.blocks == 1 or rest <= START_S)


def choose(run: RunConfig, load: Load) -> str:
    """`run.cluster` with `auto` settled.

    This process for what is small, unless something was asked for that only workers have; else
    cuda where the stage uses a GPU and there is one, else local.
    """
    if run.cluster != "auto":
        return run.cluster
    asked = run.workers is not None or run.profile is not None or run.memory_limit != "auto"
    if load.is_small and not asked:
        return "serial"
    return "cuda" if load.on_device and has_cuda() else "local"


def prefetch(cores: int, *, gpu: bool) -> int:
    """Blocks in flight on a worker of so many cores."""
    return max(PREFETCH, min(cores, MOST_PREFETCH)) if gpu else PREFETCH


class Cluster:
    """What the plans of one command run on: workers start when a plan first needs some, and stay.

    Parameters
    ----------
    run
        Where and how blocks are computed.

    Examples
    --------
    >>> with Cluster(RunConfig(cluster="serial")) as cluster:
    ...     pool, threads = cluster.executor(Load(blocks=3))
    ...     pool.kind
    'serial'
    """

    def __init__(self, run: RunConfig | None = None) -> None:
        self.run = run or RunConfig()
        self._stack = ExitStack()
        self._pool: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        self._pool = None
        self._stack.close()

    def executor(self, load: Load) -> tuple[Executor, int]:
        """What runs `load`, and compute threads of a block.

        Raises
        ------
        ClusterError
            Where workers do not start.
        ConfigError
            Where the settings do not fit each other.
        """
        run, there = self.run, self._pool
        kind = choose(run, load)
        if kind == "serial" and run.cluster == "auto" and there is not None:
            kind = there.kind  # workers that run already cost nothing
        most = min(run.workers or places(kind), load.blocks)
        if kind == "slurm":
            most = min(run.workers or SLURM_JOBS, load.blocks)
        threads = load.threads or max(1, cores() // most)
        own = run.workers is not None or kind == "slurm"
        workers = most if own else min(most, max(1, cores() // threads))
        if there is None or there.kind != kind:
            self.close()
            self._pool = there = self._stack.enter_context(
                executor(kind, run, workers=workers, threads=threads, prefetch=self._prefetch(kind))
            )
        elif isinstance(there, Dask):
            there.grow(workers)
        if (
            isinstance(there, Dask)
            and load.threads is None
            and (kind == "slurm" or schedulers.is_shared(kind))
        ):
            threads = schedulers.own_threads(there.client)
        return there, threads

    def _prefetch(self, kind: str) -> int:
        if kind == "slurm":
            settings = schedulers.slurm_settings(self.run)
            return prefetch(settings.cores, gpu=bool(settings.gpus))
        return prefetch(cores() // places(kind), gpu=kind == "cuda")


@contextmanager
def executor(
    kind: str, run: RunConfig, *, workers: int, threads: int, prefetch: int
) -> Iterator[Executor]:
    """A running executor; `threads` compute threads and `prefetch` blocks in flight a worker.

    Raises `ClusterError` where it cannot start, `ConfigError` where the settings do not fit.
    """
    refuse_inside_import()
    if kind == "serial":
        if run.profile:
            raise ConfigError("--profile needs a Dask cluster, got --cluster serial")
        yield Serial()
        return
    with ExitStack() as stack:
        stack.enter_context(_environment(threads))
        if schedulers.is_shared(kind):
            client, cluster = schedulers.connect(stack, kind), None
        elif kind == "slurm":
            client = schedulers.start_slurm(stack, run, workers, prefetch, _close)
            cluster = None  # Dask's own adaptive scaling looks after its jobs
        else:
            client, cluster = _start(stack, kind, run, workers, prefetch)
        if run.profile:
            from distributed import performance_report

            stack.enter_context(performance_report(filename=str(run.profile)))
        yield Dask(client, kind, cluster)


def _start(
    stack: ExitStack, kind: str, run: RunConfig, workers: int, prefetch: int
) -> tuple[Any, Any]:
    import dask
    from distributed import Client, LocalCluster

    need_open_files(workers)
    # One death makes its blocks suspects at once; they are then run alone (run.py).
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        # A worker that died twice within 15 s would be given up, in silence (see Dask._revive).
        "distributed.deploy.lost-worker-timeout": "1 day",
        "distributed.admin.tick.limit": "30s",
        # It stops every thread of a worker a hundred times a second.
        "distributed.worker.profile.enabled": run.profile is not None,
        # Dask has workers return freed memory at once, so that each block's arrays are paged in
        # again: half as much CPU time again in ingest, for memory that is flat without it.
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    }
    stack.enter_context(dask.config.set(settings))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
        try:
            if kind == "cuda":
                cluster = _cuda_cluster(run, prefetch)
            else:
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=prefetch,
                    processes=True,
                    memory_limit=run.memory_limit,
                    dashboard_address=run.dashboard,
                    preload=["zarrloc.engine.worker"],
                    silence_logs=logging.CRITICAL,  # the run reports deaths itself
                )
            stack.callback(_close, cluster)
            return stack.enter_context(Client(cluster)), cluster
        except (RuntimeError, OSError, TimeoutError) as error:
            raise WorkerError(
                f"workers did not start: {error}; in a script, the work must stand under "
                "`if __name__ == '__main__':`; `--cluster serial` runs without workers"
            ) from error


def need_open_files(workers: int) -> None:
    """Allow this process and its workers as many open files as the system lets them have.

    Raises
    ------
    ClusterError
        Where those are too few: Dask would wait for ever for connections that can't be opened.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    wanted = MOST_OPEN_FILES if unlimited else min(hard, MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    need = OPEN_FILES + OPEN_FILES_A_WORKER * workers
    if soft != resource.RLIM_INFINITY and soft < need:
        raise ClusterError(
            f"at most {soft} files may be open here, {workers} workers need {need}: raise the "
            "limit (`ulimit -n 4096`), or use fewer workers, or none with --cluster serial"
        )


def _close(cluster: Any) -> None:
    """End the workers, by force where one does not: a finished run must not wait for ever."""
    try:
        cluster.close(timeout=CLOSE_S)
    except TimeoutError:
        for nanny in cluster.workers.values():
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, KILL)


def _cuda_cluster(run: RunConfig, prefetch: int) -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise ClusterError(
            "--cluster cuda needs dask-cuda: pip install 'zarrloc[cuda]'; "
            f"or use --cluster local ({error})"
        ) from error
    try:
        return LocalCUDACluster(
            n_workers=run.workers,
            threads_per_worker=prefetch,
            dashboard_address=run.dashboard,
        )
    except Exception as error:  # pynvml raises its own classes, which need not be importable
        raise ClusterError(
            f"no CUDA cluster here ({type(error).__name__}: {error}); use --cluster local"
        ) from error


def wait_out(client: Any, prefix: str, run: str, timeout: float = 3600.0) -> None:
    """Wait until no worker runs a task of an older run of this stage on a shared scheduler."""
    end = time.monotonic() + timeout
    while True:
        busy = [
            key
            for keys in client.processing().values()
            for key in keys
            if str(key).startswith(prefix) and run not in str(key)
        ]
        if not busy:
            return
        if time.monotonic() > end:
            raise WorkerError(f"{len(busy)} tasks of an older run still hold workers: {busy[:3]}")
        time.sleep(0.5)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Thread counts for spawned workers, which read them at import; the parent's come back."""
    wanted = {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        ZARR_THREADS: str(min(threads, MOST_ZARR_THREADS)),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
