"""What a run leaves behind: its summary, and a log beside the store."""

import io
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from zarrloc.callbacks import (
    BlockEnd,
    BlockFailed,
    Callback,
    RowsGuilty,
    RunEnd,
    RunStart,
    WorkerDied,
)
from zarrloc.errors import StoreError
from zarrloc.store import objects
from zarrloc.store.location import Location

PHASES = ("read", "prepare", "device", "finish", "write", "wait", "open")
"""Where a block's time goes: fetched and decoded, checked and made ready, computed, made into rows,
stored; waiting for the device, loading models."""
REMOTE_LOG_S = 30.0


@dataclass
class Summary:
    """How a run of a stage ended."""

    group: str
    rows: int
    blocks: int
    blocks_run: int = 0
    rows_run: int = 0
    rows_failed: int = 0
    wall_s: float = 0.0
    """First submit to last receipt."""
    start_s: float = 0.0
    """Starting workers, before the first submit."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Phase -> seconds, summed over workers."""
    bytes_read: int = 0
    """Of images and masks, decoded."""
    workers: int = 1
    failures: list[str] = field(default_factory=list)
    """Blocks that could not be done, each with its reason."""
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done; 1 blocks were left undone; 3 done, but rows have an `error`."""
        if self.failures:
            return 1
        return 3 if self.rows_failed else 0

    @property
    def bottleneck(self) -> str:
        """The phase that limits the run: the device where it is busy most of the time."""
        busy = {name: self.seconds[name] for name in PHASES if name not in ("wait", "open")}
        if self.wall_s and busy["device"] / (self.wall_s * self.workers) > 0.8:
            return "device"
        return max(busy, key=lambda name: busy[name])

    def lines(self) -> list[str]:
        """The summary, line by line."""
        if not self.blocks_run and not self.failures:
            text = [f"{self.group}: nothing to do, all {self.blocks} blocks are done"]
        else:
            rate = self.rows_run / self.wall_s if self.wall_s else 0.0
            text = [
                f"{self.group}: {self.rows_run} rows in {self.blocks_run} of {self.blocks} blocks, "
                f"{self.wall_s:.1f} s, {rate:.1f} rows/s (workers started in {self.start_s:.1f} s)",
                self._where(),
            ]
        if self.rows_failed:
            text.append(
                f"{self.rows_failed} of {self.rows} rows have an error; "
                f"`zarrloc info STORE --errors` lists them"
            )
        return text + self.notes + [f"not done: {failure}" for failure in self.failures]

    def _where(self) -> str:
        total = sum(self.seconds[name] for name in PHASES) or 1.0
        parts = [
            f"{name} {100 * self.seconds[name] / total:.0f} %"
            for name in PHASES
            if self.seconds[name]
        ]
        read = self.seconds["read"]
        rate = f"; read at {self.bytes_read / read / 1e6:.0f} MB/s a thread" if read else ""
        return f"time in {', '.join(parts)}; bottleneck: {self.bottleneck}{rate}"


class RunLog(Callback):
    """One JSON line an event, beside the store; timings never go into it.

    An object cannot be appended to: in an object store the whole log is written again now and then,
    and at the end.
    """

    def __init__(self, location: Location, group: str, run: str) -> None:
        self.beside = location.beside
        self.name = f"{group.replace('/', '.')}-{time.strftime('%Y%m%dT%H%M%S')}-{run}.jsonl"
        self.file: IO[str] = io.StringIO()
        self.put = time.monotonic()
        if self.beside.path is not None:
            self.file = open(self.beside.path / self.name, "w", encoding="utf-8")  # noqa: SIM115

    def on_run_start(self, event: RunStart) -> None:
        """Note what is to be done."""
        self._write("start", group=event.group, blocks=event.blocks, workers=event.workers)

    def on_block_end(self, event: BlockEnd) -> None:
        """Note a block and its timings."""
        seconds = {name: round(value, 4) for name, value in event.seconds.items()}
        self._write("block", block=event.block, seconds=seconds, nbytes=event.nbytes)

    def on_block_failed(self, event: BlockFailed) -> None:
        """Note why a block failed."""
        self._write("failure", block=event.block, reason=event.reason)

    def on_worker_died(self, event: WorkerDied) -> None:
        """Note a suspect."""
        self._write("suspect", block=event.block)

    def on_rows_guilty(self, event: RowsGuilty) -> None:
        """Note who was guilty."""
        self._write("guilty", rows=list(event.rows))

    def on_run_end(self, event: RunEnd) -> None:
        """Note how it ended, and close the log."""
        self._write("end", failures=list(event.failures), seconds=event.seconds)
        self._put()
        self.file.close()

    def _write(self, event: str, **values: Any) -> None:
        line = {"time": round(time.time(), 3), "event": event, **values}
        self.file.write(json.dumps(line, default=str) + "\n")
        self.file.flush()
        if time.monotonic() - self.put > REMOTE_LOG_S:
            self._put()

    def _put(self) -> None:
        if isinstance(self.file, io.StringIO):
            self.put = time.monotonic()
            with suppress(StoreError):  # a run does not end for its log
                objects.write(self.beside, self.name, self.file.getvalue().encode())
