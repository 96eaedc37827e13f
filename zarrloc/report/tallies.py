"""What the page counts: confusion, co-occurrence, ROC curves, telling examples. Pure arrays."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from zarrloc.scoring.metrics import Truth

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Confusion(NamedTuple):
    """Which labels are called for which: `counts` int `(label, label)` of `rows` int `(label,)`."""

    counts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]


def confusion(truth: Truth, called: Bools) -> Confusion:
    """How many of the rows with label i were called j.

    A row has several labels, so only wrong calls count off the diagonal: a right second call is
    no confusion. The diagonal over `rows` is the recall.
    """
    positive = truth.positive & truth.known
    wrong = called & truth.known & ~truth.positive
    counts = positive.T.astype(np.int64) @ wrong
    np.fill_diagonal(counts, (positive & called).sum(axis=0))
    return Confusion(counts, positive.sum(axis=0))


def cooccurrence(positive: Bools, protein: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """How many proteins have both labels: int `(label, label)`; the diagonal: that label at all."""
    names, code = np.unique(protein, return_inverse=True)
    held = np.zeros((len(names), positive.shape[1]), np.int64)
    np.maximum.at(held, code, positive)
    return np.asarray(held.T @ held)


class Curve(NamedTuple):
    """The ROC curve of one label."""

    label: str
    false_positive_rate: Floats
    true_positive_rate: Floats
    area: float


def roc_curves(
    truth: Truth, probability: npt.NDArray[np.floating[Any]], labels: tuple[str, ...]
) -> list[Curve]:
    """The curves of the labels that have known positives and negatives."""
    curves = []
    for index, label in enumerate(labels):
        known = truth.known[:, index]
        y, p = truth.positive[known, index], probability[known, index]
        if y.any() and not y.all():
            fpr, tpr, _ = roc_curve(y, p)
            # No screen shows more steps than this.
            at = np.unique(np.linspace(0, len(fpr) - 1, 300).round().astype(int))
            curves.append(Curve(label, fpr[at], tpr[at], float(roc_auc_score(y, p))))
    return curves


class Example(NamedTuple):
    """One answer worth looking at: the row, and the label it is about."""

    row: int
    label: int


def examples(
    truth: Truth,
    probability: npt.NDArray[np.floating[Any]],
    called: Bools,
    protein: npt.NDArray[Any],
    most: int = 8,
) -> dict[str, list[Example]]:
    """True positives, false positives and false negatives (paper, Figure 6), the surest first.

    Labels and proteins are as many as can be: a second example of one comes only when all others
    have had their turn.
    """
    kinds = {
        "true positives": (truth.known & truth.positive & called, probability),
        "false positives": (truth.known & ~truth.positive & called, probability),
        "false negatives": (truth.known & truth.positive & ~called, -probability),
    }
    return {kind: list(_varied(mask, sure, protein, most)) for kind, (mask, sure) in kinds.items()}


def _varied(
    mask: Bools, sure: npt.NDArray[np.floating[Any]], protein: npt.NDArray[Any], most: int
) -> Iterator[Example]:
    best = [
        Example(int(row), label)
        for label in range(mask.shape[1])
        for row in _surest(np.flatnonzero(mask[:, label]), sure[:, label], most)
    ]
    best.sort(key=lambda example: -sure[example])
    labels: set[int] = set()
    proteins: set[Any] = set()
    rows: set[int] = set()
    for strict in (True, False):
        for row, label in best:
            repeats = row in rows or (strict and (label in labels or protein[row] in proteins))
            if len(rows) < most and not repeats:
                labels.add(label)
                proteins.add(protein[row])
                rows.add(row)
                yield Example(row, label)


def _surest(
    rows: npt.NDArray[np.int64], sure: npt.NDArray[np.floating[Any]], most: int
) -> npt.NDArray[np.int64]:
    return rows[np.argsort(-sure[rows], kind="stable")[:most]]
