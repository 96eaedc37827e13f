"""A run of a stage: a bounded window of futures, receipts as they come, suspects alone."""

import signal
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from zarrloc.callbacks import (
    BlockEnd,
    BlockFailed,
    Callback,
    RowsGuilty,
    RunEnd,
    RunStart,
    WorkerDied,
)
from zarrloc.engine.block import AnyBlock, AnyStage, BlockFailure, Receipt, run_block
from zarrloc.engine.cluster import wait_out
from zarrloc.engine.executors import Dask, Done, Executor
from zarrloc.engine.ledger import KILLED, Ledger
from zarrloc.engine.progress import usual
from zarrloc.engine.schedulers import is_shared
from zarrloc.engine.telemetry import RunLog, Summary
from zarrloc.errors import LockedError, RunError
from zarrloc.store.digest import combine
from zarrloc.store.document import need_there
from zarrloc.store.lock import RunToken, StaleRun
from zarrloc.store.retry import is_passing

LEAST_WINDOW = 64
A_SLOT = 3
"""Blocks in flight: enough to keep any worker busy, few enough to stop soon."""

COUNT_S = 5.0
"""How often workers are counted anew: those of a batch system or a cloud come one by one."""

TRIES = 5
"""How often a suspect is tried whose worker dies before it has begun."""

GIVE_UP = 8
"""A run whose first blocks all fail, this many, has a fault of its own and stops."""


def new_run_id() -> str:
    """A fresh name for a run."""
    return uuid.uuid4().hex[:12]


def run(
    stage: AnyStage,
    ledger: Ledger,
    blocks: Sequence[AnyBlock],
    executor: Executor,
    token: RunToken,
    *,
    unit: str = "FOV",
) -> Summary:
    """Do `blocks` and record them; what cannot be done is in `Summary.failures`.

    Ctrl-C and SIGTERM stop it cleanly: receipts so far are kept and `KeyboardInterrupt` is raised.
    """
    summary = Summary(stage.group, ledger.rows, ledger.blocks, workers=executor.workers)
    if isinstance(executor, Dask) and is_shared(executor.kind):
        wait_out(executor.client, key_prefix(stage), token.run)
    log = RunLog(stage.location, stage.group, token.run)
    listeners = (log, *(Callback.active or (usual(),)))
    begin = RunStart(stage.group, len(blocks), sum(map(len, blocks)), unit, executor.workers)
    with _reported(listeners, begin, summary), _stopped_by_signals():
        ledger.reopen([block.index for block in blocks])
        start = time.perf_counter()
        runner = _Runner(stage, ledger, executor, token, summary, listeners)
        try:
            runner.run(blocks)
        finally:
            executor.cancel()
            need_there(stage.location)
            ledger.flush()
            summary.wall_s = time.perf_counter() - start
            summary.rows_failed = int(ledger.errors().sum())
    return summary


@contextmanager
def _reported(listeners: Sequence[Callback], begin: RunStart, summary: Summary) -> Iterator[None]:
    """Report a run's start, and its end to each that heard the start, whatever happens."""
    with ExitStack() as ends:

        def end(listener: Callback) -> None:
            failures, seconds = tuple(summary.failures), dict(summary.seconds)
            listener.on_run_end(RunEnd(begin.group, failures, seconds))

        for listener in listeners:
            listener.on_run_start(begin)
            ends.callback(end, listener)
        yield


def key_prefix(stage: AnyStage) -> str:
    """How every task of this stage of this store is named on a scheduler."""
    return f"{stage.group.replace('/', '.')}-{combine([stage.location.uri]):016x}"


class _Runner:
    """The coordinator's loop over one run."""

    def __init__(
        self,
        stage: AnyStage,
        ledger: Ledger,
        executor: Executor,
        token: RunToken,
        summary: Summary,
        listeners: Sequence[Callback],
    ) -> None:
        self.stage, self.ledger, self.executor, self.token = stage, ledger, executor, token
        self.summary, self.listeners = summary, listeners
        self.attempt = 0
        self.window = 0
        """Blocks in flight at most."""
        self._counted = 0.0
        self.waiting: deque[AnyBlock] = deque()
        self.suspects: deque[AnyBlock] = deque()
        self.flying: dict[str, AnyBlock] = {}
        self.trial: Trial | None = None
        self.passing = 0
        """Blocks in a row that failed for a reason that passes."""
        self.tried = ""
        """Key of the call that the trial waits for."""

    def run(self, blocks: Sequence[AnyBlock]) -> None:
        """Run blocks through the window, and those whose worker died under them alone."""
        self.waiting.extend(blocks)
        while self.waiting or self.flying or self.suspects:
            self._count_workers()
            if self.waiting and len(self.flying) <= self.window // 2:
                some = min(len(self.waiting), self.window - len(self.flying))
                self._submit([self.waiting.popleft() for _ in range(some)])
            if self.suspects and self.trial is None:
                self.trial = _trial(self.suspects.popleft())
                self._try(None)
            for end in self.executor.completed():
                block = self.flying.pop(end.key)
                if end.key == self.tried:
                    self._try(end)
                elif end.killed:
                    self.suspects.append(block)
                    for listener in self.listeners:
                        listener.on_worker_died(WorkerDied(self.stage.group, block.index))
                else:
                    self._take(block, end)
            self._still_ours()
            self.ledger.flush_when_due()

    def _count_workers(self) -> None:
        """Open the window as wide as the workers there are now ask for."""
        now = time.monotonic()
        if not self.window or now - self._counted > COUNT_S:
            self._counted = now
            self.window = max(LEAST_WINDOW, A_SLOT * self.executor.slots)
            self.summary.workers = max(self.summary.workers, self.executor.workers)

    def _try(self, end: Done | None) -> None:
        """Go on with the trial, handing it how its last call ended."""
        assert self.trial is not None, "only a trial that has begun goes on"
        try:
            block, write = self.trial.send(end)
        except StopIteration as verdict:
            self.trial, self.tried = None, ""
            block, last = verdict.value
            if guilty := [row for row, why in block.skip.items() if why == KILLED]:
                found = RowsGuilty(self.stage.group, block.index, tuple(sorted(guilty)))
                for listener in self.listeners:
                    listener.on_rows_guilty(found)
            self._take(block, last)
        else:
            (self.tried,) = self._submit([block], write, alone=True)

    def _submit(
        self, blocks: Sequence[AnyBlock], write: bool = True, alone: bool = False
    ) -> list[str]:
        self.attempt += 1
        prefix = f"{key_prefix(self.stage)}-{self.token.run}-{self.attempt}"
        calls = {f"{prefix}-{block.index}": block for block in blocks}
        self.executor.submit(
            [(key, (self.stage, block, self.token, write, alone)) for key, block in calls.items()],
            run_block,
            urgent=alone,
        )
        self.flying.update(calls)
        return list(calls)

    def _take(self, block: AnyBlock, end: Done) -> None:
        if isinstance(end.error, StaleRun):
            raise LockedError(f"{end.error}; this run stops, the other one goes on") from end.error
        if end.killed or end.error is not None:
            self._fail(block, end)
            return
        self.passing = 0
        receipt: Receipt = end.value
        self.ledger.record(receipt)
        self.summary.blocks_run += 1
        self.summary.rows_run += len(block)
        self.summary.bytes_read += receipt.bytes_read
        self.summary.seconds.update(receipt.seconds)
        errors = int(self.ledger.errors(block.start, block.stop).sum())
        done = BlockEnd(
            self.stage.group, block.index, len(block), errors, dict(receipt.seconds), receipt.nbytes
        )
        for listener in self.listeners:
            listener.on_block_end(done)

    def _fail(self, block: AnyBlock, end: Done) -> None:
        reason = str(end.error)
        if end.killed:
            reason = (
                f"{self.stage.group} block {block.index} kills its worker though each FOV alone "
                "does not: give workers more memory (--memory-limit, fewer --workers)"
            )
        self.summary.failures.append(reason.splitlines()[0])
        trace = "".join(traceback.format_exception(end.error)) if end.error else reason
        for listener in self.listeners:
            listener.on_block_failed(BlockFailed(self.stage.group, block.index, trace))
        cause = end.error.cause if isinstance(end.error, BlockFailure) else None
        if cause is not None and not is_passing(cause):
            raise cause  # no other block would fare better
        self.passing = self.passing + 1 if cause is not None else 0
        if len(self.summary.failures) >= GIVE_UP and not self.summary.blocks_run:
            raise RunError(
                f"the first {GIVE_UP} blocks all failed; the first: {self.summary.failures[0]}"
            )
        if self.passing == GIVE_UP:
            raise RunError(
                f"{GIVE_UP} blocks in a row failed though each was tried for minutes; the last: "
                f"{self.summary.failures[-1]}; the same command continues from here"
            )

    def _still_ours(self) -> None:
        if time.monotonic() - getattr(self, "_checked", 0.0) > 1.0:
            self._checked = time.monotonic()
            need_there(self.stage.location)
            try:
                self.token.check()
            except StaleRun as error:
                raise LockedError(f"{error}; this run stops") from error


Trial = Generator[tuple[AnyBlock, bool], Done | None, tuple[AnyBlock, Done]]
"""Yields a block to be run alone, and whether to store it; is sent how that ended."""


def _trial(block: AnyBlock) -> Trial:
    """Try a suspect alone; if it kills again, find the FOV that does and leave it out."""
    end = yield from _alone(block, True)
    if end.killed:
        guilty: dict[int, str] = {}
        for unit in block.units:
            if any(row not in block.skip for row in unit):
                probe = yield from _alone(block.only(unit), False)
                if probe.killed:
                    guilty.update(dict.fromkeys(unit, KILLED))
        if guilty:
            block = replace(block, skip={**block.skip, **guilty})
            end = yield from _alone(block, True)
    return block, end


def _alone(block: AnyBlock, write: bool) -> Generator[tuple[AnyBlock, bool], Done | None, Done]:
    """The block's end, tried again where a neighbour killed the worker before it had begun."""
    tries = 0
    while True:
        end = yield block, write
        assert end is not None, "a call that was made has ended"
        tries += 1
        if end.begun or not end.killed or tries == TRIES:
            return end


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM stop a run as Ctrl-C does, and Ctrl-C where it was ignored at start (nohup).

    Handlers that an application has of its own stay.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    nobodys = (signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler)
    before = {
        one: signal.signal(one, interrupt)
        for one in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(one) in nobodys
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
