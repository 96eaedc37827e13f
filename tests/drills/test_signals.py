"""Ctrl-C and SIGTERM at random moments of each stage, also where SIGINT was ignored at start.

The run stops with exit code 1 and one line, without a traceback; the same command continues.
"""

import os
import signal
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.drills.pipeline import PRETRAINING, SERIAL, Tally, draws
from tests.drills.victims import CONTEXT, SECONDS, count, saying, start
from tests.drills.works import PREPARED, Work, Works

STOPPED = "stopped; the same command continues from here"
HOW = {
    "SIGINT": (signal.SIGINT, False),
    "SIGTERM": (signal.SIGTERM, False),
    "SIGINT, ignored at start": (signal.SIGINT, True),
    "SIGTERM, SIGINT ignored at start": (signal.SIGTERM, True),
}


def _stop(how: signal.Signals, _: str) -> None:
    os.kill(os.getpid(), how)


def _begin(ignored: bool, counting: Any) -> None:
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    counting()


def _stopped(work: Work, rng: np.random.Generator, operations: int, how: str) -> str:
    store = work.fresh("victim.zarr")
    sent, ignored = HOW[how]
    counted, when = CONTEXT.Value("L", 0, lock=False), int(rng.integers(operations)) + 1
    counting = partial(count, store, counted, when, partial(_stop, sent))
    process = start(work.do, store, SERIAL, partial(_begin, ignored, counting))
    process.join(SECONDS)
    said = saying(process, store)
    assert process.exitcode is not None, "hangs"
    # Between the last operation and the end there may be nothing left to stop.
    assert process.exitcode in (0, 1), (process.exitcode, said)
    assert "Traceback" not in said, said
    if process.exitcode and work.do is not PRETRAINING:  # which is kept quiet here
        assert STOPPED in said.splitlines()[-1], said
    work.finish(store)
    return "stopped" if process.exitcode else "went on to the end"


def _drill(works: Works, names: Iterable[str], seed: int, every: int) -> None:
    tally = Tally()
    for turn, name in enumerate(names):
        work = works[name]
        operations = work.operations()
        for n, (how, rng) in enumerate(zip(HOW, draws(len(HOW), seed + turn), strict=True)):
            if n % every == 0:
                with tally.of(f"{name}, {how}"):
                    tally.ended[_stopped(work, rng, operations, how)] += 1
    tally.tell("stopped by signals")


def test_a_draw_of_signals(works: Works) -> None:
    _drill(works, ["append", "segment"], seed=1, every=2)


@pytest.mark.drill
def test_signals_in_every_stage(works: Works) -> None:
    _drill(works, PREPARED, seed=2, every=1)
