"""What `zarrloc[zarrs]` saves a whole `embed` or `segment`, by turns with zarr-python alone.

    python benchmarks/zarrs_stages.py [--only "small ViT,classic"]

Simulated fields of 600 px in shards of eight, in this process. The backbones are cheap, so that
reading has a chance to matter: a tiny ViT on fields shrunk to 32 px and classic features; `segment`
is `watershed`. Each round runs one after the other and compares all values; ratios are medians of
the rounds' own, with the smallest and the largest.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from machine import about, report

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate import simulate
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.store import pipeline

RUN = RunConfig(cluster="serial")
STAGES: dict[str, tuple[str, Callable[..., Any], Any]] = {
    "small ViT": (
        "embeddings/vit",
        embed,
        EmbedConfig(backbone="timm:test_vit", weights="random:0", size="32"),
    ),
    "classic": ("embeddings/classic", embed, EmbedConfig(backbone="classic", size="150")),
    "segment": ("segmentations/ws", segment, SegmentConfig(model="watershed")),
}


@contextmanager
def reading_by(name: str) -> Iterator[None]:
    """Let handles of this block be zarrs' or zarr-python's."""
    found = pipeline.reader
    if name != "zarrs":
        pipeline.reader = lambda: ""  # type: ignore[assignment]
    try:
        yield
    finally:
        pipeline.reader = found


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fields", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(STAGES))
    given = parser.parse_args()
    before = about()
    assert pipeline.reader(), "pip install 'zarrloc[zarrs]' first"
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        raw, store = Path(folder, "sim"), Path(folder, "s.zarr")
        simulate(raw, SimulateConfig(fovs=given.fields, workers=1))
        ingest(raw / "raw", store, IngestConfig(pixel_size_um=0.2063, shard_fovs=8), run=RUN)
        for title in given.only.split(","):
            group, stage, config = STAGES[title]
            array = "mask" if stage is segment else "embedding"
            taken: dict[str, list[tuple[float, float]]] = {"zarrs": [], "zarr-python": []}
            for turn in range(-1, given.rounds):  # the first warms up
                values = []
                order = [*taken] if turn % 2 else [*reversed(taken)]
                for name in order:
                    with reading_by(name):
                        wall, cpu = time.perf_counter(), time.process_time()
                        stage(store, config, group.split("/")[1], run=RUN, overwrite=True)
                        spent = time.perf_counter() - wall, time.process_time() - cpu
                    if turn >= 0:
                        taken[name].append(spent)
                    values.append(xr.open_zarr(store, group=group)[array].values)
                np.testing.assert_array_equal(*values)
            pairs = np.array(taken["zarr-python"]) / np.array(taken["zarrs"])
            for clock, ratio in zip(("wall", "CPU"), pairs.T, strict=True):
                rows[f"{title}, zarr-python / zarrs, {clock}"] = {
                    "median": round(float(median(ratio)), 3),
                    "of": [round(float(ratio.min()), 3), round(float(ratio.max()), 3)],
                }
            for name, times in taken.items():
                each = np.median(times, axis=0) / given.fields * 1000
                rows[f"{title}, {name}, ms a field (wall, CPU)"] = [
                    round(float(x), 1) for x in each
                ]
    report("zarrs_stages", {**rows, "zarrs": version("zarrs"), "fields": given.fields}, before)


if __name__ == "__main__":
    main()
