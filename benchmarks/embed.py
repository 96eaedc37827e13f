"""Embed against the bare forward pass on tensors that lie in memory already.

    zarrloc simulate sim --fovs 512 && python benchmarks/embed.py sim/raw
    zarrloc simulate few --fovs 96 && python benchmarks/embed.py few/raw --level cell

Fields, or the crops of cells that `watershed` segmented. Both sides run in the same two worker
processes, which hold the model already, with the same threads and batch. They take turns, so that
a busy machine hits them alike. "Forward pass" is the network alone on prepared input; beside it
stands the pass with its preparation on the device (resize, normalise, map; cells come as crops).
Target: 0.90 of the network alone, first submit to last receipt. The cold start is reported apart.
"""

import argparse
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from machine import about, cpu_seconds, report, timed

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine import cluster
from zarrloc.engine.cluster import executor
from zarrloc.groups.fovs import Fovs
from zarrloc.models import preprocess
from zarrloc.models.forward import Forward, inference
from zarrloc.models.inputs import Size
from zarrloc.stages import embed as stage
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location

BACKBONE, SIZE = "dino-vits16", "224"


def bare(
    forward: Forward, shape: tuple[int, ...], dtype: str, count: int, network_alone: bool
) -> float:
    """Seconds for `count` images in batches on tensors in memory, on this worker."""
    batch, backbone = forward.execution["batch"], forward.backbone
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(500, 9000, (batch, *shape)).astype(dtype))
    size = Size.parse(forward.size)
    with inference(forward.execution["threads"]):
        prepared, _ = preprocess.prepare(
            images, forward.channel_map, size, forward.norm, backbone.patch, forward.pixel_size_um
        )
        start = time.perf_counter()
        for _ in range(count // batch):
            _ = backbone(prepared[0]) if network_alone else forward(images)
        return timed(start)


def on_all(pool: Any, *arguments: Any) -> float:
    """`bare` on every worker at once; seconds until the last is done."""
    workers = list(pool.client.scheduler_info(n_workers=-1)["workers"])
    start = time.perf_counter()
    futures = [
        pool.client.submit(bare, *arguments, workers=[worker], pure=False) for worker in workers
    ]
    pool.client.gather(futures)
    return timed(start)


def rows_to_embed(store: Path, config: EmbedConfig, fovs: Fovs) -> tuple[int, tuple[int, ...], str]:
    """How many images embed will put through the network, and one image's shape and dtype."""
    if config.level == "fov":
        return fovs.rows, (len(fovs.roles), fovs.height, fovs.width), fovs.dtype
    keep = read_column(Location.of(store).group(f"cells/{config.cells}", mode="r"), "keep")
    return int(keep.sum()), (len(fovs.roles), int(config.size), int(config.size)), "float32"


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--level", choices=("fov", "cell"), default="fov")
    parser.add_argument("--shard-fovs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    before = about()
    run = RunConfig(cluster="local", workers=2, dashboard=":0")
    config = EmbedConfig(backbone=BACKBONE, weights="random:0", size=SIZE)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "bench.zarr")
        ingest(options.source, store, IngestConfig(shard_fovs=options.shard_fovs))
        if options.level == "cell":
            segment(store, SegmentConfig(model="watershed"), "ws", run=run)
            config = config.model_copy(update={"level": "cell", "cells": "ws"})
        fovs = Fovs.of(Location.of(store))
        rows, shape, dtype = rows_to_embed(store, config, fovs)
        forward, _, _ = stage._forward(config, fovs)
        execution = {"device": "cpu", "precision": "fp32", "batch": 16, "threads": 1}
        forward = replace(forward, execution=execution)
        began = time.perf_counter()
        with executor("local", run, workers=2, threads=1, prefetch=2) as pool:
            starting = timed(began)
            began = time.perf_counter()
            on_all(pool, forward, shape, dtype, 16, False)
            loading = timed(began)
            seconds: dict[str, list[float]] = {"embed": [], "network": [], "device": []}
            cpu: dict[str, list[float]] = {"embed": [], "network": [], "device": []}
            share = rows // 8 // 16 * 16
            with mock.patch.object(cluster, "executor", return_value=nullcontext(pool)):
                for turn in range(options.rounds):
                    for kind in ("network", "device", "embed", "network", "device"):
                        spent = cpu_seconds()
                        if kind == "embed":
                            summary = stage.embed(store, config, f"e{turn}", run=run)
                            taken, count = summary.wall_s, rows
                        else:
                            alone = kind == "network"
                            taken = on_all(pool, forward, shape, dtype, share, alone)
                            count = share * 2
                        seconds[kind].append(taken / count)
                        cpu[kind].append((cpu_seconds() - spent) / count)
    wall = {kind: float(np.mean(values)) for kind, values in seconds.items()}
    spent_on = {kind: float(np.mean(values)) for kind, values in cpu.items()}
    table = {
        "level": options.level,
        "fields": fovs.rows,
        "images through the network": rows,
        "images a second, embed": round(1 / wall["embed"], 2),
        "images a second, network alone": round(1 / wall["network"], 2),
        "images a second, network and preparation": round(1 / wall["device"], 2),
        "ratio to the network alone (target 0.90)": round(wall["network"] / wall["embed"], 3),
        "ratio to network and preparation": round(wall["device"] / wall["embed"], 3),
        "ratio of CPU time to the network alone": round(spent_on["network"] / spent_on["embed"], 3),
        "CPU ms an image": {kind: round(1e3 * value, 1) for kind, value in spent_on.items()},
        "bottleneck": summary.bottleneck,
        "seconds by phase, last round": {k: round(v, 1) for k, v in summary.seconds.items()},
        "seconds to start workers (cold)": round(starting, 2),
        "seconds to import and load the model (cold)": round(loading, 2),
        "backbone": BACKBONE,
        "size": SIZE,
        "shard_fovs": options.shard_fovs,
    }
    report("embed" if options.level == "fov" else "embed_cells", table, before)


if __name__ == "__main__":
    main()
