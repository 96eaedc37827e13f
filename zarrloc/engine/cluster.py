"""Where blocks run: this process, local processes, one process a GPU, or a running scheduler."""

import asyncio
import logging
import multiprocessing
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from zarrloc.config.run import RunConfig
from zarrloc.errors import ClusterError, ConfigError

GATHER_S = 30.0
"""Receipts are small: one that takes longer than this to come has lost its worker."""

CONNECT_S = 10.0
"""How long a running scheduler may take to answer."""

CLOSE_S = 30.0
"""How long a cluster of our own may take to end, before its workers are killed."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ZARR_THREADS = "ZARR_THREADING__MAX_WORKERS"
MOST_ZARR_THREADS = 4
"""zarr's own default, four more than there are cores, made a worker's reads and writes cost three
to six times the CPU time of one thread, most of it in the kernel."""


@dataclass(frozen=True)
class Done:
    """One call's end: its key, and its value or what it raised."""

    key: str
    value: Any = None
    error: BaseException | None = None
    killed: bool = False
    """The worker died under it; the call is a suspect, not guilty."""


class Executor(Protocol):
    """Runs calls somewhere and hands back their ends as they come."""

    kind: str
    workers: int
    dashboard: str

    def submit(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], function: Callable[..., Any]
    ) -> None:
        """Queue `function(*arguments)` for each `(key, arguments)`."""

    def completed(self) -> list[Done]:
        """Wait for at least one end; return all there are."""

    def cancel(self) -> None:
        """Drop what is queued."""


class Serial:
    """Runs each call in this process when its end is asked for: for debugging and tests."""

    kind, workers, dashboard = "serial", 1, ""

    def __init__(self) -> None:
        self._queue: deque[tuple[str, tuple[Any, ...], Callable[..., Any]]] = deque()

    def submit(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], function: Callable[..., Any]
    ) -> None:
        """Queue the calls."""
        self._queue.extend((key, arguments, function) for key, arguments in calls)

    def completed(self) -> list[Done]:
        """Run the next call."""
        key, arguments, function = self._queue.popleft()
        try:
            return [Done(key, function(*arguments))]
        except Exception as error:
            return [Done(key, error=error)]

    def cancel(self) -> None:
        """Drop the queue."""
        self._queue.clear()


class Dask:
    """Runs calls on a Dask cluster through futures."""

    def __init__(self, client: Any, kind: str) -> None:
        from distributed import as_completed

        self.client, self.kind = client, kind
        self.workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        self.dashboard = client.dashboard_link or ""
        self._running = as_completed()

    def submit(
        self, calls: Sequence[tuple[str, tuple[Any, ...]]], function: Callable[..., Any]
    ) -> None:
        """Send the calls as one batch."""
        futures = self.client.map(
            function,
            *zip(*(arguments for _, arguments in calls), strict=True),
            key=[key for key, _ in calls],
            pure=False,
            retries=0,
        )
        self._running.update(futures)

    def completed(self) -> list[Done]:
        """All ends that have come, waiting for the first."""
        ready = {future.key: future for future in self._running.next_batch(block=True)}
        finished = {key: future for key, future in ready.items() if future.status == "finished"}
        values = self._gathered(finished)
        return [
            self._without_value(future) if values.get(key) is None else Done(key, values[key])
            for key, future in ready.items()
        ]

    def _gathered(self, futures: dict[str, Any]) -> dict[str, Any]:
        # A worker can die between finishing and handing over. Dask then computes the task again,
        # or gives None, or waits: whatever is not here soon is a suspect, which is run alone.
        async def gather() -> dict[str, Any]:
            values = self.client.gather(futures, errors="skip", asynchronous=True)
            return dict(await asyncio.wait_for(values, GATHER_S))

        try:
            return dict(self.client.sync(gather)) if futures else {}
        except TimeoutError:
            return {}

    def _without_value(self, future: Any) -> Done:
        from distributed import KilledWorker

        if future.status != "error":
            return Done(future.key, killed=True)
        error = future.exception()
        return Done(future.key, error=error, killed=isinstance(error, KilledWorker))

    def cancel(self) -> None:
        """Cancel what is queued or running and wait until the workers let go of it."""
        self.client.cancel(list(self._running.futures), force=True)
        self._running.clear()


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


def choose(run: RunConfig, on_device: bool) -> str:
    """`run.cluster` with `auto` settled: cuda where the stage uses a GPU and there is one."""
    if run.cluster != "auto":
        return run.cluster
    return "cuda" if on_device and has_cuda() else "local"


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
        if "://" in kind:
            client = _connect(stack, kind)
        else:
            client = _start(stack, kind, run, workers, prefetch)
        if run.profile:
            from distributed import performance_report

            stack.enter_context(performance_report(filename=str(run.profile)))
        yield Dask(client, kind)


def _start(stack: ExitStack, kind: str, run: RunConfig, workers: int, prefetch: int) -> Any:
    import dask
    from distributed import Client, LocalCluster

    # One death makes its blocks suspects at once; they are then run alone (run.py).
    settings = {
        "distributed.scheduler.allowed-failures": 0,
        "distributed.admin.tick.limit": "30s",
        # It stops every thread of a worker a hundred times a second.
        "distributed.worker.profile.enabled": run.profile is not None,
        # Dask has workers return freed memory at once, so that each block's arrays are paged in
        # anew: half as much CPU time again in ingest, for memory that is flat without it.
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
                    silence_logs=logging.CRITICAL,  # deaths are told in our own words
                )
            stack.callback(_close, cluster)
            return stack.enter_context(Client(cluster))
        except (RuntimeError, OSError, TimeoutError) as error:
            raise ClusterError(
                f"workers did not start: {error}; in a script, the work must stand under "
                "`if __name__ == '__main__':`; `--cluster serial` runs without workers"
            ) from error


def _close(cluster: Any) -> None:
    """End the workers, by force where one does not: a finished run must not wait for ever."""
    try:
        cluster.close(timeout=CLOSE_S)
    except TimeoutError:
        for nanny in cluster.workers.values():
            if nanny.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)


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


def _connect(stack: ExitStack, address: str) -> Any:
    from distributed import Client

    try:
        client = stack.enter_context(Client(address, timeout=CONNECT_S))
        client.wait_for_workers(1, timeout=60)
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"no Dask scheduler with workers answers at {address}: {error}"
        ) from error
    return client


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
            raise ClusterError(f"{len(busy)} tasks of an older run still hold workers: {busy[:3]}")
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
