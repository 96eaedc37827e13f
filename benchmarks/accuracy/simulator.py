"""Is the simulated data neither trivial nor hopeless? Macro-F1 of feature sets of known worth.

    python benchmarks/accuracy/simulator.py --proteins 500 --fovs-per-protein 2

Every field of a protein is positive for the protein's grade 3 labels. A label's threshold is the
one that is best for held-out proteins inside the training fields. Scores are of predictions pooled
over five folds, which keep a protein's fields together unless the split is called `image`.

| feature set | what it may know | expected |
|---|---|---|
| intensity | mean, sd and percentiles of both channels | < 0.5 |
| nucleus | texture of the nucleus channel | chance |
| geometry | the protein channel within the true masks | >= 0.9 |
| texture | texture of both channels, no masks: what an embedding sees | image - protein >= 0.05 |
"""

import argparse
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from features import FEATURES
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_recall_curve
from sklearn.model_selection import GroupKFold, KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate import LABELS
from zarrloc.simulate.dataset import Target, plan, planned_fov

Array = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
SAVE_EVERY = 100


def field_features(job: tuple[Target, int, SimulateConfig]) -> dict[str, Any]:
    """All feature sets of one field, its protein, its labels and its stray cells."""
    target, field, config = job
    fov = planned_fov(target, field, config)
    return {
        "protein": target.number,
        "positive": [target.grades.get(label) == 3 for label in LABELS],
        "cells": len(fov.grades),
        "stray": sum(grades != target.grades for grades in fov.grades.values()),
        **{name: function(fov) for name, function in FEATURES.items()},
    }


def logistic() -> Any:
    """Logistic regression on standardised features, one a label."""
    one = LogisticRegression(max_iter=500, C=0.1, class_weight="balanced")
    return make_pipeline(StandardScaler(), OneVsRestClassifier(one))


def forest() -> Any:
    """Extremely randomised trees, all labels at once."""
    return ExtraTreesClassifier(150, max_features=0.3, random_state=0)


def probabilities(model: Any, features: Array) -> Array:
    """`(field, label)`, whichever way the model gives them."""
    given = model.predict_proba(features)
    return np.stack([p[:, 1] for p in given], axis=1) if isinstance(given, list) else given


def macro_f1(
    features: Array,
    truth: Truth,
    proteins: npt.NDArray[np.int64],
    model: Callable[[], Any],
    by_image: bool = False,
) -> tuple[float, Array]:
    """Macro-F1 and the F1 of each label, of predictions pooled over the outer folds."""
    split = KFold(5, shuffle=True, random_state=0) if by_image else GroupKFold(5)
    predicted = np.zeros_like(truth)
    for train, test in split.split(features, groups=proteins):
        known = np.zeros((len(train), truth.shape[1]))
        for fit, held in GroupKFold(3).split(train, groups=proteins[train]):
            fitted = model().fit(features[train[fit]], truth[train[fit]])
            known[held] = probabilities(fitted, features[train[held]])
        scores = probabilities(model().fit(features[train], truth[train]), features[test])
        for label in range(truth.shape[1]):
            threshold = best_threshold(truth[train, label], known[:, label])
            predicted[test, label] = scores[:, label] >= threshold
    each = f1_score(truth, predicted, average=None, zero_division=0)
    return float(each.mean()), each


def best_threshold(target: npt.NDArray[np.bool_], scores: Array) -> float:
    """The threshold of the greatest F1."""
    precision, recall, thresholds = precision_recall_curve(target, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    return float(thresholds[np.argmax(f1[:-1])])


def main() -> None:
    """Simulate, score, print the table, save it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proteins", type=int, default=500)
    parser.add_argument("--fovs-per-protein", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/simulator.json"))
    parser.add_argument(
        "--cache", type=Path, help="keep features in this .npz file, and go on from it"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the pool: one compute thread a process
    table = load(arguments)
    truth, proteins = table["positive"].astype(bool), table["protein"]
    shuffled = truth[np.random.default_rng(0).permutation(len(truth))]
    runs = [
        ("intensity", logistic, truth, False),
        ("nucleus", logistic, truth, False),
        ("nucleus, labels shuffled", logistic, shuffled, False),
        ("geometry", forest, truth, False),
        ("geometry", logistic, truth, False),
        ("texture", forest, truth, False),
        ("texture", forest, truth, True),
    ]
    rows = []
    print(
        f"{len(truth)} fields of {len(set(proteins))} proteins; "
        f"{table['stray'].sum() / table['cells'].sum():.1%} of cells stray"
    )
    for name, model, labels, by_image in runs:
        score, each = macro_f1(table[name.split(",")[0]], labels, proteins, model, by_image)
        split = "image" if by_image else "protein"
        rows.append(
            {
                "features": name,
                "model": model.__name__,
                "split": split,
                "macro_f1": round(score, 4),
                "f1": {label: round(float(f), 3) for label, f in zip(LABELS, each, strict=True)},
            }
        )
        print(
            f"{name:26} {model.__name__:10} {split:8} {score:.3f}   "
            + " ".join(f"{label[:6]}:{f:.2f}" for label, f in zip(LABELS, each, strict=True)),
            flush=True,
        )
    arguments.out.write_text(
        json.dumps(
            {
                "proteins": arguments.proteins,
                "fovs_per_protein": arguments.fovs_per_protein,
                "seed": arguments.seed,
                "stray_cells": round(float(table["stray"].sum() / table["cells"].sum()), 4),
                "rows": rows,
            },
            indent=1,
        )
        + "\n"
    )


def load(arguments: argparse.Namespace) -> dict[str, Any]:
    """Features of all fields over a pool of processes; those in the cache are not done again."""
    config = SimulateConfig(
        proteins=arguments.proteins,
        fovs_per_protein=arguments.fovs_per_protein,
        seed=arguments.seed,
    )
    jobs = [(target, field, config) for target in plan(config) for field in range(target.fovs)]
    cache: Path | None = arguments.cache
    table: dict[str, Any] = {}
    if cache and cache.exists():
        table = dict(np.load(cache))
    done = len(table.get("protein", ()))
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for start in range(done, len(jobs), SAVE_EVERY):
            fields = list(pool.map(field_features, jobs[start : start + SAVE_EVERY], chunksize=4))
            for name in fields[0]:
                new = np.array([field[name] for field in fields])
                table[name] = np.concatenate([table[name], new]) if name in table else new
            if cache:
                np.savez(cache, allow_pickle=False, **table)
    return table


if __name__ == "__main__":
    main()
