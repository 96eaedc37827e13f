"""The blocks of a plan: which are to be done, where they run, and the commit of their results."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import AnyBlock, AnyStage, Block, P, Part
from zarrloc.engine.cluster import Cluster, Load
from zarrloc.engine.executors import Executor
from zarrloc.engine.ledger import RECEIPTS, Ledger
from zarrloc.engine.plan import AnyPlan, AnySettling, Before, Settling
from zarrloc.engine.run import run as run_blocks
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import WorkerError
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store import document
from zarrloc.store.columns import put_columns
from zarrloc.store.document import Document
from zarrloc.store.location import Location
from zarrloc.store.lock import RunToken

LOG = logging.getLogger("zarrloc")


def drive(
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
    moving = in_motion(found, plan)  # as those of a new group are, and of one that grew
    if moving:
        ledger.doubt(_digested(plan))
    blocks = todo_of(ledger, plan, cluster.run)
    if not blocks:
        if moving:
            _close(location, path, found, plan, ledger)
        return all_done(path, ledger), ledger
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


def in_motion(found: Document, plan: AnyPlan) -> bool:
    """Whether a run is changing the ledger's columns, or died while it did."""
    held = {*plan.from_workers, *RECEIPTS}
    return not held <= found.attributes["column_digests"].keys()


def all_done(path: str, ledger: Ledger) -> Summary:
    """The summary of a run that finds nothing to do."""
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


def todo_of(ledger: Ledger, plan: AnyPlan, run: RunConfig) -> list[AnyBlock]:
    """The blocks of a plan that are to be done."""
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
