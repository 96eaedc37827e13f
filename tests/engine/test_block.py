import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.toys import GROUP, Toy, run_toy
from zarrloc.engine import block as block_module
from zarrloc.engine.block import Block, BlockFailure, Output, Part, run_block, write_rows
from zarrloc.errors import StoreError
from zarrloc.models import device
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.digest import digest, row_digests
from zarrloc.store.location import Location

NOTHING = Part(0, None)


@pytest.fixture
def location(tmp_path: Path) -> Location:
    run_toy(tmp_path / "s", rows=10, block_rows=4)
    return Location.of(tmp_path / "s")


def test_a_block_knows_its_rows_and_can_leave_out_all_but_one() -> None:
    block = Block(2, 8, 12, NOTHING, skip={9: "bad"})
    assert len(block) == 4
    assert list(block.rows) == [8, 9, 10, 11]
    assert block.only(range(10, 11)).skip == {8: "skipped", 9: "bad", 11: "skipped"}


def test_a_receipt_is_all_that_comes_back(location: Location) -> None:
    receipt = run_block(Toy(location), Block(1, 4, 8, Part(77, None)))
    assert (receipt.block, receipt.input) == (1, 77)
    assert receipt.columns.keys() == {"error", "double", "row_digest"}
    stored = read_column(location.group(GROUP), "value", 8, 4)
    np.testing.assert_array_equal(receipt.columns["row_digest"], row_digests(stored))
    assert receipt.output == digest(receipt.columns)
    assert receipt.nbytes == (Path(location.uri) / GROUP / "value/c/1/0").stat().st_size
    assert receipt.seconds["total"] >= receipt.seconds["write"] > 0


def test_a_probe_stores_nothing(location: Location) -> None:
    array_of(location.group(GROUP), "value")[4:8] = 0
    receipt = run_block(Toy(location), Block(1, 4, 8, NOTHING), write=False)
    assert receipt.nbytes == 0
    assert not read_column(location.group(GROUP), "value", 8, 4).any()


@pytest.mark.parametrize(
    ("start", "rows", "aligned"), [(4, 4, True), (8, 2, True), (2, 4, False), (4, 2, False)]
)
def test_rows_that_are_not_whole_shards_are_refused(
    location: Location, start: int, rows: int, aligned: bool
) -> None:
    values: Any = np.ones((rows, 3), np.float32)
    if aligned:
        assert write_rows(location, GROUP, "value", start, values) > 0
        return
    with pytest.raises(StoreError, match=r"not whole shards of 4: the write would race"):
        write_rows(location, GROUP, "value", start, values)
    assert read_column(location.group(GROUP), "value")[4, 0] == 4


def test_a_failing_block_names_itself_and_its_cause(location: Location) -> None:
    with pytest.raises(BlockFailure, match=r"toy block 1 \(rows 4 to 7\): OSError: no model") as it:
        run_block(Toy(location, {-1: "open"}), Block(1, 4, 8, NOTHING))
    assert isinstance(it.value.__cause__, OSError)


def test_rows_share_the_blame_only_if_some_are_innocent(location: Location) -> None:
    receipt = run_block(Toy(location, {4: "raise", 6: "raise"}), Block(1, 4, 8, NOTHING))
    assert [bool(text) for text in receipt.columns["error"]] == [True, False, True, False]
    every = dict.fromkeys(range(4, 8), "raise")
    with pytest.raises(BlockFailure, match="row 4 is bad"):
        run_block(Toy(location, every), Block(1, 4, 8, NOTHING))
    alone = run_block(Toy(location, {8: "raise"}), Block(2, 8, 9, NOTHING), write=False)
    assert str(alone.columns["error"][0]) == "ValueError: row 8 is bad"
    kept = run_block(Toy(location, {5: "raise"}), Block(1, 4, 8, NOTHING, skip={4: "killed"}))
    assert [str(text) for text in kept.columns["error"]] == [
        "killed",
        "ValueError: row 5 is bad",
        "",
        "",
    ]


def test_a_block_that_another_run_changed_blames_no_row(location: Location) -> None:
    class Changed(Toy):
        def read(self, block: Block, clock: Any) -> Any:
            raise BlockFailure("not what its receipt says")

    with pytest.raises(BlockFailure, match=r"^not what its receipt says$"):
        run_block(Changed(location), Block(1, 4, 8, NOTHING))


@dataclass(frozen=True)
class Napping(Toy):
    """A block on a slow device that computes on the CPU, too: half a hold each, and aside."""

    array: str | None = None
    on_device: bool = True

    def read(self, block: Block, clock: Any) -> Any:
        time.sleep(NAP_S)
        return np.array(block.rows, dtype=np.float32), block

    def device(self, data: Any) -> Any:
        for _ in range(2):
            assert ALONE.acquire(blocking=False), "two blocks at once on the device"
            time.sleep(NAP_S / 2)
            ALONE.release()
            with device.let_go():
                time.sleep(NAP_S)
        return data[0]

    def finish(self, block: Block, state: Any) -> Output:
        time.sleep(NAP_S)
        return super().finish(block, state)


NAP_S, IN_FLIGHT, BLOCKS = 0.1, 5, 12
ALONE = threading.Lock()


def test_a_slow_device_is_kept_busy_by_the_blocks_in_flight(location: Location) -> None:
    """Reading, what a network computes on the CPU, and finishing go on beside the device."""
    start = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        stage = Napping(location)
        blocks = [Block(at, at, at + 1, NOTHING) for at in range(BLOCKS)]
        receipts = list(pool.map(lambda block: run_block(stage, block), blocks))
    taken = time.perf_counter() - start
    seconds = [receipt.seconds for receipt in receipts]
    on_device = sum(one["device"] for one in seconds)
    assert on_device == pytest.approx(BLOCKS * NAP_S, rel=0.5)
    # Nothing else takes a turn of its own: one after the other it would be five times as long.
    assert taken < 2.5 * BLOCKS * NAP_S
    assert all(one["read"] + one["prepare"] >= NAP_S <= one["finish"] for one in seconds)


def test_a_block_alone_in_its_process_is_followed_once_its_value_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_module, "REPORTED_S", 0.3)
    company, entered = block_module._Company(), threading.Event()

    def neighbour() -> None:
        with company.joined(alone=False):
            entered.set()

    with company.joined(alone=True):
        other = threading.Thread(target=neighbour)
        other.start()
        assert not entered.wait(0.1)
    assert not entered.wait(0.1)  # it might kill the process before the value is reported
    assert entered.wait(5)
    other.join()
