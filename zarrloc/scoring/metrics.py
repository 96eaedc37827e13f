"""Multi-label scores that know which answers are known, and intervals that know about proteins.

Labels belong to proteins and several fields show one protein, so fields are not independent:
intervals come from resampling proteins. A label without positives has no score; it is named and
left out of the mean, and a second mean counts it as 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from zarrloc.config.train import Weak

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """What is known of each row: `positive` and `known`, both bool `(n, label)`."""

    positive: Bools
    known: Bools
    exclusive: bool = False
    """Each row is of one class: the labels exclude one another."""

    def __getitem__(self, rows: Any) -> "Truth":
        """The truth of some rows."""
        return Truth(self.positive[rows], self.known[rows], self.exclusive)

    @property
    def labelled(self) -> Bools:
        """Rows of which anything is known, bool `(n,)`."""
        return np.asarray(self.known.any(axis=1))


def truth_of(grade: npt.NDArray[np.uint8], weak: Weak = "ignore", exclusive: bool = False) -> Truth:
    """Grades `(n, label)` uint8 0..3 as positives and negatives.

    Grade 3 is positive, 0 negative; `weak` says what 1 and 2 are: unknown (`ignore`), positive or
    negative. A row without any grade is unlabelled: nothing of it is known.
    """
    faint = (grade == 1) | (grade == 2)
    positive = (grade == 3) | (faint & (weak == "positive"))
    known = ~(faint & (weak == "ignore")) & (grade > 0).any(axis=1, keepdims=True)
    return Truth(positive, known, exclusive)


def called_of(probability: npt.NDArray[np.floating[Any]], threshold: Any, exclusive: bool) -> Bools:
    """Which labels each row is given, bool `(..., n, label)`: from a threshold; of classes, one.

    A row whose probabilities are NaN, or 0 for every class, is given none.
    """
    if not exclusive:
        return np.asarray(probability >= threshold)
    filled = np.nan_to_num(probability, nan=0.0)
    best = filled.argmax(axis=-1)[..., None]
    return np.asarray((np.arange(filled.shape[-1]) == best) & (filled > 0))


def counts(truth: Truth, called: Bools) -> npt.NDArray[np.int64]:
    """True positives, false positives, false negatives of each row: int `(n, label, 3)`."""
    p, k = truth.positive, truth.known
    return np.stack([k & p & called, k & ~p & called, k & p & ~called], axis=-1).astype(np.int64)


def f1_of(tallies: npt.NDArray[Any]) -> Floats:
    """F1 of summed counts `(..., label, 3)`: `(..., label)`, NaN where there is no positive."""
    tp, fp, fn = np.moveaxis(np.asarray(tallies, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan)


def macro(f1: Floats) -> Floats:
    """Mean over the labels that have a score, along the last axis; NaN where none has."""
    present = ~np.isnan(f1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(present, f1, 0).sum(-1) / present.sum(-1))


@dataclass(frozen=True)
class Scores:
    """Scores of one set of rows: overall figures, and one dict a label."""

    overall: Mapping[str, float]
    per_label: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...]
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """The overall figures with the names of the labels left out, for JSON."""
        return {**self.overall, "rows": self.rows, "labels_without_positives": list(self.missing)}


def score(
    truth: Truth,
    probability: npt.NDArray[np.floating[Any]],
    called: Bools,
    labels: tuple[str, ...],
) -> Scores:
    """Score probabilities and calls `(n, label)` against the truth, where it is known.

    Overall: `macro_f1` over labels with positives, `macro_f1_all` over all with the others as 0
    (paper, equation 7), `micro_f1`, `macro_auroc`, `macro_average_precision`. AUROC needs known
    negatives too; where it can't be had it is NaN and left out of its mean.
    """
    tallies = counts(truth, called).sum(axis=0)
    f1 = f1_of(tallies)
    table: dict[str, dict[str, float]] = {}
    for index, label in enumerate(labels):
        tp, fp, fn = (int(n) for n in tallies[index])
        known = truth.known[:, index]
        y, p = truth.positive[known, index], probability[known, index]
        both = bool(y.any() and not y.all())
        table[label] = {
            "precision": tp / (tp + fp) if tp + fp else (0.0 if fn else np.nan),
            "recall": tp / (tp + fn) if tp + fn else np.nan,
            "f1": float(f1[index]),
            "support": tp + fn,
            "auroc": float(roc_auc_score(y, p)) if both else np.nan,
            "average_precision": float(average_precision_score(y, p)) if y.any() else np.nan,
        }
    tp, fp, fn = tallies.sum(axis=0)
    column = {key: np.array([row[key] for row in table.values()]) for key in table[labels[0]]}
    overall = {
        "macro_f1": float(macro(f1)),
        "macro_f1_all": float(np.nan_to_num(f1).mean()),
        "micro_f1": float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else np.nan,
        "macro_auroc": float(macro(column["auroc"])),
        "macro_average_precision": float(macro(column["average_precision"])),
    }
    missing = tuple(label for label, value in zip(labels, f1, strict=True) if np.isnan(value))
    return Scores(overall, table, missing, int(truth.labelled.sum()))


def bootstrap_f1(
    tallies: npt.NDArray[np.int64], groups: npt.NDArray[Any], resamples: int, seed: int
) -> Floats:
    """F1 of every label under resampled groups: `(resamples, ..., label)`.

    `tallies` `(n, ..., label, 3)` are the rows' counts, `groups` `(n,)` what is resampled (the
    protein). Counts are summed once a group; a resample is then one row of a matrix product.
    """
    names, code = np.unique(groups, return_inverse=True)
    flat = tallies.reshape(len(tallies), -1).astype(np.float64)
    per_group = np.zeros((len(names), flat.shape[1]))
    np.add.at(per_group, code, flat)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    return f1_of((draws @ per_group).reshape(resamples, *tallies.shape[1:]))


def interval(samples: Floats, level: float = 0.95) -> list[float]:
    """Percentile interval of bootstrap samples, NaN left out: `[low, high]`."""
    kept = samples[~np.isnan(samples)]
    if not kept.size:
        return [np.nan, np.nan]
    return [float(x) for x in np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])]


def best_thresholds(truth: Truth, probability: npt.NDArray[np.floating[Any]]) -> Floats:
    """The threshold of each label `(label,)` with the best F1 on these rows; 0.5 without positives.

    Half-way between the neighbouring probabilities, so that it holds for rows not seen.
    """
    best = np.full(truth.positive.shape[1], 0.5)
    for label in range(len(best)):
        known = truth.known[:, label]
        y, p = truth.positive[known, label], probability[known, label].astype(np.float64)
        if not y.any():
            continue
        order = np.argsort(-p, kind="stable")
        p, hits = p[order], np.cumsum(y[order])
        f1 = 2 * hits / (np.arange(1, len(p) + 1) + y.sum())
        below = np.append(p[1:], 0.0)
        f1[p == below] = 0  # equal probabilities are called together
        at = int(np.argmax(f1))
        best[label] = (p[at] + below[at]) / 2
    return best
