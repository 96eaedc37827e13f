"""What do embeddings know of localization? Intensity, a random ViT, a trained one; all scores.

    python benchmarks/accuracy/pretrain.py --folder trained
    python benchmarks/accuracy/table.py trained/run --folder table [--size 300] [--window 96]

The backbone is one that `pretrain.py`, or `objectives.py`, trained on other simulated proteins
(seed 0). Heads are what `zarrloc train` makes where nothing is said. Here are 1,000 new fields of
500 proteins (seed 1): five folds grouped by protein, predictions pooled, macro-F1 over 17 labels.
Head and probe call from the threshold that is best on the other folds, neighbours from 0.5 as in
the paper, for every k (the best of several would be chosen on the rows that are scored); a
protein's own rows never vote. `intensity` is logistic regression on intensity statistics, and there
is a row of classic features. Cells are those of `watershed`, with their field's labels. `--window`
is what `objectives.py` was given: images are embedded at the detail that was trained on.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.simulate import simulate
from zarrloc.stages.embed import embed
from zarrloc.stages.evaluate import evaluate
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.stages.split import split
from zarrloc.stages.train import train

RUN = RunConfig(dashboard=":0")
PIXEL_UM, VIEW_PX = 0.2063, 48  # of the store, and of the views that were trained on
CELL_UM = 33.008
KS = (1, 3, 5, 10, 20)
SHOWN = (1, 5, 20)


def make_store(folder: Path, proteins: int, size: int, cells: bool) -> Path:
    """Simulated fields, ingested, segmented, split; what is there already is not made again."""
    store = folder / "table.zarr"
    if not (folder / "sim").exists():
        config = SimulateConfig(proteins=proteins, fovs_per_protein=2, size=size, seed=1)
        simulate(folder / "sim", config)
    labels = folder / "sim" / "labels"
    ingest(
        folder / "sim" / "raw",
        store,
        IngestConfig(pixel_size_um=PIXEL_UM),
        labels=labels / "opencell-localization-annotations.csv",
        cell_lines=labels / "all-public-targets.csv",
        run=RUN,
    )
    if cells:
        segment(store, SegmentConfig(model="watershed"), "ws", crop_um=CELL_UM, run=RUN)
    split(store, SplitConfig(), "honest")
    return store


def embeddings(backbone: str, window: int) -> dict[str, EmbedConfig]:
    """By name: random and trained, of fields and of cells, at one resolution."""
    fields = partial(EmbedConfig, backbone=backbone, size=f"um:{window * PIXEL_UM / VIEW_PX:.4f}")
    cells = partial(fields, level="cell", cells="ws", crop_um=CELL_UM)
    return {
        "fields, random ViT-S/16": EmbedConfig(
            backbone="dino-vits16", weights="random:0", size="224"
        ),
        "fields, same ViT, random": fields(weights="random:0"),
        "fields, trained ViT": fields(),
        "cells, same ViT, random": cells(weights="random:0"),
        "cells, trained ViT": cells(),
    }


def scores(store: Path, name: str) -> dict[str, Any]:
    """Macro-F1 of an embedding by head, probe and neighbours, and of the baselines."""
    learn = TrainConfig(embedding=name, split="honest")
    train(store, learn, name)
    head = evaluate(store, EvaluateConfig(head=name, probe=True, threshold="tuned"))
    votes = evaluate(
        store,
        EvaluateConfig(
            embedding=name, knn=KS, exclude_same="protein", baselines=False, bootstrap=0
        ),
    )
    knn = {k: row["macro_f1"] for k, row in votes["knn"].items()}
    return {
        "rows": votes["rows"],
        "head": head["pooled"]["macro_f1"],
        "head_ci": head["pooled"]["macro_f1_ci"],
        "head_auroc": head["pooled"]["macro_auroc"],
        "probe": head["probe"]["pooled"]["macro_f1"],
        "knn": knn,
        "baselines": {
            title: scored["pooled"]["macro_f1"] for title, scored in head["baselines"].items()
        },
    }


def lines(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    text = [
        "| rows, features | head (95 %) | AUROC | linear probe | kNN, "
        + ", ".join(f"k = {k}" for k in SHOWN)
        + " |",
        "|---|---|---|---|---|",
    ]
    for level in ("fields", "cells"):
        mine = {title: row for title, row in rows.items() if title.startswith(level)}
        if not mine:
            continue
        for name, probe in next(iter(mine.values()))["baselines"].items():
            if name != "sibling look-up":
                text.append(f"| {level}, {name} | | | {probe:.3f} | |")
        for title, row in mine.items():
            low, high = row["head_ci"]
            text.append(
                f"| {title} | {row['head']:.3f} ({low:.3f} to {high:.3f}) | "
                f"{row['head_auroc']:.3f} | {row['probe']:.3f} | "
                + ", ".join(f"{row['knn'][str(k)]:.3f}" for k in SHOWN)
                + " |"
            )
    return text


def main() -> None:
    """Make, embed, score, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("backbone", type=Path, help="folder that `zarrloc pretrain` wrote")
    parser.add_argument("--proteins", type=int, default=500)
    parser.add_argument("--size", type=int, default=600, help="side of a field, px")
    parser.add_argument("--window", type=int, default=160, help="px of a cell in training")
    parser.add_argument("--folder", type=Path, required=True, help="data; used again if there")
    parser.add_argument("--no-cells", action="store_true", help="fields alone: a third of the time")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accuracy.json"))
    given = parser.parse_args()
    store = make_store(given.folder, given.proteins, given.size, not given.no_cells)
    for level in ("fov", "cell")[: 1 if given.no_cells else 2]:
        cells = {"level": level, "cells": "ws", "crop_um": CELL_UM} if level == "cell" else {}
        embed(store, EmbedConfig(backbone="classic", **cells), f"classic-{level}", run=RUN)
    rows = {}
    for title, config in embeddings(str(given.backbone), given.window).items():
        if given.no_cells and title.startswith("cells"):
            continue
        name = title.replace(", ", "-").replace(" ", "-").replace("/", "")
        embed(store, config, name, run=RUN)
        rows[title] = scores(store, name)
        print(title, json.dumps(rows[title]), flush=True)
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()
