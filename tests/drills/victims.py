"""Processes that do one stage each, as its command does, forked from one that has loaded all."""

import functools
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from zarrloc_cli import main as cli

from zarrloc.config.run import RunConfig
from zarrloc.models import backbones

Do = Callable[[Path, RunConfig], int]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.drills.victims", "zarrloc.stages.pretrain", "timm"])
SECONDS = 240
"""None takes a tenth as long; a run that hangs has lost."""

RAISED = 77
"""Exit code where a command would have shown a traceback."""

FILES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
"""Operations on files, as Python's audit events name them."""


def start(do: Do, store: Path, run: RunConfig, before: Callable[[], Any] | None = None) -> Any:
    """A process that does it; what it says lies in `saying(process, store)` once it has ended."""
    process = CONTEXT.Process(target=_do, args=(do, store, run, before))
    process.start()
    return process


def saying(process: Any, store: Path) -> str:
    """What the process printed, and its traceback where it raised: to be asked for once."""
    file = _sayings(store, process.pid)
    said = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return said


def _sayings(store: Path, pid: int) -> Path:
    # Not beside the store: its disk may be full.
    return Path(tempfile.gettempdir()) / f"zarrloc-drill-{os.getuid()}-{store.stem}-{pid}.txt"


def _do(do: Do, store: Path, run: RunConfig, before: Callable[[], Any] | None) -> None:
    with _sayings(store, os.getpid()).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    load_once()

    @click.command()
    def command() -> int:
        return do(store, run)

    cli.Commands.get_command = lambda *_: command  # type: ignore[assignment, method-assign]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: Any = RAISED
    try:
        if before is not None:
            before()
        cli.main(["info"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load_once() -> None:
    """Build a backbone once, not once a run: for a process that is a drill's own."""
    backbones.load = functools.cache(backbones.load)  # type: ignore[assignment]


def count(
    store: Path,
    counted: Any,
    when: int = 0,
    then: Callable[[str], None] = lambda path: None,
    *,
    writes: bool = False,
    lasting: bool = False,
) -> None:
    """Count this process's operations on a store's files; before the `when`th, call `then(path)`.

    Of `writes`, only those that may change something; `lasting`, before all later ones, too.
    """
    prefix = str(store.with_suffix(""))  # what lies beside the store has it as well
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in FILES or not str(arguments[0]).startswith(prefix):
            return
        if writes and event == "open" and not arguments[2] & writing:
            return
        counted.value += 1
        if counted.value == when or (lasting and 0 < when < counted.value):
            then(str(arguments[0]))

    sys.addaudithook(heard)
