import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.toys import run_toy
from zarrloc.callbacks import BlockEnd, BlockFailed, Callback, RunEnd, RunStart
from zarrloc.engine import progress
from zarrloc.engine.progress import LogLines, TerminalBar, usual

START = RunStart("embeddings/e", 10, 40, "FOV", 1)
BLOCK = BlockEnd("embeddings/e", 0, 4, 1, {}, 0)
END = RunEnd("embeddings/e", (), {})


def test_lines_come_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "zarrloc")
    monkeypatch.setattr(progress.LOG, "handlers", [])  # the command line's own
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = LogLines()
    lines.on_run_start(START)
    for _ in range(10):
        now[0] += 4.0
        lines.on_block_end(BLOCK)
    lines.on_run_end(END)
    assert capsys.readouterr() == ("", ""), "the library prints nothing"
    assert caplog.messages[0] == "embeddings/e: 3/10 blocks, 1.0 FOV/s, 28 s left, 3 errors"
    assert len(caplog.messages) == 3


def test_a_terminal_gets_one_live_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(usual(), LogLines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = usual()
    assert isinstance(bar, TerminalBar)
    bar.on_run_start(START)
    for _ in range(10):
        bar.on_block_end(BLOCK)
    assert bar.bar.finished
    bar.on_run_end(END)
    assert "embeddings/e blocks" in capsys.readouterr().err


class Heard(Callback):
    """Notes every event by its class."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_run_start(self, event: RunStart) -> None:
        """Note it."""
        self.events.append(event)

    on_block_end = on_block_failed = on_run_end = on_run_start  # type: ignore[assignment]


def test_a_callback_hears_a_run_and_takes_the_usual_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Callback:
        raise AssertionError("the usual bar is shown")

    monkeypatch.setattr("zarrloc.engine.run.usual", never)
    with Heard() as outer, Heard() as heard:
        run_toy(tmp_path / "s", do={3: "raise"})
    assert not Callback.active
    assert heard.events == outer.events
    start, *blocks, end = heard.events
    assert isinstance(start, RunStart)
    assert (start.blocks, start.rows) == (len(blocks), sum(block.rows for block in blocks))
    assert [block.block for block in blocks] == list(range(len(blocks)))
    assert sum(block.errors for block in blocks) == 1
    assert isinstance(end, RunEnd)
    assert end.failures == ()
    with Heard() as again:
        run_toy(tmp_path / "s", do={3: "raise"})
    assert again.events == [], "nothing was to be done"


def test_a_callback_that_raises_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    class Impatient(Heard):
        def on_block_end(self, event: BlockEnd) -> None:
            super().on_block_end(event)  # type: ignore[arg-type]
            if len(self.events) == 3:
                raise RuntimeError("enough")

    with Impatient() as heard, pytest.raises(RuntimeError, match="enough"):
        run_toy(tmp_path / "s")
    assert isinstance(heard.events[-1], RunEnd), "who heard the start hears the end"
    with Heard() as rest:
        run_toy(tmp_path / "s")
    assert rest.events[0].blocks == heard.events[0].blocks - 2


def test_a_failed_block_is_heard_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Heard() as heard:
        run_toy(tmp_path / "s", do={0: "stale"})
    (failed,) = (event for event in heard.events if isinstance(event, BlockFailed))
    assert failed.block == 0
    assert "Traceback" in failed.reason


def test_a_quiet_command_shows_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    import click
    from zarrloc_cli.commands import Command

    seen: list[int] = []
    command = Command("c", callback=lambda: seen.append(len(Callback.active)))
    for words in ([], ["--quiet"]):
        command.main(words, standalone_mode=False)
    logging.getLogger("zarrloc").setLevel(logging.NOTSET)
    assert seen == [0, 1]
    assert not Callback.active
    assert click.get_current_context(silent=True) is None


CELL = """
from pathlib import Path
from tests.engine.toys import run_toy
run_toy(Path({path!r}))
"""


def test_a_notebook_shows_a_bar_that_moves(tmp_path: Path) -> None:
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cell = nbformat.v4.new_code_cell(CELL.format(path=str(tmp_path / "s")))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    root = str(Path(__file__).parents[2])
    client.NotebookClient(notebook, resources={"metadata": {"path": root}}, timeout=120).execute()
    (bar,) = (out for out in cell.outputs if out.output_type == "display_data")
    shown = bar.data["text/html"]
    assert "<progress value='5' max='5'>" in shown, "the last update is what a saved notebook has"
    assert "5/5 blocks" in shown
