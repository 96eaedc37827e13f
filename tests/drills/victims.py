"""Processes that do one stage each, forked from one that has loaded everything already."""

import functools
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zarrloc.config.run import RunConfig
from zarrloc.errors import ZarrlocError
from zarrloc.models import backbones

Do = Callable[[Path, RunConfig], int]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.drills.victims", "zarrloc.stages.pretrain", "timm"])
SECONDS = 240
"""None takes a tenth as long; a run that hangs has lost."""

REFUSED, RAISED = 2, 77


def start(do: Do, store: Path, run: RunConfig, before: Callable[[], Any] | None = None) -> Any:
    """A process that does it; what it says lies in `saying(process, store)` once it has ended."""
    process = CONTEXT.Process(target=_do, args=(do, store, run, before))
    process.start()
    return process


def saying(process: Any, store: Path) -> str:
    """What the process printed, and its traceback where it raised."""
    file = _sayings(store, process.pid)
    return file.read_text() if file.exists() else ""


def _sayings(store: Path, pid: int) -> Path:
    return store.with_name(f"{store.stem}-{pid}.said")


def _do(do: Do, store: Path, run: RunConfig, before: Callable[[], Any] | None) -> None:
    with _sayings(store, os.getpid()).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    load_once()
    if before is not None:
        before()
    try:
        code = do(store, run)
    except ZarrlocError as error:
        print(error, flush=True)
        code = REFUSED
    except Exception:
        traceback.print_exc()
        code = RAISED
    sys.stdout.flush()
    os._exit(code)


def load_once() -> None:
    """Build a backbone once a process, not once a run."""
    if not hasattr(backbones.load, "cache_info"):
        backbones.load = functools.cache(backbones.load)  # type: ignore[assignment]
