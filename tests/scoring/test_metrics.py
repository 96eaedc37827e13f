"""Scores against scikit-learn, and against truths that are known."""

import numpy as np
import pytest
from sklearn import metrics as sk

from zarrloc.scoring.metrics import (
    best_thresholds,
    bootstrap_f1,
    counts,
    f1_of,
    interval,
    macro,
    score,
    truth_of,
)

LABELS = tuple("abcde")


def random_grades(n=300, seed=0):
    rng = np.random.default_rng(seed)
    grade = rng.choice(4, size=(n, len(LABELS)), p=[0.6, 0.1, 0.1, 0.2]).astype(np.uint8)
    return grade, rng.random((n, len(LABELS)))


def test_grades_become_what_weak_says():
    grade = np.array([[3, 2, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.uint8)
    ignore = truth_of(grade)
    assert ignore.positive.tolist() == [[True, False, False, False], [False] * 4, [False] * 4]
    assert ignore.known.tolist() == [
        [True, False, False, True],
        [False] * 4,
        [True, False, True, True],
    ]
    assert truth_of(grade, "positive").positive.tolist()[0] == [True, True, True, False]
    negative = truth_of(grade, "negative")
    assert negative.positive.sum() == 1
    assert negative.labelled.tolist() == [True, False, True]


@pytest.mark.parametrize("weak", ["ignore", "positive", "negative"])
def test_scores_are_scikit_learns(weak):
    grade, probability = random_grades()
    truth = truth_of(grade, weak)
    called = probability >= 0.5
    got = score(truth, probability, called, LABELS)
    f1s = []
    for i, label in enumerate(LABELS):
        k = truth.known[:, i]
        y, p, c = truth.positive[k, i], probability[k, i], called[k, i]
        row = got.per_label[label]
        assert row["f1"] == pytest.approx(sk.f1_score(y, c))
        assert row["precision"] == pytest.approx(sk.precision_score(y, c))
        assert row["recall"] == pytest.approx(sk.recall_score(y, c))
        assert row["auroc"] == pytest.approx(sk.roc_auc_score(y, p))
        assert row["average_precision"] == pytest.approx(sk.average_precision_score(y, p))
        assert row["support"] == y.sum()
        f1s.append(row["f1"])
    assert got.overall["macro_f1"] == pytest.approx(np.mean(f1s))
    k = truth.known
    assert got.overall["micro_f1"] == pytest.approx(sk.f1_score(truth.positive[k], called[k]))


def test_multilabel_f1_is_scikit_learns_when_all_is_known():
    grade, probability = random_grades()
    grade[:, 0] = 3  # no row is unlabelled
    truth = truth_of(grade, "negative")
    called = probability >= 0.4
    got = score(truth, probability, called, LABELS).overall
    assert got["macro_f1"] == pytest.approx(sk.f1_score(truth.positive, called, average="macro"))
    assert got["micro_f1"] == pytest.approx(sk.f1_score(truth.positive, called, average="micro"))


def test_label_without_positives_is_named_and_left_out_visibly():
    grade, _ = random_grades()
    grade[:, 2] = 0
    truth = truth_of(grade, "negative")
    perfect = truth.positive.astype(float)
    got = score(truth, perfect, truth.positive, LABELS)
    assert got.missing == ("c",)
    assert got.overall["macro_f1"] == 1
    assert got.overall["macro_f1_all"] == pytest.approx(4 / 5)
    assert np.isnan(got.per_label["c"]["f1"])
    assert got.as_dict()["labels_without_positives"] == ["c"]


def test_label_without_negatives_has_f1_but_no_auroc():
    grade, _ = random_grades()
    grade[:, 1] = 3
    truth = truth_of(grade, "negative")
    got = score(truth, truth.positive.astype(float), truth.positive, LABELS)
    assert got.per_label["b"]["f1"] == 1
    assert np.isnan(got.per_label["b"]["auroc"])
    assert got.overall["macro_auroc"] == 1


def test_nothing_known_scores_nan_not_zero():
    truth = truth_of(np.zeros((3, 5), np.uint8))
    got = score(truth, np.zeros((3, 5)), np.zeros((3, 5), bool), LABELS)
    assert got.missing == LABELS
    assert np.isnan(got.overall["macro_f1"])
    assert got.rows == 0


def test_bootstrap_is_the_plain_one_by_hand():
    grade, probability = random_grades(60)
    truth, called = truth_of(grade), probability >= 0.5
    groups = np.repeat([f"P{i}" for i in range(12)], 5)
    got = bootstrap_f1(counts(truth, called), groups, 20, seed=3)
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=20)
    for drawn, f1 in zip(draws, got, strict=True):
        # The names sort as P0, P1, P10, P11, P2, ...
        names = [n for n, times in zip(np.unique(groups), drawn, strict=True) for _ in range(times)]
        rows = np.concatenate([np.flatnonzero(groups == name) for name in names])
        np.testing.assert_allclose(f1, f1_of(counts(truth, called)[rows].sum(0)))


def test_interval_is_wider_when_proteins_not_fields_go_wrong():
    grade, _ = random_grades(1000)
    truth = truth_of(grade)
    protein = np.repeat(np.arange(10), 100)
    wrong = np.random.default_rng(1).random(truth.positive.shape) < (protein % 2 * 0.3)[:, None]
    tallies = counts(truth, truth.positive ^ wrong)
    value = float(macro(f1_of(tallies.sum(0))))
    by_field = interval(macro(bootstrap_f1(tallies, np.arange(1000), 300, seed=0)))
    by_protein = interval(macro(bootstrap_f1(tallies, protein, 300, seed=0)))
    assert by_field[0] < value < by_field[1]
    assert by_protein[1] - by_protein[0] > 2 * (by_field[1] - by_field[0])
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_best_threshold_beats_every_other():
    grade, probability = random_grades(200, seed=5)
    truth = truth_of(grade)
    probability = np.round(probability + truth.positive, 1)  # many ties
    best = f1_of(counts(truth, probability >= best_thresholds(truth, probability)).sum(0))
    for threshold in np.linspace(-0.05, 2.05, 43):
        other = f1_of(counts(truth, probability >= threshold).sum(0))
        assert (best >= other - 1e-12).all()


def test_best_threshold_without_positives_is_a_half():
    truth = truth_of(np.array([[3, 0], [3, 0]], np.uint8))
    assert best_thresholds(truth, np.array([[0.9, 0.1], [0.8, 0.2]]))[1] == 0.5
