"""One way from a stage's intention to its group: a `Plan`, and the function that carries it out.

A stage says what its group is and how a block of it is made. `carry_out` takes the lock, lets the
stage read under it, compares with what stands under the name, allocates or grows, runs the blocks
whose input changed, commits, and releases.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import AnyBlock, AnyStage, Block, D, P, Part, S, Stage
from zarrloc.engine.cluster import Cluster, Load
from zarrloc.engine.executors import Executor
from zarrloc.engine.ledger import Ledger, receipt_variables, row_digest_variable
from zarrloc.engine.run import new_run_id
from zarrloc.engine.run import run as run_blocks
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError, StoreError, WorkerError
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store import document, objects, retry
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import column_digest, put_columns, read_column
from zarrloc.store.document import NEXT, Document, State
from zarrloc.store.location import Location
from zarrloc.store.lock import RunToken, hold
from zarrloc.store.remote import present, snapshot
from zarrloc.store.template import Variable

LOG = logging.getLogger("zarrloc")

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


def carry_out(
    location: Location,
    path: str,
    make: Callable[[Before], AnyPlan],
    run: RunConfig | Cluster | None = None,
    *,
    overwrite: bool = False,
    creates: bool = False,
) -> Outcome:
    """Make group `path` what the plan says, and commit it.

    `make` is called under the lock with what stands there. With `overwrite` a committed group
    stays until its successor, made beside it, is complete. `creates` makes the store, too. A
    `Cluster` in the place of `run` is left running, for the next plan.

    Raises
    ------
    ConfigError
        Where the name stands for a group of other settings.
    StoreError
        Where the store, the group or what `make` reads is damaged or absent.
    LockedError
        Where another run holds the group.
    """
    with snapshot():
        if creates:
            document.check_target(location)
        else:
            document.read_root(location)
        if location.path is None and not overwrite:
            settings = run.run if isinstance(run, Cluster) else run
            done = _nothing_to_do(location, path, make, settings or RunConfig())
            if done is not None:
                return done
    document.need_writable(location)
    with present(), hold(location, path, new_run_id()) as token:
        before = Before()
        if document.is_store(location):
            document.finish_switch(location, path)
            before = _before(location, path)
        target, there = path, before
        if overwrite and before.group is not None:
            target = path + NEXT
            there, plan = _begun(location, target, make)
        else:
            plan = make(before)
            if plan.rebuild and before.group is not None:
                target, there = path + NEXT, Before()
            elif before.attrs is not None:
                refuse_other_settings(path, before.attrs, plan.attrs)
                if not plan.attrs.reads_as(before.attrs):  # roles moved to other channels
                    target = path + NEXT
                    there, plan = _begun(location, target, make)
        document.ensure_root(location)
        found, changed = _prepare(location, target, plan, there)
        if plan.work is None:
            summary, columns = Summary(path, 0, 0), dict(plan.coords)
        else:
            with retry.patient(), ExitStack() as stack:
                if not isinstance(run, Cluster):
                    run = stack.enter_context(Cluster(run))
                summary, ledger = _drive(location, target, found, plan, there, run, token)
            summary.group, columns = path, ledger.columns
        if target != path and not summary.failures:
            document.switch(location, path)
    return Outcome(summary, columns, changed or bool(summary.blocks_run))


def complete(location: Location, path: str) -> None:
    """Put the group in its place where a run was killed in its last step.

    For a stage that has to read its own group before `carry_out`. Raises `LockedError`.
    """
    if document.is_half_switched(location, path):
        with hold(location, path, new_run_id()):
            document.finish_switch(location, path)


def _nothing_to_do(
    location: Location, path: str, make: Callable[[Before], AnyPlan], run: RunConfig
) -> Outcome | None:
    """The outcome where all is done already, found without a lease and without a write.

    In an object store the lease and the many looks at metadata cost seconds; here each object is
    fetched once. None where there is work, or may be.
    """
    if not document.is_store(location):
        return None
    before = _before(location, path)
    if before.group is None or before.attrs is None:
        return None
    plan = make(before)
    if plan.rebuild or not plan.attrs.reads_as(before.attrs):
        return None
    refuse_other_settings(path, before.attrs, plan.attrs)
    found = _unchanged(location, path, plan)
    if found is None:
        return None
    if plan.work is None:
        return Outcome(Summary(path, 0, 0), dict(plan.coords), made=False)
    ledger = Ledger(before.group, plan.from_workers, plan.rows, plan.attrs.block_rows)
    if _in_motion(found, ledger):
        return None
    if _todo(ledger, plan, run):
        return None
    return Outcome(_all_done(path, ledger), ledger.columns, made=False)


def _begun(
    location: Location, target: str, make: Callable[[Before], AnyPlan]
) -> tuple[Before, AnyPlan]:
    """What a killed run left of a group that is made beside another, if it fits; and the plan."""
    plan = make(Before())
    waiting = _before(location, target)
    if waiting.attrs is None or waiting.attrs.fingerprint != plan.attrs.fingerprint:
        return Before(), plan
    return (waiting, make(waiting)) if waiting.attrs.reads_as(plan.attrs) else (Before(), plan)


def _before(location: Location, path: str) -> Before:
    found = document.readable(location, document.look(location, path))
    if found.state is not State.COMMITTED or found.document is None:
        return Before()
    return Before(location.group(path, mode="r"), found.document.stage)


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


# --- allocate, grow, commit ---------------------------------------------------------------------


def _prepare(location: Location, path: str, plan: AnyPlan, there: Before) -> tuple[Document, bool]:
    """The group's document, committed as the plan asks; and whether that took any writing."""
    variables = plan.variables
    about = dict(plan.about)
    if plan.coordinates:
        about["coordinates"] = " ".join(sorted(set(plan.coordinates)))
    if there.group is None:
        found = _allocate(location, path, plan, about)
        new = dict(plan.coords)
    else:
        held = document.look(location, path).document
        assert held is not None, f"{path} was committed a moment ago"
        found, before = held, dict(held.arrays)
        _grow(found, path, variables, plan)
        new = {n: v for n, v in plan.coords.items() if not _equal(there.column(n), v)}
        if not new and found.arrays == before and about.items() <= found.attributes.items():
            if not path.endswith(NEXT) and not document.is_published(location, path, found):
                document.publish(location, path, found.to_json())
            return found, False
        document.align(location, path, Document({}, before))
    found.attributes.update(about)
    put_columns(location, path, found, {n: (variables[n], v) for n, v in new.items()})
    document.commit(location, path, found)
    document.align(location, path, found)
    return found, True


def _unchanged(location: Location, path: str, plan: AnyPlan) -> Document | None:
    """The document of a committed group that is what the plan asks for; None where it isn't."""
    found = document.look(location, path).document
    if found is None:
        return None
    about = dict(plan.about)
    if plan.coordinates:
        about["coordinates"] = " ".join(sorted(set(plan.coordinates)))
    before = dict(found.arrays)
    digests = found.attributes.get("column_digests", {})
    _grow(found, path, plan.variables, plan)
    same = found.arrays == before and about.items() <= found.attributes.items()
    known = {name: column_digest(values) for name, values in plan.coords.items()}
    if not same or any(digests.get(name) != value for name, value in known.items()):
        return None
    return found if document.is_published(location, path, found) else None


def _allocate(location: Location, path: str, plan: AnyPlan, about: Mapping[str, Any]) -> Document:
    objects.remove(location, path)
    found = Document({**about, "zarrloc": plan.attrs.model_dump()}, {})
    document.begin(location, path, found.attributes)
    for name, variable in plan.variables.items():
        if name not in plan.coords:
            found.arrays[name] = variable.metadata()
            document.write_array(location, path, name, found.arrays[name])
    return found


def _grow(found: Document, path: str, variables: Mapping[str, Variable], plan: AnyPlan) -> None:
    """Give every array that the plan does not write whole the rows it asks for."""
    digests = dict(found.attributes.get("column_digests", {}))
    for name in [*plan.template, *variables]:  # the receipts last: a refusal speaks of rows
        if name in plan.coords:
            continue
        if name not in found.arrays:
            raise StoreError(f"'{path}' has no '{name}': another zarrloc made it")
        old, new = found.arrays[name]["shape"], list(variables[name].shape)
        if any(n < o for n, o in zip(new, old, strict=True)):
            raise StoreError(f"'{path}' holds {old[0]} rows and will not be cut to {new[0]}")
        if new != old:
            found.arrays[name] = {**found.arrays[name], "shape": new}
            digests.pop(name, None)
    found.attributes["column_digests"] = digests


def _equal(old: npt.NDArray[Any] | None, new: npt.NDArray[Any]) -> bool:
    if old is None or old.shape != new.shape:
        return False
    if new.dtype.kind == "f":
        return bool(np.array_equal(old, new, equal_nan=True))
    return bool(np.array_equal(old, new.astype(old.dtype)))


# --- run ----------------------------------------------------------------------------------------


def _drive(
    location: Location,
    path: str,
    found: Document,
    plan: AnyPlan,
    there: Before,
    cluster: Cluster,
    token: RunToken,
) -> tuple[Summary, Ledger]:
    """Run the blocks whose input changed, and commit what came of them."""
    assert plan.work is not None, "only blocks are driven"
    work: AnyStage = replace(plan.work, location=location, group=path)
    ledger = Ledger(location.group(path), plan.from_workers, plan.rows, plan.attrs.block_rows)
    held = ledger.columns.keys() | ledger.receipts.keys()
    digests: dict[str, str] = found.attributes["column_digests"]
    in_motion = _in_motion(found, ledger)  # as those of a new group are, and of one that grew
    if in_motion:
        ledger.doubt(_digested(plan))
    blocks = _todo(ledger, plan, cluster.run)
    if not blocks:
        if in_motion:
            _close(location, path, found, plan, ledger)
        return _all_done(path, ledger), ledger
    execution = found.stage.execution
    began = time.perf_counter()
    threads = int(execution["threads"]) if "threads" in execution else None
    before: Any = {} if there.group is None else there.group.attrs["column_digests"]
    crashed = there.group is not None and not held <= before.keys()
    load = Load(len(blocks), work.on_device, plan.block_s, threads, crashed)
    pool, threads = cluster.executor(load)
    if pool.dashboard:
        LOG.info("Dask dashboard: %s", pool.dashboard)
    if isinstance(work, Settling):
        execution = execution or {**_call(pool, work), "threads": threads}
        work = work.settled(execution)
    # From here until the commit at the end, the store says that these columns are in motion.
    found.attributes["column_digests"] = {n: d for n, d in digests.items() if n not in held}
    attrs = found.stage.model_copy(update={"execution": execution})
    found.attributes["zarrloc"] = attrs.model_dump()
    document.commit(location, path, found)
    started = time.perf_counter() - began
    try:
        summary = run_blocks(work, ledger, blocks, pool, token, unit=plan.unit)
    finally:
        _close(location, path, found, plan, ledger)
    summary.start_s = started
    return summary, ledger


def _in_motion(found: Document, ledger: Ledger) -> bool:
    """Whether a run is changing the ledger's columns, or died while it did."""
    held = ledger.columns.keys() | ledger.receipts.keys()
    return not held <= found.attributes["column_digests"].keys()


def _all_done(path: str, ledger: Ledger) -> Summary:
    summary = Summary(path, ledger.rows, ledger.blocks)
    summary.rows_failed = int(ledger.errors().sum())
    return summary


def _close(location: Location, path: str, found: Document, plan: AnyPlan, ledger: Ledger) -> None:
    """Commit the columns as they stand, with their digests."""
    document.need_there(location)
    ledger.flush()  # a signal may have cut off the last one, and digests speak of what is written
    digests = {**found.attributes["column_digests"], **ledger.digests()}
    found.attributes["column_digests"] = digests
    if plan.settle is not None and ledger.output.all():
        settled = plan.settle(ledger.columns)
        ledger.columns.update(settled)
        put_columns(location, path, found, {n: (plan.template[n], v) for n, v in settled.items()})
    document.commit(location, path, found)
    document.align(location, path, found)


def _digested(plan: AnyPlan) -> list[str]:
    has_array = plan.work is not None and plan.work.array is not None
    return [*plan.attrs.digested, *([ROW_DIGEST] if has_array else [])]


def _todo(ledger: Ledger, plan: AnyPlan, run: RunConfig) -> list[AnyBlock]:
    return todo(ledger, plan.parts, retry_failed=run.retry_failed, also=plan.again)


def todo(
    ledger: Ledger,
    parts: Sequence[Part[P]],
    *,
    retry_failed: bool = False,
    also: npt.NDArray[np.bool_] | None = None,
) -> list[Block[P]]:
    """Blocks whose receipt is missing or speaks of other input, or whose rows may now succeed."""
    again = ledger.errors() if retry_failed else ledger.again()
    if also is not None:
        again |= also
    blocks = []
    for index, part in enumerate(parts):
        start = index * ledger.block_rows
        stop = min(start + ledger.block_rows, ledger.rows)
        done = int(ledger.output[index]) != 0 and (
            int(ledger.receipts["block_input"][index]) == part.input
        )
        if done and not again[start:stop].any():
            continue
        blocks.append(Block(index, start, stop, part))
    return blocks


def _call(pool: Executor, work: AnySettling) -> dict[str, Any]:
    key = f"settle-{work.group.replace('/', '.')}-{os.getpid()}-{time.time_ns()}"
    pool.submit([(key, (work,))], _settle)
    (end,) = pool.completed()
    if end.killed:
        raise WorkerError(
            f"a worker of '{work.group}' died while it started (out of memory, or a crash): give "
            "it more (--memory-limit, fewer --workers), or see why with --cluster serial"
        ) from end.error
    if end.error is not None:
        raise end.error
    return dict(end.value)


def _settle(work: AnySettling) -> dict[str, Any]:
    work.open()
    return dict(work.settle())
