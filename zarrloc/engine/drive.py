"""What all runs share: workers started, execution settled, blocks run, the group committed."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Stage
from zarrloc.engine.cluster import Executor, choose, cores, executor, places
from zarrloc.engine.ledger import Ledger
from zarrloc.engine.run import run, todo
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ClusterError
from zarrloc.store.location import Location
from zarrloc.store.lock import RunToken
from zarrloc.store.template import (
    StageAttrs,
    Variable,
    allocate,
    claim,
    commit,
    committed,
    stage_attrs,
    update_attrs,
    write_column,
)

Blockwise = Sequence[int] | npt.NDArray[np.uint64]
"""One digest a block."""

PREFETCH = 2
"""Blocks in flight a worker: one reads and decodes while the other computes."""


@runtime_checkable
class Settling(Stage, Protocol):
    """A stage whose values depend, in their last bits, on how it is executed."""

    def settle(self) -> dict[str, Any]:
        """Run on a worker: device kind, precision, batch size."""

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""


def open_group(
    location: Location,
    group: str,
    wanted: StageAttrs,
    variables: Mapping[str, Variable],
    *,
    columns: Sequence[str],
    coords: Mapping[str, npt.NDArray[Any]],
    overwrite: bool = False,
    anew: bool = False,
) -> Ledger:
    """The stage's group, allocated or grown to what `variables` ask for, and committed.

    `columns` are written from receipts, `coords` now. `anew` replaces a group of the same
    settings. Raises `ConfigError` where the name stands for other settings.
    """
    there = claim(location, group, wanted, overwrite=overwrite)
    error = variables["error"]
    (rows,), rows_dim = error.shape, error.dims[0]
    if there is None or anew:
        opened = allocate(
            location,
            group,
            variables,
            attrs={"zarrloc": wanted.model_dump()},
            coords=["error", *coords],
        )
    else:
        Ledger.grow(location, group, rows_dim, rows, wanted.block_rows)
        opened = location.group(group)
    for name, values in coords.items():
        write_column(opened, name, values)
    commit(location, group)
    return Ledger(location, group, columns, rows, wanted.block_rows)


def drive(
    stage: Stage,
    ledger: Ledger,
    inputs: Sequence[int],
    config: RunConfig,
    token: RunToken,
    *,
    expect: Mapping[str, Blockwise] | None = None,
    payloads: Sequence[Any] | None = None,
    unit: str = "FOV",
    quiet: bool = False,
) -> Summary:
    """Run the blocks of `stage` whose input changed, then commit its group.

    `inputs`, `expect` and `payloads` are as in `todo`.
    """
    blocks = todo(
        ledger, inputs, expect=expect, payloads=payloads, retry_failed=config.retry_failed
    )
    if not blocks:
        summary = Summary(stage.group, ledger.rows, ledger.blocks)
        summary.rows_failed = int(ledger.errors().sum())
        return summary
    group = committed(stage.location, stage.group)
    assert group is not None, "a stage's group is committed before its blocks run"
    attrs = stage_attrs(group)
    kind = choose(config, stage.on_device)
    most = min(config.workers or places(kind), len(blocks))
    threads = int(attrs.execution.get("threads") or max(1, cores() // most))
    workers = min(most, max(1, cores() // threads)) if config.workers is None else most
    began = time.perf_counter()
    with executor(kind, config, workers=workers, threads=threads, prefetch=PREFETCH) as pool:
        if pool.dashboard and not quiet:
            print(f"Dask dashboard: {pool.dashboard}", flush=True)
        if isinstance(stage, Settling):
            execution = attrs.execution or {**_call(pool, stage), "threads": threads}
            if not attrs.execution:
                attrs = attrs.model_copy(update={"execution": execution})
                update_attrs(stage.location, stage.group, zarrloc=attrs.model_dump())
            stage = stage.settled(execution)
        started = time.perf_counter() - began
        try:
            summary = run(stage, ledger, blocks, pool, token, unit=unit, quiet=quiet)
        finally:
            commit(stage.location, stage.group)
    summary.start_s = started
    return summary


def _call(pool: Executor, stage: Any) -> dict[str, Any]:
    key = f"settle-{stage.group.replace('/', '.')}-{os.getpid()}-{time.time_ns()}"
    pool.submit([(key, (stage,))], _settle)
    (end,) = pool.completed()
    if end.killed:
        raise ClusterError(
            f"a worker of '{stage.group}' died while it started (out of memory, or a crash): give "
            "it more (--memory-limit, fewer --workers), or see why with --cluster serial"
        ) from end.error
    if end.error is not None:
        raise end.error
    return dict(end.value)


def _settle(stage: Any) -> dict[str, Any]:
    stage.open()
    return dict(stage.settle())
