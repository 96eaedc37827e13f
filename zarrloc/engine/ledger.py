"""The coordinator's memory of a stage: its per-row columns and receipts, flushed to the store.

Only the coordinator writes these arrays. A flush writes columns first and `block_output` last, so
that a receipt in the store always speaks of rows that are there.
"""

import time
from collections.abc import Collection, Iterable

import numpy as np
import numpy.typing as npt

from zarrloc.engine.block import Receipt
from zarrloc.store.location import Location
from zarrloc.store.template import (
    COLUMN_CHUNK,
    PENDING,
    Variable,
    read_column,
    resize,
    write_column,
)

FLUSH_S = 3.0
RECEIPTS = ("block_input", "block_bytes", "block_output")


def receipt_variables(rows: int, block_rows: int) -> dict[str, Variable]:
    """The receipt arrays every stage's group holds, along `block`."""
    blocks = -(-rows // block_rows)
    return {
        "block_input": Variable(
            ("block",),
            "uint64",
            (blocks,),
            attrs={"long_name": "digest of what the block was made from"},
        ),
        "block_bytes": Variable(
            ("block",),
            "uint64",
            (blocks,),
            attrs={"long_name": "size of the stored object", "units": "bytes"},
        ),
        "block_output": Variable(
            ("block",),
            "uint64",
            (blocks,),
            attrs={"long_name": "digest of the block's values; 0 = not done"},
        ),
    }


class Ledger:
    """Columns and receipts of one stage's group, for its `rows` committed rows."""

    def __init__(
        self, location: Location, group: str, columns: Iterable[str], rows: int, block_rows: int
    ) -> None:
        self.group = location.group(group)
        self.rows, self.block_rows = rows, block_rows
        self.blocks = -(-rows // block_rows)
        self.columns = {name: read_column(self.group, name, rows) for name in columns}
        self.receipts = {name: read_column(self.group, name, self.blocks) for name in RECEIPTS}
        self._dirty: set[int] = set()
        self._dirty_blocks: set[int] = set()
        self._reopened: set[int] = set()
        self._flushed = time.monotonic()

    @classmethod
    def grow(
        cls, location: Location, group: str, rows_dim: str, rows: int, block_rows: int
    ) -> None:
        """Make room for `rows` rows in every array of the group, and for their receipts."""
        opened = location.group(group)
        resize(opened, rows_dim, rows)
        resize(opened, "block", -(-rows // block_rows))

    @property
    def output(self) -> npt.NDArray[np.uint64]:
        """`block_output`, 0 where a block is not done."""
        return self.receipts["block_output"]

    def errors(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.bool_]:
        """Which of rows `start` to `stop` have an `error` other than `pending`."""
        error = self.columns["error"][start:stop]
        return np.asarray((error != "") & (error != PENDING), dtype=bool)

    def record(self, receipt: Receipt) -> None:
        """Take a finished block's columns and receipt; they reach the store at the next flush."""
        start = receipt.block * self.block_rows
        for name, values in receipt.columns.items():
            if values.dtype.kind in "UO":
                values = values.astype(np.dtypes.StringDType())
            self.columns[name][start : start + len(values)] = values
        self.receipts["block_input"][receipt.block] = receipt.input
        self.receipts["block_bytes"][receipt.block] = receipt.nbytes
        self.receipts["block_output"][receipt.block] = receipt.output
        stop = min(start + self.block_rows, self.rows)
        self._dirty.update(range(start // COLUMN_CHUNK, -(-stop // COLUMN_CHUNK)))
        self._dirty_blocks.add(receipt.block)

    def reopen(self, blocks: Collection[int]) -> None:
        """Before blocks are done again: unsay what they were made from, in the store at once.

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
