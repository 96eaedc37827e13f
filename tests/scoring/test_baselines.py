"""Baselines say what they claim."""

import numpy as np
import pytest

from zarrloc.scoring.baselines import (
    intensity_statistics,
    permuted,
    siblings_elsewhere,
    siblings_in_training,
)
from zarrloc.scoring.metrics import truth_of


def test_permuted_answers_are_the_same_ones_elsewhere():
    rng = np.random.default_rng(0)
    truth = truth_of(rng.choice([0, 3], size=(500, 3)).astype(np.uint8), "negative")
    shuffled = permuted(truth, seed=1)
    np.testing.assert_array_equal(shuffled.positive.sum(0), truth.positive.sum(0))
    assert (shuffled.positive == truth.positive).mean() == pytest.approx(0.5, abs=0.05)


def test_intensity_statistics_of_a_known_field():
    image = np.zeros((2, 40, 40), np.uint16)
    image[0] = 7
    image[1, :, 20:] = 100
    flat, half = intensity_statistics(image)
    np.testing.assert_array_equal(flat, [7, 0, 7, 7, 7, 7, 7, 7, 7])
    np.testing.assert_allclose(half, [50, 50, 0, 0, 0, 50, 100, 100, 100])


def test_siblings_in_training_give_the_answer_only_where_there_is_one():
    truth = truth_of(np.array([[3, 0], [3, 0], [0, 3], [0, 3]], np.uint8))
    protein = np.array(["A", "A", "B", "B"])
    by_image = np.array([[False, True, True, True], [True, False, False, False]])
    got = siblings_in_training(truth, protein, by_image)
    np.testing.assert_array_equal(got[0], truth.positive)
    np.testing.assert_array_equal(got[1], [[1, 0], [1, 0], [0, 0], [0, 0]])


def test_siblings_elsewhere_are_of_other_fields():
    truth = truth_of(np.array([[3, 0], [3, 0], [0, 3], [0, 3]], np.uint8))
    protein = np.array(["A", "A", "B", "B"])
    cells_of_fields = siblings_elsewhere(truth, protein, np.array(["a1", "a2", "b1", "b1"]))
    np.testing.assert_array_equal(cells_of_fields, [[1, 0], [1, 0], [0, 0], [0, 0]])
