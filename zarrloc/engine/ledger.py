"""The coordinator's memory of a stage: its per-row columns and receipts, flushed to the store.

Only the coordinator writes these arrays. A flush writes columns first and `block_output` last, so
that a receipt in the store always speaks of rows that are there.
"""

import time
from collections.abc import Collection, Iterable
from typing import Self

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.engine.block import Receipt
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store.columns import column_digest, read_columns, write_column
from zarrloc.store.digest import digest
from zarrloc.store.retry import may_succeed_again
from zarrloc.store.template import COLUMN_CHUNK, PENDING, Variable

FLUSH_S = 3.0
KILLED = "its worker died while this FOV was computed alone (out of memory, or a crash)"
"""The `error` of a row that is tried again by the next run: more memory may be all it needs."""

RECEIPTS = ("block_input", "block_bytes", "block_output")
JUDGED = ("error",), ("block_input", "block_output")
"""The columns and receipts that tell what is left to do."""


def receipt_variables(rows: int, block_rows: int) -> dict[str, Variable]:
    """The receipt arrays every stage's group holds, along `block`."""
    meanings = {
        "block_input": {"long_name": "digest of what the block was made from"},
        "block_bytes": {"long_name": "size of the stored object", "units": "bytes"},
        "block_output": {"long_name": "digest of the block's values; 0 = not done"},
    }
    blocks = -(-rows // block_rows)
    return {
        name: Variable(("block",), "uint64", (blocks,), attrs=attrs)
        for name, attrs in meanings.items()
    }


def row_digest_variable(dim: str, rows: int) -> dict[str, Variable]:
    """The digests of the rows of a stage's grid array."""
    meaning = {"long_name": "xxh3 of the row's values, shape and dtype"}
    return {ROW_DIGEST: Variable((dim,), "uint64", (rows,), attrs=meaning)}


class Ledger:
    """Columns and receipts of one stage's group, for its `rows` committed rows."""

    def __init__(
        self,
        group: zarr.Group,
        columns: Iterable[str],
        rows: int,
        block_rows: int,
        receipts: Iterable[str] = RECEIPTS,
    ) -> None:
        self.group = group
        self.rows, self.block_rows = rows, block_rows
        self.blocks = -(-rows // block_rows)
        self.columns = read_columns(group, columns, rows)
        self.receipts = read_columns(group, receipts, self.blocks)
        self._dirty: set[int] = set()
        self._dirty_blocks: set[int] = set()
        self._reopened: set[int] = set()
        self._flushed = time.monotonic()

    @classmethod
    def glance(cls, group: zarr.Group, rows: int, block_rows: int) -> Self:
        """As much of it as tells what is left to do; nothing can be recorded in it."""
        columns, receipts = JUDGED
        return cls(group, columns, rows, block_rows, receipts)

    def doubt(self, digested: Collection[str]) -> list[int]:
        """Mark done blocks as undone whose columns are not what their receipt covers.

        After a crash, columns and receipts that lie in other objects may differ.
        """
        wrong = []
        for block in np.flatnonzero(self.output).tolist():
            span = slice(block * self.block_rows, (block + 1) * self.block_rows)
            if digest({name: self.columns[name][span] for name in digested}) != self.output[block]:
                wrong.append(block)
        self.forget(wrong)
        return wrong

    def digests(self) -> dict[str, str]:
        """Digests of all columns and receipts, as they are now."""
        held = {**self.columns, **self.receipts}
        return {name: column_digest(values) for name, values in held.items()}

    @property
    def output(self) -> npt.NDArray[np.uint64]:
        """`block_output`, 0 where a block is not done."""
        return self.receipts["block_output"]

    def errors(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.bool_]:
        """Which of rows `start` to `stop` have an `error` other than `pending`."""
        error = self.columns["error"][start:stop]
        return np.asarray((error != "") & (error != PENDING), dtype=bool)

    def again(self) -> npt.NDArray[np.bool_]:
        """Which rows failed for another reason than their own bytes, and may now succeed."""
        error, failed = self.columns["error"], self.errors()
        for row in np.flatnonzero(failed).tolist():
            failed[row] = error[row] == KILLED or may_succeed_again(str(error[row]))
        return failed

    def record(self, receipt: Receipt) -> None:
        """Take a finished block's columns and receipt; they reach the store at the next flush."""
        start = receipt.block * self.block_rows
        stop = min(start + self.block_rows, self.rows)
        # Noted first: a signal may come in between.
        self._dirty.update(range(start // COLUMN_CHUNK, -(-stop // COLUMN_CHUNK)))
        self._dirty_blocks.add(receipt.block)
        for name, values in receipt.columns.items():
            if values.dtype.kind in "UO":
                values = values.astype(np.dtypes.StringDType())
            self.columns[name][start : start + len(values)] = values
        self.receipts["block_input"][receipt.block] = receipt.input
        self.receipts["block_bytes"][receipt.block] = receipt.nbytes
        self.receipts["block_output"][receipt.block] = receipt.output

    def reopen(self, blocks: Collection[int]) -> None:
        """Before blocks are done again: clear what they were made from, in the store at once.

        Their workers replace objects before new receipts are written. After a crash in between,
        the old receipts must not pass for those of the new objects.
        """
        for block in blocks:
            if self.receipts["block_input"][block]:
                self.receipts["block_input"][block] = 0
                self._dirty_blocks.add(block)
        self.flush()
        self._reopened = set(np.flatnonzero(self.output).tolist()).intersection(blocks)

    def forget(self, blocks: Iterable[int]) -> None:
        """Mark blocks as not done, in the store at once."""
        for block in blocks:
            self.receipts["block_output"][block] = 0
            self._dirty_blocks.add(block)
        self.flush()

    def flush_when_due(self) -> None:
        """Flush if the last one is a few seconds ago."""
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what changed: columns, then receipts, `block_output` last."""
        if self._dirty_blocks:
            first, last = min(self._dirty_blocks), max(self._dirty_blocks) + 1
            again = sorted(self._reopened & self._dirty_blocks)
            if again:  # no old `block_output` may stand beside a new `block_input`
                without = self.output[first:last].copy()
                without[np.array(again) - first] = 0
                write_column(self.group, "block_output", without, first)
            for chunk in sorted(self._dirty):
                rows = slice(chunk * COLUMN_CHUNK, min((chunk + 1) * COLUMN_CHUNK, self.rows))
                for name, values in self.columns.items():
                    write_column(self.group, name, values[rows], rows.start)
            for name in RECEIPTS:
                write_column(self.group, name, self.receipts[name][first:last], first)
            self._dirty.clear()
            self._reopened -= self._dirty_blocks
            self._dirty_blocks.clear()
        self._flushed = time.monotonic()
