"""Ingest against doing just its work: read the TIFFs, compress with the same codec, write.

    zarrloc simulate sim --fovs 512 && python benchmarks/ingest.py sim/raw

Both sides use as many processes, started beforehand, and take turns, so that a busy machine hits
them alike. Ingest is the whole call: listing, headers, labels, receipts, commit. Target: 0.75.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import tifffile
from machine import about, cpu_seconds, report, timed
from numcodecs import Blosc, blosc

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine import cluster
from zarrloc.engine.cluster import executor
from zarrloc.stages.ingest import ingest


def plain(folder: str, paths: Sequence[str]) -> int:
    """One shard without the engine: its fields read, compressed and written as one file."""
    blosc.use_threads = False
    codec = Blosc("lz4", 5, Blosc.BITSHUFFLE)
    coded = [codec.encode(tifffile.imread(path)) for path in paths]
    return Path(folder, Path(paths[0]).stem).write_bytes(b"".join(coded))


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--shard-fovs", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = about()
    paths = sorted(map(str, options.source.glob("*.tif")))
    step = options.shard_fovs
    shards = [paths[start : start + step] for start in range(0, len(paths), step)]
    run = RunConfig(cluster="local", workers=options.workers, dashboard=":0")
    engine_s, plain_s, engine_cpu, plain_cpu = [], [], [], []
    began = time.perf_counter()
    with (
        executor("local", run, workers=options.workers, threads=1, prefetch=2) as pool,
        ProcessPoolExecutor(options.workers, get_context("spawn")) as processes,
        mock.patch.object(cluster, "executor", return_value=nullcontext(pool)),
        tempfile.TemporaryDirectory() as folder,
    ):
        starting = timed(began)
        config = IngestConfig(shard_fovs=step)
        for turn in range(options.rounds + 1):
            store, other = Path(folder, f"{turn}.zarr"), Path(folder, f"{turn}")
            other.mkdir()
            cpu, start = cpu_seconds(), time.perf_counter()
            summary = ingest(options.source, store, config, run=run)
            engine_s.append(timed(start))
            engine_cpu.append(cpu_seconds() - cpu)
            cpu, start = cpu_seconds(), time.perf_counter()
            written = sum(processes.map(partial(plain, str(other)), shards))
            plain_s.append(timed(start))
            plain_cpu.append(cpu_seconds() - cpu)
            assert summary.exit_code == 0
            for made in (store, other):
                shutil.rmtree(made)
    # The first turn imports what is needed and reads the files into the page cache.
    engine, bare = sum(engine_s[1:]), sum(plain_s[1:])
    rows = {
        "fields": len(paths),
        "fields a second, ingest": round(options.rounds * len(paths) / engine, 1),
        "fields a second, plain": round(options.rounds * len(paths) / bare, 1),
        "ratio (target 0.75)": round(bare / engine, 3),
        "ratio, round by round": [
            round(b / e, 2) for b, e in zip(plain_s[1:], engine_s[1:], strict=True)
        ],
        "ratio of CPU time": round(sum(plain_cpu[1:]) / sum(engine_cpu[1:]), 3),
        "CPU ms a field, ingest": round(1e3 * sum(engine_cpu[1:]) / options.rounds / len(paths), 2),
        "CPU ms a field, plain": round(1e3 * sum(plain_cpu[1:]) / options.rounds / len(paths), 2),
        "MB a second stored, plain": round(options.rounds * written / bare / 1e6, 1),
        "seconds of a last round, first submit to last receipt": round(summary.wall_s, 2),
        "seconds to start workers": round(starting, 2),
        "workers": options.workers,
        "shard_fovs": step,
    }
    report("ingest", rows, before)


if __name__ == "__main__":
    main()
