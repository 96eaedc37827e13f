import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.engine.toys import GROUP, LOCAL, SERIAL, Toy, run_toy
from tests.objects import assert_same, opened
from zarrloc.config.run import RunConfig
from zarrloc.engine import cluster, drive, run
from zarrloc.engine import ledger as ledger_module
from zarrloc.engine.block import Block, Part
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.cluster import executor
from zarrloc.engine.executors import Dask, Done, Executor, Serial
from zarrloc.engine.ledger import KILLED, Ledger
from zarrloc.engine.plan import AnyPlan, Before
from zarrloc.engine.verify import verify
from zarrloc.errors import ConfigError, LockedError, RunError, StoreError
from zarrloc.store.columns import revise
from zarrloc.store.location import Location
from zarrloc.store.lock import RunToken, StaleRun, hold
from zarrloc.store.template import PENDING


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    """Two worker processes for all tests here: starting them is what costs time."""
    with executor("local", LOCAL, workers=2, threads=1, prefetch=2) as pool:
        yield pool


@pytest.fixture
def pool(workers: Executor, monkeypatch: pytest.MonkeyPatch) -> Executor:
    monkeypatch.setattr(cluster, "executor", lambda *_, **__: nullcontext(workers))
    return workers


def _errors(store: Path) -> dict[int, str]:
    error = opened(store, GROUP)["error"].values
    return {row: str(text) for row, text in enumerate(error) if text}


def _receipts(store: Path) -> np.ndarray[Any, Any]:
    group = zarr.open_group(store, path=GROUP, mode="r")
    return np.stack([group[name][:] for name in ("block_input", "block_output", "block_bytes")])  # type: ignore[index, list-item]


def test_rows_are_what_the_stage_says(tmp_path: Path) -> None:
    summary = run_toy(tmp_path / "s", rows=10, block_rows=4)
    assert (summary.exit_code, summary.blocks_run, summary.rows_run) == (0, 3, 10)
    data = opened(tmp_path / "s", GROUP)
    np.testing.assert_array_equal(data["value"][:, 1], np.arange(10) + 1)
    np.testing.assert_array_equal(data["double"], np.arange(10) * 2)
    assert set(data.coords) == {"error", "name"}


def test_the_same_command_again_has_nothing_to_do(tmp_path: Path) -> None:
    run_toy(tmp_path / "s")
    again = run_toy(tmp_path / "s", do={0: "kill"})
    assert (again.blocks_run, again.exit_code) == (0, 0)
    assert "nothing to do" in again.lines()[0]


def test_growing_runs_new_blocks_and_the_partial_one_alone(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", rows=10, block_rows=4)
    before = _receipts(tmp_path / "s")
    assert run_toy(tmp_path / "s", rows=17, block_rows=4).blocks_run == 3
    np.testing.assert_array_equal(_receipts(tmp_path / "s")[:, :2], before[:, :2])
    run_toy(tmp_path / "whole", rows=17, block_rows=4)
    assert_same(tmp_path / "s", tmp_path / "whole", GROUP)


def test_only_blocks_with_other_input_run(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", inputs={3: "old"})
    assert run_toy(tmp_path / "s", inputs={3: "new"}).blocks_run == 1


def test_other_settings_are_refused_with_the_difference_unless_overwritten(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", settings={"size": "224", "deep": {"a": 1}})
    changed = {"size": "native", "deep": {"a": 2}}
    with pytest.raises(ConfigError, match=r"\(deep\.a: 1 -> 2; size: 224 -> native\).*--overwrite"):
        run_toy(tmp_path / "s", settings=changed)
    assert run_toy(tmp_path / "s", settings=changed, overwrite=True).blocks_run == 5


def test_processes_give_the_bytes_of_one_process(tmp_path: Path, pool: Executor) -> None:
    run_toy(tmp_path / "local", rows=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "executor", executor)
        run_toy(tmp_path / "serial", rows=50, config=SERIAL)
    assert_same(tmp_path / "local", tmp_path / "serial", GROUP)
    np.testing.assert_array_equal(_receipts(tmp_path / "local"), _receipts(tmp_path / "serial"))


@pytest.mark.parametrize("what", ["raise", "unreadable"])
def test_a_row_that_raises_costs_that_row(tmp_path: Path, what: str) -> None:
    summary = run_toy(tmp_path / "s", do={6: what})
    assert (summary.exit_code, summary.rows_failed) == (3, 1)
    (row, reason), = _errors(tmp_path / "s").items()  # fmt: skip
    assert row == 6
    assert reason.startswith("ValueError: row 6")
    value = opened(tmp_path / "s", GROUP)["value"].values
    assert np.isnan(value[6]).all()
    np.testing.assert_array_equal(np.delete(value[:, 0], 6), np.delete(np.arange(20), 6))
    assert run_toy(tmp_path / "s").blocks_run == 0
    assert (
        run_toy(tmp_path / "s", config=SERIAL.model_copy(update={"retry_failed": True})).exit_code
        == 0
    )
    run_toy(tmp_path / "fine")
    assert_same(tmp_path / "s", tmp_path / "fine", GROUP)


def test_a_row_that_kills_its_worker_costs_that_row(tmp_path: Path, pool: Executor) -> None:
    summary = run_toy(tmp_path / "s", rows=24, do={9: "kill", 2: "raise"})
    assert (summary.exit_code, summary.rows_failed, summary.blocks_run) == (3, 2, 6)
    errors = _errors(tmp_path / "s")
    assert errors.keys() == {2, 9}
    assert "its worker died while this FOV was computed alone" in errors[9]


def test_a_block_that_kills_only_as_a_whole_is_left_undone(tmp_path: Path, pool: Executor) -> None:
    summary = run_toy(tmp_path / "s", do={5: "kill in company"})
    assert summary.exit_code == 1
    assert "block 1 kills its worker though each FOV alone does not" in summary.failures[0]
    assert _errors(tmp_path / "s") == dict.fromkeys(range(4, 8), PENDING)
    assert run_toy(tmp_path / "s").blocks_run == 1


def test_a_passing_fault_fails_the_block_and_no_row(tmp_path: Path) -> None:
    summary = run_toy(tmp_path / "s", do={6: "stale"})
    assert summary.exit_code == 1
    assert "block 1 (rows 4 to 7): OSError: Stale file handle" in summary.failures[0]
    assert _errors(tmp_path / "s") == dict.fromkeys(range(4, 8), PENDING)
    assert run_toy(tmp_path / "s").blocks_run == 1


def test_a_run_that_meets_nothing_but_passing_faults_gives_up(tmp_path: Path) -> None:
    bad = dict.fromkeys(range(40, 100), "stale")
    with pytest.raises(RunError, match=r"8 blocks in a row.*Stale.*the same command continues"):
        run_toy(tmp_path / "s", rows=100, do=bad)
    assert run_toy(tmp_path / "s", rows=100).blocks_run == 15
    # What is in one's way again and again is not in the others'.
    bad = dict.fromkeys(range(40, 100, 8), "stale")
    assert len(run_toy(tmp_path / "t", rows=100, do=bad).failures) == 8


def test_a_full_disk_ends_the_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as full:
        run_toy(tmp_path / "s", rows=100, do={6: "full"})
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "/s/c/0")
    assert run_toy(tmp_path / "s", rows=100).blocks_run == 24
    assert _errors(tmp_path / "s") == {}


def test_a_full_disk_is_reported_by_workers_as_well(tmp_path: Path, pool: Executor) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        run_toy(tmp_path / "s", do={6: "full"})


def test_a_store_that_goes_away_ends_the_run_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/s has gone away .*the same command"):
        run_toy(tmp_path / "s", rows=100, do={6: "gone"})
    assert not list((tmp_path / "s").rglob("*"))  # no stump of a store


def test_a_store_without_the_right_to_write_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(tmp_path / "s")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere

    def make(_: Before) -> AnyPlan:
        raise AssertionError("work was begun")

    with pytest.raises(StoreError, match=r"nothing may be written in .*/s:.*check who may"):
        carry_out(Location.of(tmp_path / "s"), GROUP, make)


def test_a_row_that_lacked_memory_is_done_again_by_the_next_plain_run(tmp_path: Path) -> None:
    summary = run_toy(tmp_path / "s", do={6: "memory", 9: "raise"})
    assert (summary.exit_code, summary.rows_failed) == (3, 2)
    assert _errors(tmp_path / "s") == {6: "out of memory", 9: "ValueError: row 9 is bad"}
    again = run_toy(tmp_path / "s")
    assert (again.blocks_run, again.rows_failed) == (1, 1)
    assert _errors(tmp_path / "s").keys() == {9}


def test_a_stage_that_cannot_open_fails_the_run_and_no_row(tmp_path: Path) -> None:
    summary = run_toy(tmp_path / "s", do={-1: "open"})
    assert summary.exit_code == 1
    assert len(summary.failures) == 5
    assert "OSError: no model here" in summary.failures[0]
    assert set(_errors(tmp_path / "s").values()) == {PENDING}
    with pytest.raises(RunError, match=r"first 8 blocks all failed.*no model here"):
        run_toy(tmp_path / "long", rows=100, do={-1: "open"})
    assert run_toy(tmp_path / "long", rows=100).blocks_run == 25


def test_a_second_run_learns_who_holds_the_stage(tmp_path: Path) -> None:
    run_toy(tmp_path / "s")
    with (
        hold(Location.of(tmp_path / "s"), GROUP, "first"),
        pytest.raises(LockedError, match=r"'embeddings/toy'.*run first \(pid \d+"),
    ):
        run_toy(tmp_path / "s")


def test_a_run_that_lost_its_stage_writes_no_more(tmp_path: Path) -> None:
    lost = RunToken("gone", str(tmp_path / "nothing.lock"))
    run_toy(tmp_path / "s")
    toy = Toy(Location.of(tmp_path / "s"))
    ledger = Ledger(toy.location.group(GROUP), ("error", "double"), 20, 4)
    blocks = drive.todo(ledger, [Part(1, None)] * 5)
    assert len(blocks) == 5
    with executor("serial", SERIAL, workers=1, threads=1, prefetch=1) as pool:
        with pytest.raises(LockedError, match="this run stops"):
            run.run(toy, ledger, blocks, pool, lost)
        with pytest.raises(StaleRun):
            run.run_block(toy, blocks[0], lost)


def test_nothing_is_committed_that_an_interrupted_flush_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, interrupted = ledger_module.write_column, []

    def interrupting(group: Any, name: str, values: Any, start: int = 0) -> None:
        if name == "error" and not interrupted:
            interrupted.append(name)
            raise KeyboardInterrupt
        write(group, name, values, start)

    monkeypatch.setattr(ledger_module, "write_column", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "s")
    assert interrupted
    assert not any(found.faults for found in verify(tmp_path / "s", deep=True))
    assert run_toy(tmp_path / "s").exit_code == 0
    assert not any(found.faults for found in verify(tmp_path / "s", deep=True))


def test_redone_blocks_are_undone_until_their_receipts_are_written(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", do={6: "raise"})
    location = Location.of(tmp_path / "s")
    revise(location, GROUP, {}, column_digests={})
    Ledger(location.group(GROUP), ("error", "double"), 20, 4).reopen([1])
    # As after a crash between the worker's write and the coordinator's receipt.
    assert run_toy(tmp_path / "s").blocks_run == 1
    assert _errors(tmp_path / "s") == {}


def test_tasks_on_a_scheduler_carry_stage_run_and_attempt(tmp_path: Path) -> None:
    toy = Toy(Location.of(tmp_path / "s"))
    other = Toy(Location.of(tmp_path / "t"))
    assert run.key_prefix(toy).startswith("embeddings.toy-")
    assert run.key_prefix(toy) != run.key_prefix(other)


def test_a_new_run_waits_for_tasks_of_an_older_one(pool: Executor, tmp_path: Path) -> None:
    assert isinstance(pool, Dask)
    toy = Toy(Location.of(tmp_path / "s"))
    done = threading.Event()
    future = pool.client.submit(time.sleep, 1.0, key=f"{run.key_prefix(toy)}-older-1-0")
    future.add_done_callback(lambda _: done.set())
    while not any(pool.client.processing().values()):
        time.sleep(0.01)
    run.wait_out(pool.client, run.key_prefix(toy), "newer")
    assert done.wait(1)


def _outcome(*ends: Done) -> tuple[list[tuple[list[int], bool]], Block, Done]:
    """Run a trial of a block of three rows whose calls end so: what it tried, and its verdict."""
    trial, tried = run._trial(Block(0, 0, 3, Part(0, None))), []
    answer: Done | None = None
    for end in (*ends, None):
        try:
            block, write = trial.send(answer)
        except StopIteration as verdict:
            return tried, *verdict.value
        tried.append(([row for row in block.rows if row not in block.skip], write))
        answer = end
    raise AssertionError("the trial has not ended")


KILLED_ALONE = Done("k", killed=True, begun=True)
KILLED_IN_COMPANY = Done("k", killed=True)
FINE = Done("k", 1)
ALL = [0, 1, 2]


def test_a_suspect_that_dies_alone_is_searched_for_the_guilty_row() -> None:
    tried, block, end = _outcome(KILLED_ALONE, FINE, KILLED_ALONE, FINE, FINE)
    assert tried == [(ALL, True), ([0], False), ([1], False), ([2], False), ([0, 2], True)]
    assert block.skip == {1: KILLED}
    assert end == FINE


def test_a_suspect_that_was_killed_before_it_began_is_tried_again() -> None:
    tried, block, end = _outcome(KILLED_IN_COMPANY, KILLED_IN_COMPANY, FINE)
    assert tried == [(ALL, True)] * 3
    assert (block.skip, end) == ({}, FINE)
    tried, _, _ = _outcome(KILLED_ALONE, KILLED_IN_COMPANY, FINE, FINE, FINE)
    assert tried == [(ALL, True), ([0], False), ([0], False), ([1], False), ([2], False)]


def test_the_window_grows_with_the_workers(tmp_path: Path) -> None:
    class Wide(Serial):
        slots = 80
        most = 0

        def submit(self, calls: Any, function: Any, *, urgent: bool = False) -> None:
            super().submit(calls, function, urgent=urgent)
            self.most = max(self.most, len(self._queue))

    pool = Wide()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "executor", lambda *_, **__: nullcontext(pool))
        run_toy(tmp_path / "s", rows=300, block_rows=1)
    assert pool.most == 240


def test_a_signal_in_the_last_flush_leaves_no_digest_of_what_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = ledger_module.write_column, [True]

    def interrupted(group: Any, name: str, values: Any, start: int = 0) -> None:
        if name == "error" and left and (np.asarray(values) != PENDING).all():
            left.clear()
            raise KeyboardInterrupt
        write(group, name, values, start)

    monkeypatch.setattr(ledger_module, "write_column", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "s")
    assert not left
    assert run_toy(tmp_path / "s").exit_code == 0
    run_toy(tmp_path / "whole")
    assert_same(tmp_path / "s", tmp_path / "whole", GROUP)


def test_only_a_run_that_was_cut_off_counts_as_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed: list[bool] = []
    choose = cluster.choose

    def heard(config: RunConfig, load: cluster.Load) -> str:
        crashed.append(load.crashed)
        return choose(config, load)

    monkeypatch.setattr(cluster, "choose", heard)
    run_toy(tmp_path / "s")  # a new group
    run_toy(tmp_path / "s", rows=24)  # one that grew
    revise(Location.of(tmp_path / "s"), GROUP, {}, column_digests={})  # as while a run goes on
    run_toy(tmp_path / "s", rows=28)
    assert crashed == [False, False, True]
