"""Progress of a run as a person sees it: a bar in a terminal or notebook, else lines in the log."""

import html
import logging
import sys
import time
from typing import Any

from zarrloc.callbacks import BlockEnd, Callback, RunEnd, RunStart

LINE_S = 10.0
"""Seconds between two lines in the log."""
REFRESH_S = 0.2
"""Seconds between two updates of a notebook's bar."""

LOG = logging.getLogger("zarrloc")


def usual() -> Callback:
    """What shows progress where the caller has no callback of its own."""
    if in_notebook():
        return NotebookBar()
    return TerminalBar() if sys.stderr.isatty() else LogLines()


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Tally(Callback):
    """Counts what is done; base of all that shows it."""

    def on_run_start(self, event: RunStart) -> None:
        """Begin at 0."""
        self.of = event
        self.blocks = self.rows = self.errors = 0
        self.start = self.shown = time.monotonic()

    def on_block_end(self, event: BlockEnd) -> None:
        """Count a block."""
        self.blocks += 1
        self.rows += event.rows
        self.errors += event.errors

    @property
    def rate(self) -> float:
        """Rows a second since the start."""
        return self.rows / max(time.monotonic() - self.start, 1e-9)

    @property
    def left_s(self) -> float:
        """Seconds to the end at that rate."""
        return (self.of.rows - self.rows) / max(self.rate, 1e-9)

    def due(self, every_s: float) -> bool:
        """Whether that time has passed since it was last due."""
        now = time.monotonic()
        if now - self.shown <= every_s:
            return False
        self.shown = now
        return True


class LogLines(Tally):
    """A line in the log now and then."""

    def on_block_end(self, event: BlockEnd) -> None:
        """Count a block, and log a line if the last one is a while ago."""
        super().on_block_end(event)
        if self.due(LINE_S):
            LOG.info(
                "%s: %d/%d blocks, %.1f %s/s, %.0f s left, %d errors",
                *(self.of.group, self.blocks, self.of.blocks),
                *(self.rate, self.of.unit, self.left_s, self.errors),
            )


class TerminalBar(Tally):
    """One live line on a terminal's standard error."""

    def on_run_start(self, event: RunStart) -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        super().on_run_start(event)
        self.bar = Progress(
            TextColumn(f"{event.group} blocks"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self.bar.start()
        self.task = self.bar.add_task(event.group, total=event.blocks, rate="", errors="")

    def on_block_end(self, event: BlockEnd) -> None:
        """Move the bar."""
        super().on_block_end(event)
        failed = f"{self.errors} errors" if self.errors else ""
        rate = f"{self.rate:.1f} {self.of.unit}/s"
        self.bar.update(self.task, advance=1, rate=rate, errors=failed)

    def on_run_end(self, event: RunEnd) -> None:
        """Leave the bar as it is."""
        self.bar.stop()


class NotebookBar(Tally):
    """A bar below the cell. It needs no library of widgets, and a saved notebook keeps its end."""

    def on_run_start(self, event: RunStart) -> None:
        """Show the bar."""
        from IPython import display

        super().on_run_start(event)
        self.ipython: Any = display
        self.handle = self.ipython.display(self._bar(), display_id=True)

    def on_block_end(self, event: BlockEnd) -> None:
        """Move the bar, a few times a second."""
        super().on_block_end(event)
        if self.due(REFRESH_S):
            self.handle.update(self._bar())

    def on_run_end(self, event: RunEnd) -> None:
        """Show how far it came."""
        self.handle.update(self._bar())

    def _bar(self) -> Any:
        left = f", {self.left_s:.0f} s left" if 0 < self.blocks < self.of.blocks else ""
        failed = f", {self.errors} errors" if self.errors else ""
        return self.ipython.HTML(
            f"<div><code>{html.escape(self.of.group)}</code> "
            f"<progress value='{self.blocks}' max='{self.of.blocks}'></progress> "
            f"{self.blocks}/{self.of.blocks} blocks, {self.rate:.1f} {html.escape(self.of.unit)}/s"
            f"{left}{failed}</div>"
        )
