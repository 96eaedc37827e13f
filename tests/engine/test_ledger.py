from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.toys import GROUP, run_toy
from zarrloc.engine import ledger as module
from zarrloc.engine.block import Part, Receipt
from zarrloc.engine.drive import todo
from zarrloc.engine.ledger import Ledger
from zarrloc.store.columns import read_column, revise
from zarrloc.store.location import Location

ORDER = ["error", "double", "block_input", "block_bytes", "block_output"]


@pytest.fixture
def location(tmp_path: Path) -> Location:
    run_toy(tmp_path / "s")
    location = Location.of(tmp_path / "s")
    revise(location, GROUP, {}, column_digests={})  # as while a run writes it
    return location


def _ledger(location: Location) -> Ledger:
    return Ledger(location.group(GROUP), ("error", "double"), 20, 4)


def _receipt(block: int, error: str = "", output: int = 9) -> Receipt:
    columns: dict[str, Any] = {"error": np.array([error] * 4), "double": np.full(4, -7)}
    return Receipt(block, 8, output, 10, columns, {})


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Any]]]:
    seen: list[tuple[str, list[Any]]] = []
    write = module.write_column

    def noted(group: Any, name: str, values: Any, start: int = 0) -> None:
        seen.append((name, values.tolist()))
        write(group, name, values, start)

    monkeypatch.setattr(module, "write_column", noted)
    return seen


def test_a_flush_writes_columns_then_receipts_and_output_last(
    location: Location, writes: list[tuple[str, list[Any]]]
) -> None:
    ledger = _ledger(location)
    ledger.forget([1, 2])
    writes.clear()
    ledger.record(_receipt(1, "broken"))
    assert writes == []
    ledger.flush()
    names = [name for name, _ in writes]
    assert names == ORDER
    again = _ledger(location)
    assert again.errors().tolist() == [4 <= row < 8 for row in range(20)]
    assert (again.receipts["block_input"][1], again.output[1], again.output[2]) == (8, 9, 0)
    writes.clear()
    ledger.flush()
    assert writes == []


def test_an_old_output_never_stands_beside_a_new_input(
    location: Location, writes: list[tuple[str, list[Any]]]
) -> None:
    ledger = _ledger(location)
    old = ledger.output.copy()
    ledger.reopen([1, 3])
    stored = _ledger(location)
    assert stored.receipts["block_input"][[1, 3]].tolist() == [0, 0]
    np.testing.assert_array_equal(stored.output, old)  # what is kept may still be read
    writes.clear()
    ledger.record(_receipt(3))
    ledger.flush()
    assert writes[0] == ("block_output", [0])
    assert writes[-1] == ("block_output", [9])
    assert [name for name, _ in writes[1:]] == ORDER


def test_a_crash_in_the_middle_of_a_flush_leaves_the_block_undone(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _ledger(location)
    parts = [Part(digest, None) for digest in whole.receipts["block_input"].tolist()]
    write = module.write_column
    for last in ("block_output", "error", "double", "block_input", "block_bytes"):
        run_toy(location)
        revise(location, GROUP, {}, column_digests={})  # as while a run writes it
        ledger = _ledger(location)
        ledger.reopen([3])
        ledger.record(_receipt(3))

        def crashing(group: Any, name: str, values: Any, start: int = 0, last: str = last) -> None:
            write(group, name, values, start)
            if name == last:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_column", crashing)
            with pytest.raises(KeyboardInterrupt):
                ledger.flush()
        assert [block.index for block in todo(_ledger(location), parts)] == [3], last


def test_columns_are_written_in_their_own_chunks(
    location: Location, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[str, list[Any]]]
) -> None:
    monkeypatch.setattr(module, "COLUMN_CHUNK", 6)
    ledger = _ledger(location)
    ledger.record(_receipt(4))  # rows 16 to 19, in the chunks of 12 to 17 and 18 to 19
    ledger.flush()
    assert [len(values) for name, values in writes if name == "error"] == [6, 2]
    assert read_column(location.group(GROUP), "double").tolist()[14:] == [28, 30, -7, -7, -7, -7]


def test_flushes_come_every_few_seconds(
    location: Location, monkeypatch: pytest.MonkeyPatch, writes: list[tuple[str, list[Any]]]
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    ledger = _ledger(location)
    ledger.record(_receipt(0))
    ledger.flush_when_due()
    assert writes == []
    now[0] += module.FLUSH_S + 0.1
    ledger.flush_when_due()
    assert writes != []


def test_what_is_to_do(location: Location) -> None:
    ledger = _ledger(location)
    inputs = ledger.receipts["block_input"].tolist()
    parts = [Part(digest, "abcde"[at], {"fovs": 10 + at}) for at, digest in enumerate(inputs)]
    assert todo(ledger, parts) == []
    changed = Part(5, "f", {"fovs": 15})
    (block,) = todo(ledger, [*parts[:4], changed])
    assert (block.index, block.start, block.stop, block.part) == (4, 16, 20, changed)
    ledger.record(_receipt(2, "broken", output=3))
    ledger.receipts["block_input"][2] = inputs[2]
    assert todo(ledger, parts) == []
    assert [block.index for block in todo(ledger, parts, retry_failed=True)] == [2]
    also = np.arange(20) == 13
    assert [block.index for block in todo(ledger, parts, also=also)] == [3]
