"""Do labels of fields teach which cells show them? Simulated cells of known truth.

    python benchmarks/accuracy/mil.py [--seeds 3] [--threads 1]

A field has twelve cells of one protein, of which a share shows its label, one of seven plain
patterns, and the rest is plainly cytoplasmic. Heads are trained on classic features of the cells
and the labels of the fields, five folds by protein, and called out of fold: `fields` is macro-F1 of
the fields, `cells` that of the cells at 0.5 and `cells_ap` their mean average precision, both by
the truth of the cells, which no head saw. With `--pool none` a field is the mean of its cells.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).parents[1]))

from guard import cell

from zarrloc.config.train import HeadConfig
from zarrloc.pixels.classic import classic_features
from zarrloc.scoring.bags import Bags
from zarrloc.scoring.evaluation import out_of_fold, training_rows
from zarrloc.scoring.heads import train_heads
from zarrloc.scoring.metrics import Truth, counts, f1_of, macro

PROTEINS, FIELDS, CELLS, FOLDS = 70, 3, 12, 5
PLAIN = 2
LABELS = [kind for kind in range(8) if kind != PLAIN]
SHARES = (1 / 6, 1 / 2)
LEARN = HeadConfig(hidden=(64,), dropout=0.2, lr=2e-3, epochs=120, batch=504)

Array32 = npt.NDArray[np.float32]


def simulate(share: float, seed: int) -> tuple[Array32, npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Classic features `(field, cell, f)`, labels `(field, cell, label)`, proteins `(field,)`."""
    random = np.random.default_rng((seed, round(100 * share)))
    features, shows = [], np.zeros((PROTEINS * FIELDS, CELLS, len(LABELS)), bool)
    protein = np.repeat(np.arange(PROTEINS), FIELDS)
    bright = random.lognormal(np.log(300), 0.4, PROTEINS)
    for field, own in enumerate(protein):
        shows[field, : round(share * CELLS), own % len(LABELS)] = True
        for at in range(CELLS):
            label = LABELS[int(shows[field, at].argmax())] if shows[field, at].any() else PLAIN
            counts_ = random.poisson(100 + cell(label, bright[own], random)) - 100.0
            image = np.clip(counts_, 0, None).round().astype(np.uint16)
            features.append(classic_features(image, np.ones(image.shape[1:], bool)))
    found = np.nan_to_num(np.stack(features)).astype(np.float32)
    return found.reshape(len(protein), CELLS, -1), shows, protein


def judge(truth: npt.NDArray[np.bool_], probability: Array32) -> float:
    """Macro-F1 at 0.5 of `(n, label)`."""
    known = Truth(truth, np.ones_like(truth))
    return float(macro(f1_of(counts(known, probability >= 0.5).sum(0))))


def run(
    x: Array32, shows: npt.NDArray[np.bool_], protein: npt.NDArray[Any], how: str, seed: int
) -> dict[str, float]:
    """Train one way, and score fields and cells."""
    fields, f = len(x), x.shape[2]
    fold = (np.random.default_rng(seed).permutation(PROTEINS)[protein] % FOLDS).astype(np.int8)
    field, flat = np.repeat(np.arange(fields), CELLS), x.reshape(-1, f)
    positive = shows.any(1)
    truth = Truth(positive, np.ones_like(positive))
    own = training_rows(fold, FOLDS)
    config = LEARN.model_copy(update={"seed": seed})
    if how in ("mean", "attention"):
        heads = train_heads(flat, truth, own, config, bags=Bags(field, how))  # type: ignore[arg-type]
    else:
        heads = train_heads(flat, truth[field], own[:, field], config)
    of_fields = out_of_fold(heads.field_probability(flat, field, fields), fold)
    of_cells = out_of_fold(heads.probability(flat), fold[field])
    cells = shows.reshape(-1, len(LABELS))
    precision = [average_precision_score(t, p) for t, p in zip(cells.T, of_cells.T, strict=True)]
    return {
        "fields": judge(positive, of_fields),
        "cells": judge(cells, of_cells),
        "cells_ap": float(np.mean(precision)),
    }


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mil.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: list[dict[str, Any]] = []
    for share in SHARES:
        for seed in range(given.seeds):
            data = simulate(share, seed)
            for how in ("none", "mean", "attention"):
                began = time.process_time()
                row = {"share": round(share, 3), "seed": seed, "pool": how}
                row |= {key: round(value, 4) for key, value in run(*data, how, seed).items()}
                found.append(row | {"cpu_seconds": round(time.process_time() - began, 1)})
                print(found[-1], flush=True)
                given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
