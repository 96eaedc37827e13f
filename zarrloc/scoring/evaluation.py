"""The protocols: folds and a test set for heads, leave-one-out for neighbours.

Pure functions of arrays; the dicts they return are what `--json` prints.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zarrloc.scoring.knn import Neighbours, vote
from zarrloc.scoring.metrics import (
    Scores,
    Truth,
    best_thresholds,
    bootstrap_f1,
    called_of,
    counts,
    interval,
    macro,
    score,
)

Bools = npt.NDArray[np.bool_]
Array32 = npt.NDArray[np.float32]


def out_of_fold(probability: Array32, fold: npt.NDArray[np.int8]) -> Array32:
    """What each row gets from heads that did not see it: `(fold, n, label)` -> `(n, label)`.

    A row of a fold gets that fold's head, a test row (-1) the mean of all heads.
    """
    own = probability[np.maximum(fold, 0), np.arange(len(fold))]
    return np.where(fold[:, None] >= 0, own, probability.mean(axis=0)).astype(np.float32)


def training_rows(fold: npt.NDArray[np.int8], folds: int) -> Bools:
    """Which rows each fold trains on, bool `(fold, n)`: neither its own nor the test set's."""
    return np.asarray((fold[None] >= 0) & (fold[None] != np.arange(folds)[:, None]))


def score_folds(
    truth: Truth,
    probability: Array32,
    fold: npt.NDArray[np.int8],
    protein: npt.NDArray[Any],
    labels: tuple[str, ...],
    *,
    tuned: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Score cross-validated heads on their validation folds, pooled, and on the test set.

    Args:
        truth: `(n, label)`.
        probability: every head's on every row, `(fold, n, label)`, finite.
        fold: `(n,)`, -1 is the test set.
        protein: `(n,)`, what the bootstrap resamples.
        labels: their names.
        tuned: thresholds by best F1 on the other folds' out-of-fold rows, instead of 0.5.
        bootstrap: number of resamples; 0 = no intervals.
        seed: of the bootstrap.

    Returns:
        `validation` and `test`: per figure the `mean` and `sd` over heads, and `each` head's;
        `pooled`: all out-of-fold rows scored at once; `per_label`. Without a test set, `test` is
        the out-of-fold figures again, and its `rows_are` says so.
    """
    inside, test = fold >= 0, fold < 0
    own = out_of_fold(probability, fold)
    threshold = _thresholds(truth, own, fold, tuned)
    called = called_of(own, threshold, truth.exclusive)
    heads = [
        score(truth[rows], own[rows], called[rows], labels)
        for rows in (fold == number for number in range(len(probability)))
    ]
    pooled = score(truth[inside], own[inside], called[inside], labels)
    per_label = pooled.per_label
    result: dict[str, Any] = {
        "validation": {**_mean_sd(heads), "rows_are": "validation folds"},
        "pooled": {**pooled.as_dict(), "rows_are": "out of fold"},
    }
    samples = None
    if bootstrap:
        tallies = counts(truth[inside], called[inside])
        samples = bootstrap_f1(tallies, protein[inside], bootstrap, seed)
        result["pooled"]["macro_f1_ci"] = interval(macro(samples))

    if truth[test].labelled.any():
        all_called = called_of(probability[:, test], threshold[test], truth.exclusive)
        heads = [
            score(truth[test], p[test], c, labels)
            for p, c in zip(probability, all_called, strict=True)
        ]
        per_label = {
            label: {k: float(np.mean([head.per_label[label][k] for head in heads])) for k in row}
            for label, row in per_label.items()
        }
        result["test"] = {**_mean_sd(heads), "rows_are": "test set"}
        if bootstrap:
            tallies = np.stack([counts(truth[test], c) for c in all_called], axis=1)
            by_head = bootstrap_f1(tallies, protein[test], bootstrap, seed)
            samples = by_head.mean(axis=1)
            result["test"]["macro_f1"]["ci"] = interval(macro(by_head).mean(axis=1))
    else:
        macro_f1 = {
            **result["validation"]["macro_f1"],
            "pooled": pooled.overall["macro_f1"],
            "ci": result["pooled"].get("macro_f1_ci"),
        }
        where = "out of fold (there is no test set)"
        result["test"] = {**result["validation"], "macro_f1": macro_f1, "rows_are": where}
    result["per_label"] = {
        label: {**row, "f1_ci": None if samples is None else interval(samples[:, index])}
        for index, (label, row) in enumerate(per_label.items())
    }
    return result


def _thresholds(
    truth: Truth, own: Array32, fold: npt.NDArray[np.int8], tuned: bool
) -> npt.NDArray[np.float64]:
    """Each row's thresholds `(n, label)`: a half, or the best on the rows of all other folds."""
    threshold = np.full(own.shape, 0.5)
    for number in np.unique(fold) if tuned else ():
        others = (fold >= 0) & (fold != number)
        threshold[fold == number] = best_thresholds(truth[others], own[others])
    return threshold


def _mean_sd(scores: Sequence[Scores]) -> dict[str, Any]:
    """Mean and sd (n - 1) of every figure over heads; a head without labelled rows has none."""
    figures: dict[str, Any] = {}
    for key in scores[0].overall:
        each = np.array([s.overall[key] for s in scores])
        kept = each[~np.isnan(each)]
        sd = float(kept.std(ddof=1)) if len(kept) > 1 else math.nan
        mean = float(kept.mean()) if len(kept) else math.nan
        figures[key] = {"mean": mean, "sd": sd, "each": each.tolist()}
    missing = sorted({label for s in scores if s.rows for label in s.missing})
    rows = sum(s.rows for s in scores) // len(scores)
    return {**figures, "rows": rows, "labels_without_positives": missing}


def score_votes(
    found: Neighbours,
    truth: Truth,
    protein: npt.NDArray[Any],
    labels: tuple[str, ...],
    *,
    ks: Sequence[int],
    temperature: float,
    norm: Literal["sum", "max"],
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Score leave-one-out votes for each k: `{"1": {"macro_f1": x, ...}, ...}`; threshold 0.5."""
    result = {}
    for k in ks:
        votes = vote(found, truth, k, temperature, norm)
        called = called_of(votes, 0.5, truth.exclusive)
        scores = score(truth, votes, called, labels)
        result[str(k)] = {**scores.as_dict(), "per_label": dict(scores.per_label)}
        if bootstrap:
            samples = bootstrap_f1(counts(truth, called), protein, bootstrap, seed)
            result[str(k)]["macro_f1_ci"] = interval(macro(samples))
    return result


def from_one_group(truth: Truth, group: npt.NDArray[Any], labels: tuple[str, ...]) -> list[str]:
    """Labels whose positive rows all lie in one group: left out of it, nobody can vote for them."""
    return [
        label
        for index, label in enumerate(labels)
        if len(np.unique(group[truth.positive[:, index]])) == 1
    ]


def never_called(
    truth: Truth, probability: Array32, called: Bools, labels: tuple[str, ...]
) -> list[str]:
    """A warning about a head that calls nothing, or never calls some label that occurs."""
    silent = np.asarray(truth.positive.any(axis=0) & ~called.any(axis=0))
    names = [labels[index] for index in np.flatnonzero(silent)]
    highest = float(np.nanmax(probability)) if np.isfinite(probability).any() else 0.0
    if names and not called.any():
        return [
            f"THE HEAD PREDICTS NOTHING: no label reaches its threshold on any of {len(called)} "
            f"rows (the highest probability is {highest:.2f}). It has learned too little: train "
            "longer (--epochs), with a higher --lr or a smaller --weight-decay; `evaluate "
            "--threshold tuned` shows whether it ranks the rows at least"
        ]
    if names:
        return [f"labels that are never called: {', '.join(names)}"]
    return []


def finite(value: Any) -> Any:
    """The same tree with None for NaN, as JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
