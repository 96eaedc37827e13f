"""Are our masks those of Cellpose 3.1's own `eval`? Asked of the real one.

    python benchmarks/cellpose31.py ENV [--shared ../shared] [--settings NAME ...]

Cellpose 3.1 wants an older numpy than zarrloc: the first run makes an environment of its own in
the folder ENV, with `pip install cellpose==3.1.1.3`. That writes the reference masks (kept in
ENV/masks) of the six real fields with the given weights, then zarrloc's are compared with them.
Found is an object of the reference with an IoU of 0.9 or more; added is one of ours without.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import imread

CELLPOSE = "3.1.1.3"
SETTINGS: dict[str, dict[str, Any]] = {
    "nucleus, 60 px": {"channels": ("nucleus",), "diameter": 60.0},
    "protein and nucleus, 60 px": {"channels": ("protein", "nucleus"), "diameter": 60.0},
    "nucleus, auto": {"channels": ("nucleus",), "diameter": "auto"},
    "protein and nucleus, auto": {"channels": ("protein", "nucleus"), "diameter": "auto"},
}


def environment(folder: Path) -> Path:
    """The Python of an environment with Cellpose 3.1 and the torch that runs here."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        torch = version("torch").partition("+")[0]
        wanted = [f"cellpose=={CELLPOSE}", f"torch=={torch}"]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


def reference(shared: Path, masks: Path, names: list[str]) -> None:
    """Runs under Cellpose 3.1: masks of every field for each of the settings, as files."""
    import torch
    from cellpose import models

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    weights = shared / "weights"
    model = models.CellposeModel(pretrained_model=str(weights / "cellpose_cpnet_v1_scellseg.pt"))
    sizes = models.SizeModel(model, pretrained_size=str(weights / "size_compute.npy"))
    for name in names:
        for path in sorted((shared / "opencell").glob("*.tif")):
            out = masks / name / f"{path.stem}.npz"
            if out.exists():
                continue
            image = imread(path)  # nucleus, protein
            diameter = SETTINGS[name]["diameter"]
            if SETTINGS[name]["channels"] == ("nucleus",):
                image, given = image[0], {"channels": [0, 0]}
            else:
                given = {"channels": [2, 1], "channel_axis": 0}
            begun = time.perf_counter()
            if diameter == "auto":
                diameter, _ = sizes.eval(image, **given)
            found = model.eval(image, diameter=diameter, **given)[0]
            seconds = time.perf_counter() - begun
            out.parent.mkdir(parents=True, exist_ok=True)
            np.savez(out, masks=found, diameter=diameter, seconds=seconds)
            print(f"3.1: {name}: {path.stem}: {found.max()} objects, {seconds:.0f} s", flush=True)


def compare(shared: Path, masks: Path, name: str) -> dict[str, Any]:
    """Objects of the reference, how many of them were found, and how many of ours were added."""
    from zarrloc.config.segment import SegmentConfig
    from zarrloc.segmenters import load, segment_block

    config = SegmentConfig(
        model=str(shared / "weights" / "cellpose_cpnet_v1_scellseg.pt"),
        size_model=str(shared / "weights" / "size_compute.npy"),
        **SETTINGS[name],
    )
    paths = sorted((shared / "opencell").glob("*.tif"))
    ours = segment_block(load(config), [imread(path) for path in paths], ("nucleus", "protein"))
    rows = []
    for path, mask in zip(paths, ours, strict=True):
        with np.load(masks / name / f"{path.stem}.npz") as saved:
            rows.append(match(saved["masks"].astype(np.int64), mask.astype(np.int64)))
    total = {key: int(sum(row[key] for row in rows)) for key in rows[0]}
    return total | {"share": round(total["found"] / max(1, total["objects"]), 4)}


def match(true: np.ndarray, ours: np.ndarray) -> dict[str, int]:
    """Counts of one field. An IoU over 0.5 pairs an object with one other at most."""
    count = int(ours.max()) + 1
    overlap = np.bincount((true * count + ours).ravel(), minlength=(true.max() + 1) * count)
    overlap = overlap.reshape(-1, count)
    union = overlap.sum(1, keepdims=True) + overlap.sum(0) - overlap
    found = int(((overlap / np.maximum(union, 1))[1:, 1:] >= 0.9).sum())
    return {
        "objects": int(true.max()),
        "found": found,
        "added": count - 1 - found,
        "pixels": true.size,
        "pixels that differ": int(((true > 0) != (ours > 0)).sum()),
    }


def main() -> None:
    """Make the environment, run the reference in it, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", type=Path, help="folder for the environment and its masks")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "cellpose31.json"
    )
    args = parser.parse_args()
    masks = args.env / "masks"
    if args.reference:
        reference(args.shared, masks, args.settings)
        return
    again = [__file__, args.env, "--shared", args.shared, "--reference", "--settings"]
    subprocess.run([environment(args.env), *again, *args.settings], check=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for name in args.settings:
        rows[name] = compare(args.shared, masks, name)
        print(f"{name:30}", "  ".join(f"{k} {v}" for k, v in rows[name].items()), flush=True)
        args.out.write_text(json.dumps({"cellpose": CELLPOSE, "rows": rows}, indent=2) + "\n")
    sys.exit(any(row["share"] < 0.99 or row["added"] for row in rows.values()))


if __name__ == "__main__":
    main()
