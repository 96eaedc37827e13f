"""What a run reports while it works, and who hears it: a bar, the log, or a caller's own object."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self


@dataclass(frozen=True)
class RunStart:
    """Blocks of a group are about to be sent to workers."""

    group: str
    blocks: int
    rows: int
    """Rows of these blocks."""
    unit: str
    """What a row is, such as `FOV` or `cell`."""
    workers: int


@dataclass(frozen=True)
class BlockEnd:
    """A block is done and recorded."""

    group: str
    block: int
    rows: int
    errors: int
    """Rows of it that have an error."""
    seconds: Mapping[str, float]
    """Phase -> seconds on the worker."""
    nbytes: int
    """Bytes stored."""


@dataclass(frozen=True)
class BlockFailed:
    """A block could not be done; the run goes on, or ends with this fault."""

    group: str
    block: int
    reason: str
    """The traceback where there is one."""


@dataclass(frozen=True)
class WorkerDied:
    """A worker died under a block, which is now tried alone."""

    group: str
    block: int


@dataclass(frozen=True)
class RowsGuilty:
    """Rows that kill their worker were found, and get an error."""

    group: str
    block: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class RunEnd:
    """No further block is sent."""

    group: str
    failures: tuple[str, ...]
    """Why blocks were left undone."""
    seconds: Mapping[str, float]
    """Phase -> seconds, summed over workers."""


Event = RunStart | BlockEnd | BlockFailed | WorkerDied | RowsGuilty | RunEnd


class Callback:
    """Hears what runs report, from when it is entered until it is left.

    Override what you want to hear. While at least one callback is active, the usual progress bar
    is not shown; so `with Callback():` is how to run without one. What a method raises ends the
    run; the blocks done so far are kept.

    Examples
    --------
    >>> class Count(Callback):
    ...     blocks = 0
    ...
    ...     def on_block_end(self, event: BlockEnd) -> None:
    ...         self.blocks += 1
    >>> import zarrloc as zl
    >>> with Count() as count:
    ...     done = zl.embed("my.zarr", backbone="dino-vits16", name="dino", cluster="serial")
    >>> count.blocks
    0
    """

    active: ClassVar[list["Callback"]] = []
    """The callbacks that are entered now, in this process."""

    def __enter__(self) -> Self:
        self.active.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.active.remove(self)

    def on_run_start(self, event: RunStart) -> None:
        """Before the first block of a group; not where nothing is to be done."""

    def on_block_end(self, event: BlockEnd) -> None:
        """A block is done."""

    def on_block_failed(self, event: BlockFailed) -> None:
        """A block could not be done."""

    def on_worker_died(self, event: WorkerDied) -> None:
        """A worker died."""

    def on_rows_guilty(self, event: RowsGuilty) -> None:
        """Rows were found that kill their worker."""

    def on_run_end(self, event: RunEnd) -> None:
        """After the last block, also where the run was stopped or failed."""
