"""`watershed` on fields of nuclei that unlike microscopes take: average precision by scene.

    python benchmarks/watershed.py [--seeds 11 12] [--shared ../shared]

Objects of all fields of a scene count as of one (hits / (hits + extra + missed)). Sizes and
brightness are unknown to the segmenter. The real image lies in `shared`, where it is at hand.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from tifffile import imread

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose.metrics import average_precision

# isort: on
from zarrloc.segmenters.objects import numbered
from zarrloc.segmenters.watershed import segment_nuclei
from zarrloc.simulate import SCENES, simulate_nuclei


def score(fields: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """AP@0.5 over the objects of all fields, what made it, and seconds a field."""
    began = time.perf_counter()
    found = [segment_nuclei(image.astype(np.float32)).astype(np.int32) for image, _ in fields]
    took = time.perf_counter() - began
    true = [numbered(truth).astype(np.int32) for _, truth in fields]
    with np.errstate(invalid="ignore"):  # an empty field has no precision
        _, *counts = average_precision(true, found, [0.5])
    hits, extra, missed = (int(count.sum()) for count in counts)
    return {
        "AP@0.5": round(hits / max(hits + extra + missed, 1), 3),
        "true": hits + missed,
        "extra": extra,
        "missed": missed,
        "seconds": round(took / len(fields), 2),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "watershed.json"
    )
    args = parser.parse_args()
    rows = {
        name: score([simulate_nuclei(scene, seed) for seed in args.seeds])
        for name, scene in SCENES.items()
    }
    real = args.shared / "nuclei-truth" / "stardist_dsb2018_{}2d.tif"
    if real.parent.is_dir():
        rows["real nuclei"] = score([tuple(imread(str(real).format(k)) for k in ("img", "mask"))])
    for name, row in rows.items():
        print(f"{name:18}", "  ".join(f"{key} {value}" for key, value in row.items()))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"seeds": args.seeds, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
