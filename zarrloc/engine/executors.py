"""What runs calls and hands back their ends: this process, or a Dask cluster by its futures."""

import asyncio
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zarrloc.errors import WorkerError

GATHER_S = 30.0
"""How long receipts may take to come before the others' turn comes; twice that the next time."""

LOSSES = 20
"""A finished call whose value was asked for so often, and is nowhere, is lost with its worker."""

START_S = 120.0
"""How long further workers may take to start."""

LOOK_S = 2.0
"""How often a cluster is looked after while no call ends."""

ABANDONED_S = 120.0
"""How long a cluster of our own may be without any worker."""

ABANDONED_ELSEWHERE_S = 1800.0
"""The same for a running scheduler, whose workers a batch system may bring back."""

BEGUN, SENT_S = "zarrloc-begun", 0.05
"""Topic of what `say_begun` says, and how long that may take to leave the worker."""

URGENT = 10
"""Priority of calls that go before all that is queued."""


@dataclass(frozen=True)
class Done:
    """One call's end: its key, and its value or what it raised."""

    key: str
    value: Any = None
    error: BaseException | None = None
    killed: bool = False
    """The worker died under it; the call is a suspect, not guilty."""
    begun: bool = False
    """Whether a killed call had begun, by `say_begun`, and not ended."""


def say_begun(begun: bool = True) -> None:
    """In a call on a Dask worker: let the run know that it has begun, or has ended; else nothing.

    What died after its end, before its value was reported, died of a neighbour.
    """
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(BEGUN, [worker.get_current_task(), begun])
    time.sleep(SENT_S)


Calls = Sequence[tuple[str, tuple[Any, ...]]]
"""Keys, and the arguments of each call."""


class Executor(Protocol):
    """Runs calls somewhere and hands back their ends as they come."""

    kind: str
    dashboard: str

    @property
    def workers(self) -> int:
        """Processes."""

    @property
    def slots(self) -> int:
        """Calls that can run at once."""

    def submit(self, calls: Calls, function: Callable[..., Any], *, urgent: bool = False) -> None:
        """Queue `function(*arguments)` for each `(key, arguments)`; `urgent` ones go first."""

    def completed(self) -> list[Done]:
        """Wait for at least one end; return all there are."""

    def cancel(self) -> None:
        """Drop what is queued."""


class Serial:
    """Runs each call in this process when its end is asked for."""

    kind, dashboard = "serial", ""
    workers = slots = 1

    def __init__(self) -> None:
        self._queue: deque[tuple[str, tuple[Any, ...], Callable[..., Any]]] = deque()

    def submit(self, calls: Calls, function: Callable[..., Any], *, urgent: bool = False) -> None:
        """Queue the calls."""
        added = [(key, arguments, function) for key, arguments in calls]
        if urgent:
            self._queue.extendleft(reversed(added))
        else:
            self._queue.extend(added)

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
    """Runs calls on a Dask cluster through futures.

    `cluster` is a cluster of our own, whose workers are started again when they are gone for good.
    """

    def __init__(self, client: Any, kind: str, cluster: Any = None) -> None:
        self.client, self.kind, self.cluster = client, kind, cluster
        self.dashboard = client.dashboard_link or ""
        self._flying: dict[str, Any] = {}
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._losses: Counter[str] = Counter()
        self._begun: set[str] = set()
        client.subscribe_topic(BEGUN, self._note)
        self._patience = GATHER_S
        self._looked = self._seen_alive = time.monotonic()

    def _note(self, event: tuple[float, tuple[str, bool]]) -> None:
        key, begun = event[1]
        (self._begun.add if begun else self._begun.discard)(key)

    @property
    def workers(self) -> int:
        """Processes."""
        return max(1, len(self._threads()))

    @property
    def slots(self) -> int:
        """Calls that can run at once."""
        return max(1, sum(self._threads().values()))

    def _threads(self) -> dict[str, int]:
        try:
            return dict(self.client.nthreads())
        except (OSError, TimeoutError):  # the scheduler does not answer
            return {}

    def submit(self, calls: Calls, function: Callable[..., Any], *, urgent: bool = False) -> None:
        """Send the calls as one batch."""
        futures = self.client.map(
            function,
            *zip(*(arguments for _, arguments in calls), strict=True),
            key=[key for key, _ in calls],
            pure=False,
            retries=0,
            priority=URGENT if urgent else 0,
        )
        for future in futures:
            self._flying[future.key] = future
            future.add_done_callback(self._ended.put)

    def completed(self) -> list[Done]:
        """All ends that have come, waiting for the first.

        Raises
        ------
        WorkerError
            Where no worker is left, and none comes back.
        """
        while True:
            ready = self._ready()
            if time.monotonic() - self._looked > LOOK_S:
                self._looked = time.monotonic()
                self._look_after()
            if ends := self._ends(ready):
                for end in ends:
                    self._flying.pop(end.key)
                    self._losses.pop(end.key, None)
                return ends

    def _ready(self) -> dict[str, Any]:
        """Futures that say they have ended; none after a while without."""
        ready: dict[str, Any] = {}
        wait = True
        while True:
            try:
                future: Any = self._ended.get(timeout=LOOK_S if wait else 0)
            except queue.Empty:
                return ready
            key = str(future.key)
            if self._flying.get(key) is future:  # not one of those cancelled
                ready[key] = future
                wait = False

    def _ends(self, ready: dict[str, Any]) -> list[Done]:
        finished = {key: future for key, future in ready.items() if future.status == "finished"}
        values = self._gathered(finished)
        ends = []
        for key, future in ready.items():
            value = values.get(key)
            end = self._without_value(future) if value is None else Done(key, value)
            if end is not None:
                ends.append(end)
        if ready and not ends:
            time.sleep(0.2)
        return ends

    def _gathered(self, futures: dict[str, Any]) -> dict[str, Any]:
        # A worker can die between finishing and handing over. Dask then computes the call again,
        # or gives None, or waits, as it does where the way is slow.
        async def gather() -> dict[str, Any]:
            values = self.client.gather(futures, errors="skip", asynchronous=True)
            return dict(await asyncio.wait_for(values, self._patience))

        try:
            return dict(self.client.sync(gather)) if futures else {}
        except TimeoutError:
            self._patience *= 2
            return {}

    def _without_value(self, future: Any) -> Done | None:
        """The end of a call that has no value; None where its value is yet to come."""
        from distributed import KilledWorker

        match future.status:
            case "error":
                error = future.exception()
                killed = isinstance(error, KilledWorker)
                return Done(future.key, None, error, killed, future.key in self._begun)
            case "cancelled":
                raise WorkerError(
                    f"the scheduler at {self.client.scheduler.address} dropped this run's work, or "
                    "is gone; the same command continues from here"
                )
            case "finished":
                self._losses[future.key] += 1
                if self._losses[future.key] > LOSSES:
                    return Done(future.key, killed=True)
        future.add_done_callback(self._ended.put)  # slow, or computed again: no death
        return None

    def grow(self, workers: int) -> None:
        """Have a local cluster of our own start more workers, up to so many."""
        if self.kind == "local" and self.cluster is not None and workers > self.workers:
            self.cluster.scale(workers)
            self.client.wait_for_workers(workers, timeout=START_S)

    def _look_after(self) -> None:
        """Start workers again that are gone for good; give up where there have been none."""
        now = time.monotonic()
        if self._threads():
            self._seen_alive = now
        if self.cluster is not None and hasattr(self.cluster, "worker_spec"):
            self._revive()
        patience = ABANDONED_S if self.cluster is not None else ABANDONED_ELSEWHERE_S
        if now - self._seen_alive > patience:
            raise WorkerError(
                f"no worker is left, and none came back in {patience:.0f} s: they died and could "
                "not be started again (out of memory, or too few file descriptors or processes); "
                "with fewer workers or more memory for each, the same command continues from here"
            )

    def _revive(self) -> None:
        from distributed import Status

        gone = [
            name
            for name, nanny in list(self.cluster.workers.items())
            if nanny.status in (Status.closed, Status.failed)
        ]
        for name in gone:
            self.cluster.workers.pop(name, None)
        if len(self.cluster.workers) < len(self.cluster.worker_spec):
            self.cluster.scale(len(self.cluster.worker_spec))

    def cancel(self) -> None:
        """Cancel what is queued or running and wait until the workers let go of it."""
        futures, self._flying = list(self._flying.values()), {}
        if futures:
            self.client.cancel(futures, force=True)
