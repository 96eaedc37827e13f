"""Exports of a million cells: time, size of the file, and memory of the process at its peak.

    python benchmarks/export.py --rows 1000000 --features 64

A process of its own for each format, on a made-up store: cells of fields, with measurements and
an embedding. Target: memory does not grow with the embedding's width.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import about, report

from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.store import columns, document
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.digest import row_digests
from zarrloc.store.location import Location
from zarrloc.store.template import Variable

CELLS_A_FIELD = 100
FORMATS = {"csv": "o.csv", "parquet": "o.parquet", "anndata": "o.h5ad", "anndata zarr": "o.zarr"}


def write(location: Location, path: str, arrays: dict[str, Any], attrs: StageAttrs) -> None:
    """One group, with what a reader needs."""
    given = {
        name: (Variable.like(dims, values, grid_chunk=8192 if name == "embedding" else 0), values)
        for name, (dims, values) in arrays.items()
    }
    attributes = {"zarrloc": attrs.model_dump(), "pixel_size_um": 0.2, "shard_fovs": 64}
    columns.write_group(location, path, given, coordinates="fov", **attributes)


def make(store: Path, rows: int, features: int) -> None:
    """The store."""
    location = Location.of(store)
    document.ensure_root(location)
    rng = np.random.default_rng(0)
    fields = -(-rows // CELLS_A_FIELD)
    names = np.array([f"FID{i:08d}" for i in range(fields)])
    fovs: dict[str, Any] = {
        "fov": (("fov",), names),
        "protein": (("fov",), np.array([f"P{i // 5:05d}" for i in range(fields)])),
        "channel": (("channel",), np.array(["nucleus", "protein"])),
        "error": (("fov",), np.full(fields, "")),
    }
    write(location, "fovs", fovs, StageAttrs.of("ingest", {}, {}))
    index = np.arange(rows) // CELLS_A_FIELD
    cells: dict[str, Any] = {
        "fov_index": (("cell",), index),
        "mask_label": (("cell",), (np.arange(rows) % CELLS_A_FIELD + 1).astype(np.uint32)),
        "area_px": (("cell",), rng.integers(100, 9999, rows).astype(np.int32)),
        "centroid_y": (("cell",), rng.uniform(0, 600, rows)),
        "centroid_x": (("cell",), rng.uniform(0, 600, rows)),
        "intensity_mean": (("cell", "channel"), rng.random((rows, 2), np.float32)),
    }
    write(location, "cells/c", cells, StageAttrs.of("segment", {}, {}))
    x = rng.random((rows, features), np.float32)
    embedding: dict[str, Any] = {
        "embedding": (("cell", "feature"), x),
        "error": (("cell",), np.full(rows, "")),
        ROW_DIGEST: (("cell",), row_digests(x)),
    }
    config = {"level": "cell", "cells": "c"}
    attrs = StageAttrs.of("embed", config, {"cells/c": ""})
    write(location, "embeddings/e", embedding, attrs)


def once(store: Path, out: Path, to: str) -> dict[str, Any]:
    """One export, in this process."""
    import zarrloc

    began = time.monotonic()
    result = zarrloc.export(store, "embeddings/e", out, to, umap="no")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": time.monotonic() - began, "MB": result.bytes / 1e6, "peak_MB": peak}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--one", nargs=3, help="STORE OUT FORMAT; used by this script itself")
    options = parser.parse_args()
    if options.one:
        store, out, to = options.one
        print(json.dumps(once(Path(store), Path(out), to)))
        return
    before, rows = about(), {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "s.zarr"
        make(store, options.rows, options.features)
        for name, file in FORMATS.items():
            words = [str(store), str(Path(folder) / file), name.split()[0]]
            run = subprocess.run(
                [sys.executable, __file__, "--one", *words],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            found = json.loads(run.stdout.splitlines()[-1])
            rows[name] = {key: round(value, 1) for key, value in found.items()}
            rows[name]["rows"], rows[name]["features"] = options.rows, options.features
    report("export", rows, before)


if __name__ == "__main__":
    main()
