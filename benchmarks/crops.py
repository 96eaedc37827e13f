"""Crops that are never stored: what they would take on disk, what the store takes instead.

    python benchmarks/crops.py STORE CELLS

STORE has a segmentation and cell table CELLS. The paper's crop is 512 x 512 px, every channel in
the field's dtype; its 157,504 of them are the last line.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from zarrloc.groups.crops import Crops
from zarrloc.store.columns import array_of
from zarrloc.store.location import Location
from zarrloc.store.read import need

PAPER_CELLS, PAPER_PX, PAPER_BYTES = 157_504, 512, 2 * 2


def main(store: str, cells: str) -> None:
    """Measure, print and save."""
    location = Location.of(store)
    image = array_of(need(location, "fovs", "ingest"), "image")
    crops = Crops(store, cells)
    start = time.perf_counter()
    read = sum(len(batch.rows) for batch in crops.batches(64, all_cells=True))
    seconds = time.perf_counter() - start
    crop_bytes = PAPER_PX**2 * image.shape[1] * np.dtype(image.dtype).itemsize
    found = {
        "cells": len(crops),
        "stored_crops_MB": len(crops) * crop_bytes / 1e6,
        "masks_and_table_MB": sum(
            _bytes(location, f"{g}/{cells}") for g in ("segmentations", "cells")
        )
        / 1e6,
        "crops_read_per_s": read / seconds,
        "paper_crops_GB": PAPER_CELLS * PAPER_PX**2 * PAPER_BYTES / 1e9,
    }
    for name, value in found.items():
        print(f"{name:22} {value:12.1f}")
    results = Path(__file__).parent / "results"
    (results / "crops.json").write_text(json.dumps(found, indent=2) + "\n")


def _bytes(location: Location, group: str) -> int:
    assert location.path is not None, "sizes are read from a local store"
    return sum(file.stat().st_size for file in (location.path / group).rglob("*") if file.is_file())


if __name__ == "__main__":
    main(*sys.argv[1:3])
