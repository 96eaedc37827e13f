"""The coordinator's memory of a stage: its per-row columns and receipts, flushed to the store.

Only the coordinator writes these arrays. A flush writes columns first and `block_output` last, so
that a receipt in the store always speaks of rows that are there.
"""

import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from zarrloc.engine.blocks import Receipt
from zarrloc.location import Location
from zarrloc.store import COLUMN_CHUNK, PENDING, Variable, read_column, resize, write_column

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
        self._dirty_blocks: list[tuple[int, int]] = []
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

    def errors(self) -> npt.NDArray[np.bool_]:
        """Which rows have an `error` other than `pending`."""
        error = self.columns["error"]
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
        self._dirty_blocks.append((receipt.block, receipt.block + 1))

    def forget(self, blocks: Iterable[int]) -> None:
        """Mark blocks as not done, in the store at once."""
        for block in blocks:
            self.receipts["block_output"][block] = 0
            self._dirty_blocks.append((block, block + 1))
        self.flush()

    def flush_when_due(self) -> None:
        """Flush if the last one is a few seconds ago."""
        if time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what changed: columns, then receipts, `block_output` last."""
        if self._dirty_blocks:
            for chunk in sorted(self._dirty):
                rows = slice(chunk * COLUMN_CHUNK, min((chunk + 1) * COLUMN_CHUNK, self.rows))
                for name, values in self.columns.items():
                    write_column(self.group, name, values[rows], rows.start)
            first = min(start for start, _ in self._dirty_blocks)
            last = max(stop for _, stop in self._dirty_blocks)
            for name in RECEIPTS:
                write_column(self.group, name, self.receipts[name][first:last], first)
            self._dirty.clear()
            self._dirty_blocks.clear()
        self._flushed = time.monotonic()
