"""Does DINO learn where proteins are? A tiny ViT from scratch on simulated cells, on a CPU.

    python benchmarks/accuracy/pretrain.py --out benchmarks/results/pretrain.json

600 simulated fields are ingested, their cells taken from the simulator's own masks, and a ViT is
trained on them without a label. Scores are leave-one-out kNN macro-F1 over all cells, neighbours
of the cell's own protein left out; every cell has its protein's labels.

| what | expected |
|---|---|
| trained less the same ViT with random weights | >= 0.10 |
| trained less intensity statistics | > 0 |
| minutes, two cores | <= 20 |
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.groups.receipts import ROW_DIGEST
from zarrloc.pixels import measure
from zarrloc.pretraining.data import Image
from zarrloc.pretraining.guard import knn_macro_f1
from zarrloc.pretraining.samples import Data, open_data
from zarrloc.simulate import simulate
from zarrloc.stages.ingest import ingest
from zarrloc.stages.pretrain import pretrain
from zarrloc.store.columns import read_column, write_group
from zarrloc.store.digest import row_digests
from zarrloc.store.location import Location
from zarrloc.store.template import Variable

PIXEL_UM = 0.2063
WINDOW_PX = 160
LEAST_AREA_PX = 5000  # half a usual cell: less of one shows no pattern
SETTINGS: dict[str, Any] = {
    "arch": "vit_tiny_patch16",
    "arch_options": ("patch_size=8", "embed_dim=96", "depth=3", "num_heads=3"),
    "level": "cell",
    "crop_um": WINDOW_PX * PIXEL_UM,
    "batch": 64,
    "steps": 2800,
    "learning_rate": 6e-3,
    "momentum": 0.98,
    "final_weight_decay": 0.1,
    "drop_path": 0.0,
    "prototypes": 256,
    "head_hidden": 192,
    "bottleneck": 64,
    "size": 48,
    "local_size": 24,
    "local_views": 2,
    "local_scale": (0.2, 0.5),
    "jitter": 0.3,
    "guard_epochs": 4,
    "guard_samples": 100_000,
    "cache": "device",
    "device": "cpu",
    "log_steps": 50,
}


def make_store(folder: Path, fields: int, seed: int) -> Path:
    """Simulate, ingest, and write the true masks as a segmentation with its cell table."""
    store = folder / "oc.zarr"
    if store.exists():
        return store
    simulate(folder / "sim", SimulateConfig(fovs=fields, size=300, seed=seed))
    ingest(
        folder / "sim" / "raw",
        store,
        IngestConfig(pixel_size_um=PIXEL_UM),
        labels=folder / "sim" / "labels" / "opencell-localization-annotations.csv",
        cell_lines=folder / "sim" / "labels" / "all-public-targets.csv",
        run=RunConfig(cluster="serial"),
    )
    location = Location.of(store)
    fovs = location.group("fovs", mode="r")
    images, background = fovs["image"], read_column(fovs, "background")
    names = [Path(name).stem for name in read_column(fovs, "source")]
    masks = [tifffile.imread(folder / "sim" / "truth" / f"{name}_cells.tif") for name in names]
    tables = [
        measure.cells(np.asarray(images[row]), mask, background[row], WINDOW_PX)
        for row, mask in enumerate(masks)
    ]
    table = {key: np.concatenate([one[key] for one in tables]) for key in tables[0]}
    table["fov_index"] = np.repeat(np.arange(fields), [len(one["mask_label"]) for one in tables])
    table["keep"] = table["area_px"] > LEAST_AREA_PX
    mask = np.stack(masks)
    digests = row_digests(mask)
    write_group(
        location,
        "segmentations/cells",
        {
            "mask": (Variable.like(("fov", "y", "x"), mask, grid_chunk=1), mask),
            ROW_DIGEST: (Variable.like(("fov",), digests), digests),
        },
    )
    columns = {
        key: (Variable.like(measure.COLUMNS[key].dims, table[key]), table[key])
        for key in measure.COLUMNS
    }
    write_group(location, "cells/cells", columns)
    return store


def intensity(images: Image) -> npt.NDArray[np.float32]:
    """Mean, sd and percentiles of each channel inside the cell and their logs, standardised."""
    rows = []
    for image in images.astype(np.float64):
        inside = image[:, image.any(0)]
        values = [inside.mean(1), inside.std(1), *np.percentile(inside, [5, 25, 50, 75, 95, 99], 1)]
        rows.append(np.concatenate([*values, *np.log1p(values)]))
    table = np.array(rows)
    return ((table - table.mean(0)) / (table.std(0) + 1e-9)).astype(np.float32)


def intensity_f1(data: Data) -> float | None:
    """kNN macro-F1 of intensity statistics."""
    source = data.source
    order = np.argsort(source.shard, kind="stable")
    parts = [
        intensity(source.load(order[source.shard[order] == shard]))
        for shard in np.unique(source.shard)
    ]
    return knn_macro_f1(np.concatenate(parts), data.grade[order], data.protein[order])


def main() -> None:
    """Run the benchmark; print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fields", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"])
    parser.add_argument("--folder", type=Path, help="keep data and run here, and use them again")
    parser.add_argument("--out", type=Path, help="JSON of the result")
    given = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        store = make_store(folder, given.fields, given.seed)
        config = PretrainConfig.of({**SETTINGS, "seed": given.seed, "steps": given.steps})
        data = open_data(Location.of(store), config)
        by_intensity = intensity_f1(data)
        pretrain(store, folder / "run", config)
        lineage = json.loads((folder / "run" / "backbone.json").read_text())["lineage"]
    checks = [row["knn_macro_f1"] for row in lineage["guard"]]
    result = {
        "fields": given.fields,
        "cells": len(data.protein),
        "proteins": len(np.unique(data.protein)),
        "random_weights": checks[0],
        "intensity": by_intensity,
        "trained": checks[-1],
        "gain_over_random": checks[-1] - checks[0],
        "minutes": (time.perf_counter() - began) / 60,
        "cpu_minutes": time.process_time() / 60,
        "checks": lineage["guard"],
        "settings": {**SETTINGS, "seed": given.seed, "steps": given.steps},
    }
    result["met"] = bool(result["gain_over_random"] >= 0.1 and checks[-1] > (by_intensity or 0))
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
