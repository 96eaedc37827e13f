"""A stage without science: rows are numbers, and chosen rows raise, kill or dawdle."""

import errno
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Block, Output, Part
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.cluster import Cluster
from zarrloc.engine.plan import Plan
from zarrloc.engine.telemetry import Summary
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.digest import combine
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import PENDING, Variable

GROUP = "embeddings/toy"
SERIAL = RunConfig(cluster="serial")
LOCAL = RunConfig(cluster="local", workers=2, dashboard=":0")


@dataclass(frozen=True)
class Toy:
    """`value (row, 3)` = row, row + 1, row + 2; `do` says what else befalls a row."""

    location: Location
    do: Mapping[int, str] = field(default_factory=dict)
    nap: float = 0.0
    group: str = GROUP
    array: str | None = "value"
    on_device: bool = False

    def open(self) -> None:
        if self.do.get(-1) == "open":
            raise OSError("no model here")

    def read(self, block: Block, clock: StoreClock) -> Any:
        for row in block.rows:
            if row not in block.skip and self.do.get(row) == "unreadable":
                raise ValueError(f"row {row} cannot be read")
        return np.array(block.rows, dtype=np.float32), block

    def device(self, data: Any) -> Any:
        rows, block = data
        time.sleep(self.nap)
        for row in block.rows:
            if row in block.skip:
                continue
            match self.do.get(row):
                case "raise":
                    raise ValueError(f"row {row} is bad")
                case "stale":
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                case "full":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/s/c/0")
                case "gone":
                    shutil.rmtree(self.location.uri)
                    self.location.group(self.group)
                case "memory":
                    raise MemoryError
                case "kill":
                    os._exit(9)
                case "kill in company" if len(block.skip) < len(block) - 1:
                    os._exit(9)
                case "environment":
                    raise ValueError(os.environ.get("OMP_NUM_THREADS", "unset"))
        return rows

    def finish(self, block: Block, state: Any) -> Output:
        value = state[:, None] + np.arange(3, dtype=np.float32)
        error = np.array([block.skip.get(row, "") for row in block.rows], np.dtypes.StringDType())
        value[error != ""] = np.nan
        return Output(value, {"error": error, "double": state.astype(np.int64) * 2})


def run_toy(
    where: Any,
    rows: int = 20,
    block_rows: int = 4,
    *,
    config: RunConfig | Cluster = SERIAL,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[int, Any] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Summary:
    """Allocate or grow the toy's group and run it; `inputs` says what a block is made from."""
    toy = Toy(Location.of(where), **options)
    wanted = StageAttrs.of(
        "toy", settings or {}, {},
        block_rows=block_rows, array=toy.array, digested=["error", "double"],
    )  # fmt: skip
    names = np.array([f"r{row}" for row in range(rows)], np.dtypes.StringDType())
    template = {
        "value": Variable(("row", "feature"), "float32", (rows, 3), np.nan, block_rows),
        "error": Variable(("row",), "string", (rows,), PENDING),
        "double": Variable(("row",), "int64", (rows,), -1),
        "name": Variable.like(("row",), names),
    }
    parts = [
        Part(
            combine([len(range(start, min(rows, start + block_rows))), (inputs or {}).get(block)]),
            None,
        )
        for block, start in enumerate(range(0, rows, block_rows))
    ]
    plan = Plan(
        wanted,
        template,
        coords={"name": names},
        coordinates=("error", "name"),
        work=toy,
        columns=("error", "double"),
        parts=parts,
        unit="row",
    )
    outcome = carry_out(
        toy.location, GROUP, lambda _: plan, config, overwrite=overwrite, creates=True
    )
    return outcome.summary
