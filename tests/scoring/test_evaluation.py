"""Protocols: which head judges which row, thresholds that never saw it, figures by hand."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from zarrloc.scoring.evaluation import (
    finite,
    from_one_group,
    out_of_fold,
    score_folds,
    score_votes,
    training_rows,
)
from zarrloc.scoring.knn import neighbours
from zarrloc.scoring.metrics import truth_of

LABELS = ("a", "b", "c")


def problem(n=300, folds=3, test=0.2, seed=0):
    rng = np.random.default_rng(seed)
    truth = truth_of(rng.choice([0, 3], size=(n, 3), p=[0.6, 0.4]).astype(np.uint8), "negative")
    truth.known[:] = True
    fold = np.where(rng.random(n) < test, -1, rng.integers(0, folds, n)).astype(np.int8)
    probability = np.clip(
        0.5 + 0.3 * (truth.positive - 0.5) + 0.3 * rng.normal(size=(folds, n, 3)), 0, 1
    )
    return (
        truth,
        probability.astype(np.float32),
        fold,
        np.char.add("P", (np.arange(n) // 5).astype(str)),
    )


def test_rows_are_judged_by_heads_that_did_not_see_them():
    fold = np.array([0, 1, -1], np.int8)
    probability = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    np.testing.assert_array_equal(out_of_fold(probability, fold)[:, 0], [0, 4, (2 + 5) / 2])
    assert training_rows(fold, 2).tolist() == [[False, True, False], [True, False, False]]


def test_figures_are_scikit_learns():
    truth, probability, fold, protein = problem()
    got = score_folds(truth, probability, fold, protein, LABELS, bootstrap=50)
    valid = [
        f1_score(truth.positive[fold == f], probability[f][fold == f] >= 0.5, average="macro")
        for f in range(3)
    ]
    test = [
        f1_score(truth.positive[fold < 0], p[fold < 0] >= 0.5, average="macro") for p in probability
    ]
    assert got["validation"]["macro_f1"]["mean"] == pytest.approx(np.mean(valid))
    assert got["validation"]["macro_f1"]["sd"] == pytest.approx(np.std(valid, ddof=1))
    assert got["test"]["macro_f1"]["mean"] == pytest.approx(np.mean(test))
    assert got["test"]["macro_f1"]["each"] == pytest.approx(test)
    low, high = got["test"]["macro_f1"]["ci"]
    assert low < np.mean(test) < high
    own = out_of_fold(probability, fold)[fold >= 0]
    assert got["pooled"]["macro_f1"] == pytest.approx(
        f1_score(truth.positive[fold >= 0], own >= 0.5, average="macro")
    )
    by_head = [
        f1_score(truth.positive[fold < 0], p[fold < 0] >= 0.5, average=None) for p in probability
    ]
    np.testing.assert_allclose(
        [got["per_label"][label]["f1"] for label in LABELS], np.mean(by_head, axis=0)
    )


def test_without_a_test_set_the_out_of_fold_figures_stand_in_and_say_so():
    truth, probability, fold, protein = problem(test=0)
    got = score_folds(truth, probability, fold, protein, LABELS, bootstrap=20)
    assert "no test set" in got["test"]["rows_are"]
    assert got["test"]["macro_f1"]["mean"] == got["validation"]["macro_f1"]["mean"]
    assert got["test"]["macro_f1"]["pooled"] == got["pooled"]["macro_f1"]
    assert got["per_label"]["a"]["support"] == truth.positive[:, 0].sum()


def test_planted_probabilities_score_one_everywhere():
    truth, _, fold, protein = problem()
    perfect = np.repeat(truth.positive[None], 3, axis=0).astype(np.float32)
    for tuned in (False, True):
        got = score_folds(truth, perfect, fold, protein, LABELS, tuned=tuned, bootstrap=20)
        assert got["test"]["macro_f1"]["mean"] == got["pooled"]["macro_f1"] == 1
        assert got["test"]["macro_f1"]["ci"] == [1, 1]


def test_tuned_thresholds_help_where_a_half_is_wrong_but_never_see_their_own_rows():
    truth, probability, fold, protein = problem(1500)
    low = 0.2 * probability
    plain = score_folds(truth, low, fold, protein, LABELS)
    tuned = score_folds(truth, low, fold, protein, LABELS, tuned=True)
    assert plain["test"]["macro_f1"]["mean"] == 0
    assert tuned["test"]["macro_f1"]["mean"] > 0.6
    noise = np.random.default_rng(1).random(low.shape).astype(np.float32)
    small = slice(0, 30)
    chance = score_folds(
        truth[small], noise[:, small], fold[small], protein[small], LABELS, tuned=True
    )
    # Tuned on the scored rows themselves, 30 rows of noise reach 0.7; calling all gives 0.57.
    assert chance["pooled"]["macro_f1"] < 0.62


def test_an_empty_fold_has_no_figure_and_spoils_none():
    truth, probability, fold, protein = problem()
    fold[fold == 1] = 0
    got = score_folds(truth, probability, fold, protein, LABELS)
    assert np.isnan(got["validation"]["macro_f1"]["each"][1])
    assert 0 < got["validation"]["macro_f1"]["mean"] < 1


def test_votes_are_scored_for_each_k():
    truth, _, _, protein = problem()
    features = truth.positive + 0.3 * np.random.default_rng(0).normal(size=truth.positive.shape)
    found = neighbours(features.astype(np.float32), 5)[0]
    got = score_votes(
        found, truth, protein, LABELS, ks=(1, 5), temperature=0.07, norm="sum", bootstrap=20
    )
    assert list(got) == ["1", "5"]
    one = f1_score(truth.positive, truth.positive[found.index[:, 0]], average="macro")
    assert got["1"]["macro_f1"] == pytest.approx(one)
    assert got["1"]["macro_f1_ci"][0] < one < got["1"]["macro_f1_ci"][1]


def test_labels_of_one_group_are_named():
    truth = truth_of(np.array([[3, 3, 0], [3, 0, 0], [0, 3, 0]], np.uint8))
    assert from_one_group(truth, np.array(["f1", "f1", "f2"]), LABELS) == ["a"]


def test_finite_is_json():
    tree = {"a": float("nan"), "b": [1.0, {"c": float("nan")}]}
    assert json.loads(json.dumps(finite(tree), allow_nan=False)) == {
        "a": None,
        "b": [1.0, {"c": None}],
    }
