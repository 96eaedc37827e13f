"""Memory of a worker: flat over many blocks, and bounded above its model.

    zarrloc simulate sim --fovs 192 && python benchmarks/memory.py sim/raw

One worker, resident bytes sampled five times a second. Targets: no growth over 1,000 small
blocks; at most 1 GB above the loaded model for the default shard, and for a set of 2048 px and
4 channels; the same for the workers of ingest, which hold no model.
"""

import argparse
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import tifffile
from machine import about, report, sampled_memory

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine import cluster
from zarrloc.engine.cluster import executor
from zarrloc.models import backbones
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest

LOCAL = RunConfig(cluster="local", workers=1, dashboard=":0")
ROLES = ("nucleus", "protein", "er", "microtubules")


def loaded(backbone: str) -> int:
    """Resident bytes of this worker with the model in it, and nothing yet computed."""
    backbones.load(backbone, "random:0")
    return psutil.Process().memory_info().rss


def write_fields(folder: Path, count: int, shape: tuple[int, ...]) -> Path:
    """Fields of noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(500, 9000, shape).astype(np.uint16)
        tifffile.imwrite(folder / f"{index:04}.tif", pixels, imagej=True, metadata={"axes": "CYX"})
    return folder


def measure(source: Path, backbone: str, size: str, most: int, **config: Any) -> dict[str, Any]:
    """MB of the worker of each stage, over what it held before its first block."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen = Path(folder, "chosen")
        chosen.mkdir()
        for path in sorted(source.glob("*.tif"))[:most]:
            (chosen / path.name).symlink_to(path.resolve())
        store = Path(folder, "s.zarr")
        embedding = EmbedConfig(backbone=backbone, weights="random:0", size=size)
        for name in ("ingest", "embed"):
            with (
                executor("local", LOCAL, workers=1, threads=1, prefetch=2) as pool,
                mock.patch.object(cluster, "executor", return_value=nullcontext(pool)),
            ):
                (worker,) = pool.client.run(os.getpid).values()
                base = psutil.Process(worker).memory_info().rss
                if name == "embed":
                    (base,) = pool.client.run(loaded, backbone).values()
                with sampled_memory() as samples:
                    if name == "ingest":
                        summary = ingest(chosen, store, IngestConfig(**config), run=LOCAL)
                    else:
                        summary = embed(store, embedding, "e", run=LOCAL)
                assert summary.exit_code == 0, summary.failures
            held = np.array([sample[worker] for sample in samples if worker in sample]) / 1e6
            quarter = len(held) // 4
            found[name] = {
                "blocks": summary.blocks_run,
                "MB before": round(base / 1e6),
                "MB above, most": round(float(held.max()) - base / 1e6),
                "MB growth from the second quarter to the last": round(
                    float(np.median(held[-quarter:]) - np.median(held[quarter : 2 * quarter])), 1
                ),
            }
    return found


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="OpenCell-like fields of 600 px")
    source = parser.parse_args().source
    before = about()
    with tempfile.TemporaryDirectory() as folder:
        small = write_fields(Path(folder, "small"), 1000, (2, 48, 48))
        large = write_fields(Path(folder, "large"), 16, (4, 2048, 2048))
        rows = {
            "1,000 blocks of one 48 px field": measure(
                small, "timm:test_vit", "native", 1000, shard_fovs=1, channels=ROLES[:2]
            ),
            "default shard, 600 px, 2 channels": measure(source, "dino-vits16", "224", 192),
            "default shard, 2048 px, 4 channels": measure(
                large, "dino-vits16", "224", 16, channels=ROLES
            ),
        }
    report("memory", rows, before)


if __name__ == "__main__":
    main()
