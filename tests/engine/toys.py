"""A stage without science: rows are numbers, and chosen rows raise, kill or dawdle."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zarrloc.config.run import RunConfig
from zarrloc.digest import combine
from zarrloc.engine.blocks import Block, Output
from zarrloc.engine.drive import drive
from zarrloc.engine.ledger import Ledger, receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.location import Location, StoreClock
from zarrloc.lock import hold
from zarrloc.store import PENDING, StageAttrs, Variable, allocate, claim, commit, ensure_root

GROUP = "embeddings/toy"


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
                case "kill":
                    os._exit(9)
                case "kill in company" if len(block.skip) < len(block) - 1:
                    os._exit(9)
        return rows

    def finish(self, block: Block, state: Any) -> Output:
        value = state[:, None] + np.arange(3, dtype=np.float32)
        error = np.array([block.skip.get(row, "") for row in block.rows], np.dtypes.StringDType())
        value[error != ""] = np.nan
        return Output(value, {"error": error, "double": state.astype(np.int64) * 2})


def run_toy(
    where: Any, rows: int = 20, block_rows: int = 4, inputs: Any = None, **options: Any
) -> Summary:
    """Allocate or grow the toy's group and run it."""
    location = Location.of(where)
    config = options.pop("config", RunConfig(cluster="serial"))
    overwrite = options.pop("overwrite", False)
    toy = Toy(location, **options)
    ensure_root(location)
    with hold(location, GROUP, new_run_id()) as token:
        wanted = StageAttrs.of(
            "toy", {}, {}, block_rows=block_rows, array="value", digested=["error", "double"]
        )
        if claim(location, GROUP, wanted, overwrite=overwrite) is None:
            variables = {
                "value": Variable(("row", "feature"), "float32", (rows, 3), np.nan, block_rows),
                "error": Variable(("row",), "string", (rows,), PENDING),
                "double": Variable(("row",), "int64", (rows,), -1),
                **receipt_variables(rows, block_rows),
            }
            attrs = {"zarrloc": wanted.model_dump()}
            allocate(location, GROUP, variables, attrs=attrs, coords=["error"])
        else:
            Ledger.grow(location, GROUP, "row", rows, block_rows)
        commit(location, GROUP)
        ledger = Ledger(location, GROUP, ("error", "double"), rows, block_rows)
        blocks = [
            combine([tuple(range(b * block_rows, min(rows, (b + 1) * block_rows))), inputs])
            for b in range(ledger.blocks)
        ]
        return drive(toy, ledger, blocks, config, token, unit="row", quiet=True)
