"""Counts of the page against loops that spell out what they mean."""

import numpy as np
import numpy.typing as npt
import pytest

from zarrloc.report.tallies import confusion, cooccurrence, examples, roc_curves
from zarrloc.scoring.metrics import Truth


@pytest.fixture
def answers() -> tuple[Truth, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    truth = Truth(rng.random((200, 4)) < 0.3, rng.random((200, 4)) < 0.8)
    probability = np.clip(truth.positive * 0.4 + rng.random((200, 4)) * 0.7, 0, 1)
    return truth, probability, probability >= 0.5


def test_confusion_counts_wrong_calls_off_the_diagonal(
    answers: tuple[Truth, npt.NDArray[np.float64], npt.NDArray[np.bool_]],
) -> None:
    truth, _, called = answers
    found = confusion(truth, called)
    for i in range(4):
        rows = [r for r in range(200) if truth.known[r, i] and truth.positive[r, i]]
        for j in range(4):
            hits = [
                called[r, j] and truth.known[r, j] and (i == j or not truth.positive[r, j])
                for r in rows
            ]
            assert found.counts[i, j] == np.sum(hits)
        assert found.rows[i] == len(rows)


def test_confusion_of_a_label_without_rows() -> None:
    truth = Truth(np.array([[True, False]]), np.ones((1, 2), bool))
    found = confusion(truth, np.array([[True, True]]))
    np.testing.assert_array_equal(found.counts, [[1, 1], [0, 0]])
    np.testing.assert_array_equal(found.rows, [1, 0])


def test_cooccurrence_counts_proteins_not_fields() -> None:
    positive = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], bool)
    found = cooccurrence(positive, np.array(["a", "a", "b", "c"]))
    np.testing.assert_array_equal(found, [[2, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_roc_area_is_that_under_the_drawn_curve(
    answers: tuple[Truth, npt.NDArray[np.float64], npt.NDArray[np.bool_]],
) -> None:
    truth, probability, _ = answers
    curves = roc_curves(truth, probability, ("a", "b", "c", "d"))
    assert [curve.label for curve in curves] == ["a", "b", "c", "d"]
    for curve in curves:
        drawn = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
        assert drawn == pytest.approx(curve.area, abs=1e-9)


def test_a_label_without_negatives_has_no_curve() -> None:
    truth = Truth(np.array([[True, True], [True, False]]), np.ones((2, 2), bool))
    curves = roc_curves(truth, np.array([[0.9, 0.9], [0.8, 0.1]]), ("all", "some"))
    assert [curve.label for curve in curves] == ["some"]


def test_examples_are_of_their_kind_sure_and_varied(
    answers: tuple[Truth, npt.NDArray[np.float64], npt.NDArray[np.bool_]],
) -> None:
    truth, probability, called = answers
    protein = np.arange(200) // 4
    found = examples(truth, probability, called, protein, most=8)
    for kind, (positive, call) in {
        "true positives": (True, True),
        "false positives": (False, True),
        "false negatives": (True, False),
    }.items():
        chosen = found[kind]
        assert len(chosen) == len({each.row for each in chosen}) == 8
        assert {each.label for each in chosen[:4]} == {0, 1, 2, 3}
        assert len({protein[each.row] for each in chosen[:4]}) == 4
        for each in chosen:
            assert truth.known[each]
            assert truth.positive[each] == positive
            assert called[each] == call
    surest = max(probability[truth.known & truth.positive & called])
    assert probability[found["true positives"][0]] == surest


def test_no_examples_where_there_are_none() -> None:
    truth = Truth(np.ones((3, 1), bool), np.ones((3, 1), bool))
    found = examples(truth, np.ones((3, 1)), np.ones((3, 1), bool), np.array(["p"] * 3))
    assert {kind: len(each) for kind, each in found.items()} == {
        "true positives": 3,
        "false positives": 0,
        "false negatives": 0,
    }
