"""Two runs on one store at once, each pair of stages.

Each of the two ends right or is refused in words; what the store holds when everything has been
done again is what it would hold without them: no row lost, nothing mixed.
"""

import itertools
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drills.pipeline import (
    SERIAL,
    STAGES,
    Tally,
    assert_whole,
    draws,
    judge,
    make_images,
    relabel,
)
from tests.drills.victims import CONTEXT, RAISED, SECONDS, Do, saying, start
from zarrloc.config.run import RunConfig
from zarrloc.engine.verify import verify

LATE_S = 0.4
"""The second run starts at most this much later: about as long as the first takes."""

PARTS = 3  # which the test processes share


def mend(store: Path, run: RunConfig = SERIAL) -> int:
    """`verify --repair`."""
    return 3 if any(found.lost for found in verify(store, repair=True)) else 0


DONE: dict[str, Do] = {
    "ingest": STAGES["ingest"],
    **{name: STAGES[name] for name in ("segment", "cells", "embed fields", "embed cells")},
    # Made for fewer fields, they are made again only with --overwrite.
    **{name: partial(STAGES[name], overwrite=True) for name in ("split", "train", "predict")},
}
PAIRED: dict[str, Do] = {**DONE, "relabel": relabel, "label": judge, "verify --repair": mend}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of every stage whose source has grown since; and what it is to become."""
    folder = tmp_path_factory.mktemp("two")
    store, before = folder / "s.zarr", folder / "before.zarr"
    make_images(folder, 5)
    for stage in STAGES.values():
        assert stage(store) == 0
    make_images(folder)
    shutil.copytree(store, before)
    _do_all(store)
    return before, store


def _do_all(store: Path) -> None:
    for name, do in DONE.items():
        assert do(store, SERIAL) == 0, name
    judge(store)


def _wait(barrier: Any, seconds: float) -> None:
    barrier.wait(SECONDS)
    time.sleep(seconds)


def _both(grown: tuple[Path, Path], pair: tuple[str, str], rng: np.random.Generator) -> str:
    before, after = grown
    store = before.with_name("both.zarr")
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(before, store)
    barrier = CONTEXT.Barrier(2)
    delays = rng.permutation([0, rng.uniform(0, LATE_S)])
    runs = [
        start(PAIRED[name], store, SERIAL, partial(_wait, barrier, float(delay)))
        for name, delay in zip(pair, delays, strict=True)
    ]
    for run in runs:
        run.join(SECONDS)
    codes = [run.exitcode for run in runs]
    assert None not in codes, "hangs"
    said = [saying(run, store) for run in runs]
    assert RAISED not in codes, "\n".join(said)
    assert set(codes) <= {0, 2, 4}, (codes, said)  # 4: locked by the other
    _do_all(store)
    assert_whole(store, after)
    return (
        "both went through" if codes == [0, 0] else "one was refused" if 0 in codes else "neither"
    )


def _drill(grown: tuple[Path, Path], pairs: list[tuple[str, str]], seed: int) -> None:
    tally = Tally()
    for pair, rng in zip(pairs, draws(len(pairs), seed), strict=True):
        with tally.of(f"{' and '.join(pair)}"):
            tally.ended[_both(grown, pair, rng)] += 1
    tally.tell("two runs at once")


def test_a_draw_of_two_runs(grown: tuple[Path, Path]) -> None:
    _drill(grown, [("ingest", "ingest"), ("ingest", "segment"), ("segment", "segment")], seed=1)


@pytest.mark.drill
@pytest.mark.parametrize("part", range(PARTS))
def test_every_pair_of_stages(grown: tuple[Path, Path], part: int) -> None:
    pairs = list(itertools.combinations_with_replacement(PAIRED, 2))
    _drill(grown, pairs[part::PARTS], seed=2 + part)
