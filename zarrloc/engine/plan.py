"""What a stage wants its group to be, what stands there already, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.engine.block import D, P, Part, S, Stage
from zarrloc.engine.ledger import receipt_variables, row_digest_variable
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import column_digest, read_column
from zarrloc.store.template import Variable

Array = tuple[tuple[str, ...], npt.NDArray[Any]]
"""Names of an array's axes, and its values."""


@dataclass(frozen=True)
class Plan(Generic[P, D, S]):
    """What a stage wants its group to be, and how the blocks of it are made.

    A group without a `work` is written in one piece: all its arrays are in `coords`.
    """

    attrs: StageAttrs
    """Stage, settings and inputs; a group of the same name with others is refused."""
    template: Mapping[str, Variable]
    """Every array, receipts and row digests left out."""
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays that the coordinator writes before any block runs, whole."""
    coordinates: Sequence[str] = ()
    """Which arrays xarray takes as coordinates."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further attributes of the group."""
    work: Stage[P, D, S] | None = None
    columns: Sequence[str] = ()
    """Arrays whose rows come back from the workers."""
    parts: Sequence[Part[P]] = ()
    """What each block is made from."""
    rebuild: bool = False
    """Replace what stands there, whatever its settings: its rows or facts it stands on changed."""
    again: npt.NDArray[np.bool_] | None = None
    """Rows whose blocks are done again whatever their receipts say; None for none."""
    settle: Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]] | None = None
    """Columns that can be worked out only when all rows are there, from the columns."""
    unit: str = "FOV"
    block_s: float | None = None
    """About how long a core takes for a block; None where that is not known."""

    @classmethod
    def whole(
        cls,
        attrs: StageAttrs,
        arrays: Mapping[str, Array],
        *,
        coordinates: Sequence[str],
        **about: Any,
    ) -> Self:
        """A group that is written in one piece, such as a split or a head."""
        template = {
            # A column's chunk of thousands of rows would be gigabytes of weights.
            name: Variable.like(dims, values, grid_chunk=len(values) if values.ndim == 3 else 0)
            for name, (dims, values) in arrays.items()
        }
        coords = {name: values for name, (_, values) in arrays.items()}
        return cls(attrs, template, coords, coordinates, about)

    @property
    def rows(self) -> int:
        """Rows of the group."""
        return self.template["error"].shape[0]

    @property
    def variables(self) -> dict[str, Variable]:
        """The whole template."""
        if self.work is None:
            return dict(self.template)
        dim = self.template["error"].dims[0]
        digests = row_digest_variable(dim, self.rows) if self.work.array else {}
        receipts = receipt_variables(self.rows, self.attrs.block_rows)
        return {**self.template, **digests, **receipts}

    @property
    def from_workers(self) -> tuple[str, ...]:
        """Columns that receipts fill."""
        digests = (ROW_DIGEST,) if self.work is not None and self.work.array else ()
        return (*self.columns, *digests)


@dataclass(frozen=True)
class Before:
    """What stands under the name, as read under the lock."""

    group: zarr.Group | None = None
    attrs: StageAttrs | None = None

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """A column, compared with its digest; None where the group or the column is absent."""
        if self.group is None or name not in self.group:
            return None
        return read_column(self.group, name)

    def continues(self, name: str, values: npt.NDArray[Any]) -> bool:
        """Whether `values` begin with the column that is there; unread where its digest tells."""
        if self.group is None or name not in self.group:
            return True
        digests: Any = self.group.attrs.get("column_digests", {})
        if digests.get(name) == column_digest(values):
            return True
        had = read_column(self.group, name)
        return np.array_equal(had, values[: len(had)])


@dataclass
class Outcome:
    """How carrying out a plan ended."""

    summary: Summary
    columns: Mapping[str, npt.NDArray[Any]]
    """The columns that came from workers, all rows."""
    made: bool
    """Whether anything was written."""


@runtime_checkable
class Settling(Stage[P, D, S], Protocol[P, D, S]):
    """A stage whose values depend, in their last bits, on how it is executed."""

    def settle(self) -> dict[str, Any]:
        """Run on a worker: device kind, precision, batch size."""

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""


AnyPlan = Plan[Any, Any, Any]
AnySettling = Settling[Any, Any, Any]


def refuse_other_settings(path: str, before: StageAttrs, wanted: StageAttrs) -> None:
    """Refuse `wanted` where group `path` was made otherwise. Raises `ConfigError`."""
    if before.fingerprint != wanted.fingerprint:
        changes = "; ".join(before.difference(wanted)) or (
            f"stage: {before.stage} -> {wanted.stage}"
        )
        raise ConfigError(
            f"'{path}' was made with other settings ({changes}); "
            "pass --overwrite to replace it, or another --name"
        )
