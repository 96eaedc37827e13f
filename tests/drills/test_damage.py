"""Every kind of file of a store, cut off, emptied, flipped in one bit, or deleted.

`verify --deep` finds each. No stage that runs on it as it is deletes, accepts or launders anything.
`verify --repair` and the same commands bring back the values of an undisturbed store, or the rest
is named; nothing else is touched.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.drills.pipeline import (
    PRETRAIN,
    PRETRAINING,
    STAGES,
    Tally,
    differences,
    judge,
    run_of,
    stored,
    stored_once,
)
from zarrloc.engine.verify import verify
from zarrloc.errors import ZarrlocError
from zarrloc.models.weights import check_export

WAYS = ("cut off", "emptied", "flipped", "deleted")
EXPORTED = ("backbone.json", "backbone.safetensors", "teacher.pth")
CASES = 200
PARTS = 4  # which the test processes share
SEED = 10


@dataclass(frozen=True)
class Case:
    """What is done to which file."""

    file: str
    way: str
    seed: int

    def __str__(self) -> str:
        return f"{self.file} {self.way}"

    def concerns(self, group: str) -> bool:
        """Whether the file belongs to a group, or to one above it."""
        return f"{self.file}/".startswith(f"{group}/") or f"{group}/".startswith(
            self.file.removesuffix("zarr.json")
        )

    def damage(self, store: Path) -> None:
        path, rng = store / self.file, np.random.default_rng(self.seed)
        content = bytearray(path.read_bytes())
        match self.way:
            case "cut off":
                path.write_bytes(content[: int(rng.integers(1, len(content)))])
            case "emptied":
                path.write_bytes(b"")
            case "flipped":
                content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
                path.write_bytes(content)
            case "deleted":
                path.unlink()


def cases(store: Path, count: int, seed: int) -> list[Case]:
    """Each kind of file once, while `count` allows: its ways, and its objects, by turns."""
    kinds: dict[str, list[str]] = {}
    live = stored(store)  # of a column that was replaced, the objects from before lie there, too
    for path in sorted(store.rglob("*")):
        key = path.relative_to(store).as_posix().replace("/c.", "/c/")
        if path.name == "zarr.json" or live.get(key) == (path.is_file() and path.read_bytes()):
            name = path.relative_to(store).as_posix()
            kinds.setdefault(name if path.name == "zarr.json" else str(_array(path)), []).append(
                name
            )
    rng = np.random.default_rng(seed)
    names = list(kinds)
    order = [names[at] for at in rng.permutation(len(names))]
    # The documents are few, and all hangs on them: each in every way.
    documents = [name for name in names if _is_group(store / name)]
    found = [Case(name, way, n) for n, name in enumerate(documents) for way in WAYS]
    turn = 0
    while len(found) < count:
        for name in order:
            file = kinds[name][int(rng.integers(len(kinds[name])))]
            found.append(Case(file, WAYS[(turn + order.index(name)) % 4], len(found)))
        turn += 1
    if count < len(found):
        found = [found[at] for at in sorted(rng.permutation(len(found))[:count])]
    return found


def _array(path: Path) -> Path:
    return next(parent for parent in path.parents if (parent / "zarr.json").exists())


def _is_group(path: Path) -> bool:
    return path.name == "zarr.json" and json.loads(path.read_bytes())["node_type"] == "group"


def drill(undisturbed: Path, case: Case) -> str:
    """How the case ended; raises `AssertionError` where something did not hold."""
    store = undisturbed.with_name("copy.zarr")
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(undisturbed, store)
    whole = stored_once(undisturbed)
    case.damage(store)
    assert sum(found.faults for found in verify(store, deep=True)), "not found by verify --deep"

    damaged = _files(store)
    _run_concerned(store, case)
    _nothing_else_changed(store, undisturbed, case)
    if _files(store) != damaged and not sum(found.faults for found in verify(store, deep=True)):
        assert stored(store) == whole, "laundered: verify is content with other values"

    findings = verify(store, deep=True, repair=True)
    named = {found.group for found in findings if found.lost}
    _nothing_else_changed(store, undisturbed, case, repaired=True)
    refused = _run_concerned(store, case)
    if named:
        assert all(case.concerns(group) for group in named), named
        assert [found for found in verify(store, deep=True) if found.lost], "forgotten"
        _nothing_else_changed(store, undisturbed, case)
        for stage in STAGES.values():  # as `verify` says: make the group again
            if stage.group in named:
                stage(store, overwrite=True)
                if stage.group == "cells/s":
                    judge(store)
    else:
        assert not refused, f"still refused after --repair: {refused}"
    faults = [found for found in verify(store, deep=True) if found.faults]
    assert not faults, f"not healed: {faults}"
    assert differences(stored(store), whole) == [], "healed to other values"
    return "named, and made again" if named else "healed"


def _files(store: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


def _run_concerned(store: Path, case: Case) -> list[str]:
    """Every stage that makes or reads the damaged group; what they refuse."""
    refused = []
    for stage in STAGES.values():
        if not any(case.concerns(group) for group in (stage.group, *stage.reads)):
            continue
        try:
            code = stage(store)
        except ZarrlocError as error:
            refused.append(f"{stage.name}: {error}")
        else:
            if code:
                refused.append(f"{stage.name}: exit code {code}")
    return refused


def _nothing_else_changed(
    store: Path, undisturbed: Path, case: Case, *, repaired: bool = False
) -> None:
    """Every object of the store is what it was, but for the damaged one.

    Repairing also says in the group's receipts which blocks are not done.
    """
    changed = differences(stored(store), stored_once(undisturbed))
    lost = [
        key
        for key in changed
        if not _is(key, case)
        and not (repaired and "/block_" in key and case.concerns(key.partition("/block_")[0]))
    ]
    assert not lost, f"other objects changed: {lost}"


def _is(key: str, case: Case) -> bool:
    """Whether an object is the damaged one, or one of the array whose metadata are damaged."""
    file = case.file.replace("/c.", "/c/")
    return key == file or (
        file.endswith("/zarr.json") and key.startswith(file[: -len("zarr.json")])
    )


def _drill(undisturbed: Path, cases: Iterable[Case]) -> None:
    tally = Tally()
    for case in cases:
        with tally.of(case):
            tally.ended[drill(undisturbed, case)] += 1
    tally.tell("damaged files")


def test_a_draw_of_damaged_files(undisturbed: Path) -> None:
    _drill(undisturbed, cases(undisturbed, 6, seed=1))


@pytest.mark.drill
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files(undisturbed: Path, part: int) -> None:
    _drill(undisturbed, cases(undisturbed, CASES, SEED)[part::PARTS])


# --- the folder of a training -------------------------------------------------------------------


def _drill_training(undisturbed: Path, count: int, seed: int) -> None:
    """Damage the folder of a run that is complete, and of one that was ended."""
    assert PRETRAINING(undisturbed) == 0
    complete = run_of(undisturbed)
    ended = complete.with_name("ended-run")
    shutil.copytree(complete, ended)
    for name in (*EXPORTED, f"checkpoints/step-{PRETRAIN['steps']:08d}.pt"):
        (ended / name).unlink()
    every = [
        (state, Case(path.relative_to(state).as_posix(), way, seed + n))
        for state in (complete, ended)
        for n, path in enumerate(sorted(path for path in state.rglob("*") if path.is_file()))
        for way in WAYS
    ]
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    tally = Tally()
    for state, case in (every[at] for at in sorted(chosen)):
        with tally.of(f"{state.name}, {case}"):
            tally.ended[_trained_again(undisturbed, state, case)] += 1
    tally.tell("damaged files of a training")


def _trained_again(undisturbed: Path, state: Path, case: Case) -> str:
    """The same command on a damaged copy: the same weights, or a refusal that names the file."""
    store = undisturbed.with_name("copy.zarr")
    if not store.exists():
        shutil.copytree(undisturbed, store)
    run = run_of(store)
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(state, run)
    case.damage(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refusal = ""
    try:
        assert PRETRAINING(store) == 0
    except ZarrlocError as error:
        refusal = str(error)
    if refusal:
        assert case.file == "run.json", f"refused: {refusal}"
        assert any(word in refusal for word in ("run.json", "holds no run", "->")), refusal
        assert before == {path: path.read_bytes() for path in before}, "changed though refused"
        return "named"
    whole = run_of(undisturbed)
    for name in ("backbone.safetensors", "run.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    check_export(run)
    return "healed"


def test_a_draw_of_damaged_files_of_a_training(undisturbed: Path) -> None:
    _drill_training(undisturbed, 6, seed=1)


@pytest.mark.drill
def test_damaged_files_of_a_training(undisturbed: Path) -> None:
    _drill_training(undisturbed, 100, seed=SEED)
