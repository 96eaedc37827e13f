"""Every way to change a store, and the store before and after it."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.drills.pipeline import (
    PRETRAINING,
    SERIAL,
    STAGES,
    assert_whole,
    judge,
    make_images,
    relabel,
    run_of,
)
from tests.drills.victims import CONTEXT, SECONDS, Do, count, saying, start
from zarrloc.engine.verify import verify

PREPARED: dict[str, Do] = {
    "append": STAGES["ingest"],
    "ingest": STAGES["ingest"],
    "relabel": relabel,
    "ingest --overwrite": partial(STAGES["ingest"], overwrite=True),
    **{name: STAGES[name] for name in ("segment", "cells", "embed fields", "embed cells")},
    "label": judge,
    "split": STAGES["split"],
    "train": STAGES["train"],
    "predict": STAGES["predict"],
    "embed --overwrite": partial(STAGES["embed fields"], overwrite=True),
    "pretrain": PRETRAINING,
}
"""In an order in which each finds what it needs."""


@dataclass
class Work:
    """What is disturbed, the store it starts from, and the store it is to end with."""

    do: Do
    before: Path | None
    after: Path

    def fresh(self, name: str) -> Path:
        """A store of this name as it is before the work."""
        store = self.after.with_name(name)
        for path in (store, run_of(store)):
            shutil.rmtree(path, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before, store)
        return store

    def operations(self, *, writes: bool = False) -> int:
        """How many operations on files it makes, undisturbed."""
        store, counted = self.fresh("measured.zarr"), CONTEXT.Value("L", 0, lock=False)
        process = start(self.do, store, SERIAL, partial(count, store, counted, writes=writes))
        process.join(SECONDS)
        assert process.exitcode == 0, saying(process, store)
        self.assert_done(store)
        return int(counted.value)

    def finish(self, store: Path) -> None:
        """The same command again leaves the store as if nothing had befallen the first."""
        assert self.do(store, SERIAL) == 0
        verify(store, repair=True)  # a killed write may leave a `.partial` file
        self.assert_done(store)

    def assert_done(self, store: Path) -> None:
        """Arrays and chunk objects are those of the undisturbed store; so are trained weights."""
        assert_whole(store, self.after)
        if run_of(store).exists():
            whole = run_of(self.after.with_name("s.zarr"))
            for name in ("backbone.safetensors", "run.json"):
                assert (run_of(store) / name).read_bytes() == (whole / name).read_bytes(), name


class Works:
    """The work of every kind, made when it is first asked for, with all before it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "s.zarr"
        self._left = iter(PREPARED.items())
        self._made: dict[str, Work] = {}

    def __getitem__(self, name: str) -> Work:
        while name not in self._made:
            self._make(*next(self._left))
        return self._made[name]

    def _make(self, name: str, do: Any) -> None:
        if name == "append":  # the last shard is half full before
            make_images(self.folder, 5)
            assert do(self.store, SERIAL) == 0
            make_images(self.folder)
        if name == "ingest":
            shutil.rmtree(self.store)
        before, after = self.folder / f"before-{name}", self.folder / f"after-{name}.zarr"
        if self.store.exists():
            shutil.copytree(self.store, before)
        assert do(self.store, SERIAL) == 0
        shutil.copytree(self.store, after)
        self._made[name] = Work(do, before if before.exists() else None, after)
