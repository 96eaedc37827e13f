"""What the engine itself costs: blocks of no work through two workers.

    python benchmarks/engine.py

Target: 10,000 blocks at 200 blocks/s or more on two cores, with the coordinator's memory flat.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from machine import about, report, sampled_memory

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import Block, Output, Part
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import Plan
from zarrloc.engine.telemetry import Summary
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.template import PENDING, Variable

GROUP = "embeddings/idle"


@dataclass(frozen=True)
class Idle:
    """Blocks of one row and no work."""

    location: Location
    group: str = GROUP
    array: str | None = None
    on_device: bool = False

    def open(self) -> None:
        """Nothing."""

    def read(self, block: Block, clock: StoreClock) -> Any:
        """Nothing."""

    def device(self, data: Any) -> Any:
        """Nothing."""

    def finish(self, block: Block, state: Any) -> Output:
        """No error."""
        return Output(None, {"error": np.full(len(block), "", np.dtypes.StringDType())})


def run(folder: str, blocks: int) -> Summary:
    """All blocks, once."""
    location = Location.of(f"{folder}/idle.zarr")
    wanted = StageAttrs.of("idle", {}, {}, block_rows=1, digested=["error"])
    plan = Plan(
        wanted,
        {"error": Variable(("row",), "string", (blocks,), PENDING)},
        work=Idle(location),
        columns=("error",),
        parts=[Part(digest, None) for digest in range(1, blocks + 1)],
    )
    config = RunConfig(cluster="local", workers=2, dashboard=":0")
    outcome = carry_out(location, GROUP, lambda _: plan, config, creates=True)
    return outcome.summary


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=10_000)
    blocks = parser.parse_args().blocks
    before, cpu = about(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, sampled_memory(0.5) as samples:
        summary = run(folder, blocks)
    cpu = time.process_time() - cpu
    assert summary.blocks_run == blocks
    running = samples[len(samples) - int(summary.wall_s / 0.5) :]
    mine = [sample[os.getpid()] / 1e6 for sample in running] or [0.0]
    rows = {
        "blocks": blocks,
        "blocks a second (target 200)": round(blocks / summary.wall_s, 1),
        "seconds, first submit to last receipt": round(summary.wall_s, 2),
        "seconds to start workers": round(summary.start_s, 2),
        "CPU ms a block, coordinator and scheduler": round(1e3 * cpu / blocks, 2),
        "coordinator MB after a quarter": round(mine[len(mine) // 4], 1),
        "coordinator MB at the end": round(mine[-1], 1),
    }
    report("engine", rows, before)


if __name__ == "__main__":
    main()
