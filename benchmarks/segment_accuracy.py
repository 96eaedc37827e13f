"""How well masks match the truth: average precision by cellpose's own metric.

    python benchmarks/segment_accuracy.py [--fovs 200] [--shared ../shared]

- `watershed`, which needs no weights, on simulated fields: nuclei and cells. Objects of all
  fields count as of one (hits / (hits + extra + missed)); cells are nuclei grown into the protein.
- Cellpose 1 to 3 weights on a real nuclei image with instance truth, where it is at hand.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tifffile import imread

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose.metrics import average_precision

# isort: on
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.segmenters import load, segment_block
from zarrloc.simulate import simulate

IOU = [0.5, 0.75, 0.9]
ROLES = ("nucleus", "protein")


def score(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """AP at each IoU over the objects of all fields, and their number."""
    true, found = zip(*pairs, strict=True)
    _, hits, extra, missed = average_precision(
        [mask.astype(np.int32) for mask in true], [mask.astype(np.int32) for mask in found], IOU
    )
    ap = hits.sum(0) / (hits.sum(0) + extra.sum(0) + missed.sum(0))
    scores = {f"AP@{iou}": round(float(value), 4) for iou, value in zip(IOU, ap, strict=True)}
    return scores | {"objects": int((hits + missed)[:, 0].sum()), "fields": len(true)}


def watershed(folder: Path) -> dict[str, dict[str, float]]:
    """Nuclei and cells of every simulated field of `folder`."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"nuclei": [], "cells": []}
    segmenters = {
        "nuclei": load(SegmentConfig(model="watershed", grow="none")),
        "cells": load(SegmentConfig(model="watershed")),
    }
    for path in sorted((folder / "raw").glob("*.tif")):
        image = imread(path)
        for kind, segmenter in segmenters.items():
            (found,) = segment_block(segmenter, [image], ROLES)
            pairs[kind].append((imread(folder / "truth" / f"{path.stem}_{kind}.tif"), found))
    return {f"watershed, simulated {kind}": score(pairs[kind]) for kind in pairs}


def cellpose(shared: Path) -> dict[str, dict[str, float]]:
    """The given weights on the real nuclei image, with the diameter given in three ways."""
    image = imread(shared / "nuclei-truth" / "stardist_dsb2018_img2d.tif")[None]
    truth = imread(shared / "nuclei-truth" / "stardist_dsb2018_mask2d.tif")
    median = float(np.median(np.sqrt(np.bincount(truth.ravel())[1:]) * 2 / np.sqrt(np.pi)))
    rows = {}
    for diameter in ("auto", round(median, 1)):
        config = SegmentConfig(
            model=str(shared / "weights" / "cellpose_cpnet_v1_scellseg.pt"),
            size_model=str(shared / "weights" / "size_compute.npy"),
            channels=("nucleus",),
            diameter=diameter,
        )
        (found,) = segment_block(load(config), [image], ("nucleus",))
        rows[f"cellpose weights, nuclei-truth, diameter {diameter}"] = score([(truth, found)])
    return rows


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fovs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "segment_accuracy.json"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulate(folder, SimulateConfig(fovs=args.fovs, seed=args.seed, workers=1))
        rows = watershed(Path(folder))
    if (args.shared / "nuclei-truth").is_dir():
        rows |= cellpose(args.shared)
    for name, row in rows.items():
        print(f"{name:55}", "  ".join(f"{key} {value}" for key, value in row.items()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"seed": args.seed, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
