"""One block on one worker: read, compute on the device, finish, write whole, return a receipt.

A `Stage` is a pure function of a block. `run_block` is all that a worker ever executes.
"""

import itertools
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import Field, dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.engine.executors import say_begun
from zarrloc.errors import StoreError
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.models import device
from zarrloc.store import objects, retry
from zarrloc.store.columns import array_of, fill_array
from zarrloc.store.digest import digest, row_digests
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.lock import RunToken, StaleRun

Columns = dict[str, npt.NDArray[Any]]

P = TypeVar("P")
"""What a stage knows of one block alone, such as its files: `Block.payload`."""
D = TypeVar("D")
"""What a stage's `read` hands to its `device`."""
S = TypeVar("S")
"""What a stage's `device` hands to its `finish`."""


@dataclass(frozen=True)
class Part(Generic[P]):
    """What one block of a stage is made from."""

    input: int
    """Digest of all that the block is made from: the stage's fingerprint, its inputs' receipts."""
    payload: P
    """What only this block needs, such as its files; None where there is no such thing."""
    expect: Mapping[str, int] = field(default_factory=dict)
    """Input group -> digest that the rows read from it must have."""
    unit_starts: tuple[int, ...] = ()
    """First rows of the units that fail together, such as the cells of a field; else each row."""


@dataclass(frozen=True)
class Block(Generic[P]):
    """Rows `start` to `stop` of a stage; rows in `skip` are not touched and get that error."""

    index: int
    start: int
    stop: int
    part: Part[P]
    skip: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> range:
        """The block's rows, counted over the whole stage."""
        return range(self.start, self.stop)

    @property
    def units(self) -> list[range]:
        """The rows that fail together, in order."""
        starts = self.part.unit_starts or self.rows
        return [range(*pair) for pair in itertools.pairwise((*starts, self.stop))]

    def only(self, unit: range) -> "Block[P]":
        """The same block with every row outside `unit` skipped."""
        others = {row: "skipped" for row in self.rows if row not in unit}
        return replace(self, skip={**others, **self.skip})


@dataclass(frozen=True)
class Output:
    """What a block gives: rows of the stage's grid array, and its per-row columns."""

    array: npt.NDArray[Any] | None
    columns: Columns
    aside: Columns = field(default_factory=dict)
    """Columns that no later stage reads, left out of the block's digest."""


class Stage(Protocol[P, D, S]):
    """A pure function of one block, in phases, so that reading overlaps the device's work.

    It is a frozen dataclass, pickled with every task: keep it small, load models in `open`, once a
    process. What the phases hand on, `D` and `S`, is the stage's own business.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def location(self) -> Location:
        """The store."""

    @property
    def group(self) -> str:
        """Path of the stage's group."""

    @property
    def array(self) -> str | None:
        """The one array that workers write, in whole shards."""

    @property
    def on_device(self) -> bool:
        """Whether only one block of a process may be in `device` at a time."""

    def open(self) -> None:
        """Load what the process keeps (models). A failure here is the run's, not a FOV's."""

    def read(self, block: Block[P], clock: StoreClock) -> D:
        """Fetch and decode the block's input."""

    def device(self, data: D) -> S:
        """The part that holds the device."""

    def finish(self, block: Block[P], state: S) -> Output:
        """From the device's result to rows."""


@dataclass(frozen=True)
class Receipt:
    """All that comes back from a worker."""

    block: int
    input: int
    output: int
    nbytes: int
    columns: Columns
    seconds: dict[str, float]
    bytes_read: int = 0


AnyStage = Stage[Any, Any, Any]
"""A stage as the coordinator sees it, which hands nothing on itself."""
AnyBlock = Block[Any]


class BlockFailure(RuntimeError):
    """A block could not be done, for a reason that lies with no single FOV.

    `cause` is what others will meet as well: a fault that passes, a full disk, a store gone away.
    """

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        super().__init__(message, cause)
        self.cause = cause

    def __str__(self) -> str:
        return str(self.args[0])


def _reason(error: Exception) -> str:
    local = isinstance(error, OSError) and not isinstance(error, StoreError)
    return f"{type(error).__name__}: {retry.reason(error) if local else error}"


NOT_A_ROWS_FAULT = (BlockFailure, StoreError)
"""Damage fails a block: its rows are done again by the next run, and none gets an `error`."""


REPORTED_S = 0.3
"""How long the value of a block may take to leave its process."""


class _Company:
    """Lets the blocks of a process run beside each other, or one of them alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._wanting_alone = 0

    @contextmanager
    def joined(self, alone: bool) -> Iterator[None]:
        """While this block runs: beside others, or `alone`, for which the others wait."""
        with self._changed:
            self._wanting_alone += alone
            self._changed.wait_for(lambda: not self._running if alone else not self._wanting_alone)
            self._running += 1
        try:
            yield
        finally:
            if alone:
                # The others wait until its value has left this process: one of them may kill it.
                threading.Timer(REPORTED_S, self._left, [alone]).start()
            else:
                self._left(alone)

    def _left(self, alone: bool) -> None:
        with self._changed:
            self._wanting_alone -= alone
            self._running -= 1
            self._changed.notify_all()


_COMPANY = _Company()


def run_block(
    stage: Stage[P, D, S],
    block: Block[P],
    token: RunToken | None = None,
    write: bool = True,
    alone: bool = False,
) -> Receipt:
    """Do one block; `alone` in its process, so that if the worker dies it was this block.

    With `write=False` nothing is stored: a probe for what kills a worker. Raises `BlockFailure`
    naming the block and its rows, with the cause chained.
    """
    with retry.patient(), _COMPANY.joined(alone):
        if not alone:
            return _run_block(stage, block, token, write)
        say_begun()
        try:
            return _run_block(stage, block, token, write)
        finally:
            say_begun(False)


def _run_block(
    stage: Stage[P, D, S], block: Block[P], token: RunToken | None, write: bool
) -> Receipt:
    begin = time.perf_counter()
    try:
        stage.open()
        opened = time.perf_counter() - begin
        output, seconds, clock = _compute_by_fov(stage, block)
        seconds["open"] = opened
        nbytes = 0
        if write and stage.array is not None and output.array is not None:
            start = time.perf_counter()
            if token is not None:
                token.check()
            nbytes = write_rows(stage.location, stage.group, stage.array, block.start, output.array)
            seconds["write"] = time.perf_counter() - start
    except (StaleRun, BlockFailure):
        raise
    except Exception as error:
        raise BlockFailure(
            f"{stage.group} block {block.index} (rows {block.start} to {block.stop - 1}): "
            f"{_reason(error)}\n{traceback.format_exc(limit=-4)}",
            error if retry.is_passing(error) or retry.is_everywhere(error) else None,
        ) from error
    seconds["total"] = time.perf_counter() - begin
    digested = dict(output.columns)
    if output.array is not None:
        digested[ROW_DIGEST] = row_digests(output.array)
    return Receipt(
        block=block.index,
        input=block.part.input,
        output=digest(digested),
        nbytes=nbytes,
        columns={**digested, **output.aside},
        seconds=seconds,
        bytes_read=clock.bytes,
    )


def _compute_by_fov(
    stage: Stage[P, D, S], block: Block[P]
) -> tuple[Output, dict[str, float], StoreClock]:
    """Compute the block; if it raises, find the units that do and give only their rows an error."""
    clock = StoreClock()
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    try:
        data = stage.read(block, clock)
        seconds["read"] = clock.seconds
        seconds["prepare"] = max(0.0, time.perf_counter() - start - clock.seconds)
        return _compute(stage, block, data, seconds), seconds, clock
    except NOT_A_ROWS_FAULT:
        raise
    except Exception as error:
        if not retry.is_of_a_row(error):
            raise
        live = [unit for unit in block.units if any(row not in block.skip for row in unit)]
        guilty: dict[int, str] = {}
        bad = 0
        for unit in live:
            alone = block.only(unit)
            try:
                _compute(stage, alone, stage.read(alone, StoreClock()), {})
            except NOT_A_ROWS_FAULT:
                raise
            except Exception as error:
                if not retry.is_of_a_row(error):
                    raise
                bad += 1
                guilty.update(dict.fromkeys(unit, retry.row_error(error)))
        # Nothing to blame, or everything: the fault is the stage's or the machine's.
        if bad in ({0, len(live)} if len(live) > 1 else {0}):
            raise
        rest = replace(block, skip={**guilty, **block.skip})
        return _compute(stage, rest, stage.read(rest, StoreClock()), seconds), seconds, clock


def _compute(stage: Stage[P, D, S], block: Block[P], data: D, seconds: dict[str, float]) -> Output:
    asked = time.perf_counter()
    with device.held() if stage.on_device else nullcontext(device.Hold()) as hold:
        start = time.perf_counter()
        state = stage.device(data)
        end = time.perf_counter()
    output = stage.finish(block, state)
    seconds["wait"] = start - asked
    seconds["device"] = end - start - hold.aside_s
    seconds["finish"] = time.perf_counter() - end + hold.aside_s
    return output


def write_rows(
    location: Location, group: str, name: str, start: int, values: npt.NDArray[Any]
) -> int:
    """Write whole shards of a grid array; returns the bytes stored.

    Raises `StoreError` where the rows do not fill the array's shards: that write would race with
    the neighbour's.
    """
    array = array_of(location.group(group), name)
    step = (array.shards or array.chunks)[0]
    stop = start + len(values)
    if start % step or (stop % step and stop != array.shape[0]):
        raise StoreError(
            f"rows {start} to {stop} of {group}/{name} are not whole shards of {step}: "
            "the write would race with another block's"
        )
    fill_array(array, np.asarray(values, dtype=array.dtype), start)
    return stored_bytes(location, array, start // step)


def stored_bytes(location: Location, array: zarr.Array[Any], row_shard: int) -> int:
    """Size of the object that holds one shard of rows, in bytes; 0 where it is absent."""
    return objects.size(location, f"{array.path}/{object_key(array, row_shard)}")


def object_key(array: zarr.Array[Any], row_shard: int) -> str:
    """Key below the array of the object that holds one shard of rows."""
    return array.metadata.encode_chunk_key((row_shard, *(0 for _ in array.shape[1:])))
