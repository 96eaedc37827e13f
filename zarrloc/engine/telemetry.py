"""What a run shows and keeps: a progress line, a log beside the store, where the time went."""

import io
import json
import logging
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Any, Self

from zarrloc.engine.block import Receipt
from zarrloc.errors import StoreError
from zarrloc.store import objects
from zarrloc.store.location import Location

PHASES = ("read", "decode", "device", "finish", "write", "wait", "open")
PLAIN_LINE_S = 10.0
REMOTE_LOG_S = 30.0

LOG = logging.getLogger("zarrloc")


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
        """For a terminal."""
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
        decode = self.seconds["read"] + self.seconds["decode"]
        rate = (
            f"; read at {self.bytes_read / decode / 1e6:.0f} MB/s stored" if self.bytes_read else ""
        )
        return f"time in {', '.join(parts)}; bottleneck: {self.bottleneck}{rate}"


class Progress(AbstractContextManager["Progress"]):
    """One live line on a terminal or in a notebook; elsewhere a line now and then in the log."""

    def __init__(self, group: str, blocks: int, rows: int, unit: str, quiet: bool = False) -> None:
        self.group, self.blocks, self.rows, self.unit = group, blocks, rows, unit
        self.quiet = quiet
        self.live: Any = None
        self.done = self.done_rows = self.errors = 0
        self.start = self.last = time.monotonic()

    def __enter__(self) -> Self:
        self.start = self.last = time.monotonic()
        wanted = not self.quiet and LOG.isEnabledFor(logging.WARNING)
        if wanted and (sys.stderr.isatty() or _in_notebook()):
            self._go_live()
        return self

    def _go_live(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.live = Bar(
            TextColumn(f"{self.group} blocks"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self.live.start()
        self.task = self.live.add_task(self.group, total=self.blocks, rate="", errors="")

    def advance(self, rows: int, errors: int) -> None:
        """One block is done."""
        self.done += 1
        self.done_rows += rows
        self.errors += errors
        now = time.monotonic()
        rate = self.done_rows / max(now - self.start, 1e-9)
        failed = f"{self.errors} errors" if self.errors else ""
        if self.live is not None:
            self.live.update(self.task, advance=1, rate=f"{rate:.1f} {self.unit}/s", errors=failed)
        elif not self.quiet and now - self.last > PLAIN_LINE_S:
            self.last = now
            left = (self.rows - self.done_rows) / max(rate, 1e-9)
            LOG.info(
                "%s: %d/%d blocks, %.1f %s/s, %.0f s left, %d errors",
                *(self.group, self.done, self.blocks, rate, self.unit, left, self.errors),
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()


def _in_notebook() -> bool:
    """Whether this process shows widgets: rich then draws its bar as one."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


class RunLog(AbstractContextManager["RunLog"]):
    """One JSON line an event, beside the store; timings never go into it.

    An object cannot be appended to: in an object store the log is put anew now and then, and at
    the end.
    """

    def __init__(self, location: Location, group: str, run: str) -> None:
        self.beside = location.beside
        self.name = f"{group.replace('/', '.')}-{time.strftime('%Y%m%dT%H%M%S')}-{run}.jsonl"
        self.file: IO[str] = io.StringIO()
        self.put = time.monotonic()
        if self.beside.path is not None:
            self.file = open(self.beside.path / self.name, "w", encoding="utf-8")  # noqa: SIM115

    def write(self, event: str, **values: Any) -> None:
        """Append an event."""
        line = {"time": round(time.time(), 3), "event": event, **values}
        self.file.write(json.dumps(line, default=str) + "\n")
        self.file.flush()
        if time.monotonic() - self.put > REMOTE_LOG_S:
            self._put()

    def block(self, receipt: Receipt) -> None:
        """A block is done."""
        seconds = {name: round(value, 4) for name, value in receipt.seconds.items()}
        self.write("block", block=receipt.block, seconds=seconds, nbytes=receipt.nbytes)

    def _put(self) -> None:
        if isinstance(self.file, io.StringIO):
            self.put = time.monotonic()
            with suppress(StoreError):  # a run does not end for its log
                objects.write(self.beside, self.name, self.file.getvalue().encode())

    def __exit__(self, *_: object) -> None:
        self._put()
        self.file.close()
