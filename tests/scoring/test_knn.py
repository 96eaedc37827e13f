"""Neighbours and votes against scikit-learn, plain sums and planted truth."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from zarrloc.scoring.knn import Neighbours, neighbours, vote
from zarrloc.scoring.metrics import Truth, score, truth_of


def clusters(n=400, f=16, groups=40, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    centre = rng.normal(size=(groups, f))
    return (centre[group] + rng.normal(size=(n, f))).astype(np.float32), group


def plain(features, k, allowed):
    """scikit-learn's ranking of all rows, the forbidden ones struck out afterwards."""
    search = NearestNeighbors(n_neighbors=len(features) - 1, algorithm="brute", metric="cosine")
    distance, order = search.fit(features.astype(np.float64)).kneighbors()
    rows = np.arange(len(features))[:, None]
    kept = [d[ok][:k] for d, ok in zip(distance, allowed[rows, order], strict=True)]
    return 1 - np.array(kept), np.array(
        [o[ok][:k] for o, ok in zip(order, allowed[rows, order], strict=True)]
    )


# 7 rows a block leaves a ragged last one.
@pytest.mark.parametrize("block_bytes", [1, 4 * 400 * 7, 2**30])
def test_neighbours_are_scikit_learns_with_and_without_groups(block_bytes):
    features, group = clusters()
    found = neighbours(features, 10, [group], block_bytes=block_bytes)
    other = group[:, None] != group[None]
    # Leave-one-out of scikit-learn: `kneighbors()` without X leaves out the row itself.
    for result, allowed in zip(found, [np.ones_like(other), other], strict=True):
        similarity, index = plain(features, 10, allowed)
        np.testing.assert_array_equal(result.index, index)
        np.testing.assert_allclose(result.similarity, similarity, atol=1e-6)


def test_groupings_add_up_whatever_the_order_of_rows():
    features, protein = clusters()
    field = protein * 10 + np.random.default_rng(1).integers(0, 3, len(protein))
    alone, no_field, no_protein = neighbours(features, 5, [field, protein], block_bytes=4 * 400 * 9)
    assert (protein[alone.index] == protein[:, None]).any()
    assert (field[no_field.index] != field[:, None]).all()
    assert (protein[no_field.index] == protein[:, None]).any()
    assert (protein[no_protein.index] != protein[:, None]).all()


def test_equal_neighbours_come_in_the_order_of_rows():
    features = np.tile(np.eye(4, dtype=np.float32), (5, 1))
    result = neighbours(features, 4)[0]
    for row, index in enumerate(result.index):
        assert index.tolist() == [j for j in range(row % 4, 20, 4) if j != row]
    assert (result.similarity == 1).all()


def test_group_larger_than_k_still_gives_k_neighbours_from_outside():
    features, _ = clusters(100)
    group = np.repeat([0, 1], [80, 20])
    result = neighbours(features, 10, [group])[1]
    assert result.short == 0
    assert (group[result.index] != group[:, None]).all()


def test_fewer_rows_than_k_are_counted_and_do_not_vote():
    features, _ = clusters(5)
    result = neighbours(features, 10, [np.array([0, 0, 0, 1, 1])])
    assert result[0].index.shape == (5, 5)
    assert result[0].short == 5
    assert (result[0].index[:, :4] >= 0).all()
    assert (result[1].index[0] >= 0).sum() == 2
    truth = truth_of(np.full((5, 1), 3, np.uint8))
    np.testing.assert_allclose(vote(result[1], truth, 10), 1)


def test_vote_is_the_papers_sum_by_hand():
    found = Neighbours(np.array([[0.9, 0.5, 0.4]], np.float32), np.array([[1, 2, 3]], np.int64))
    positive = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    truth = Truth(positive, np.ones_like(positive))
    w = np.exp(np.array([0.9, 0.5, 0.4]) / 0.07)
    np.testing.assert_allclose(
        vote(found, truth, 3), [[(w[0] + w[1]) / w.sum(), (w[1] + w[2]) / w.sum(), 0]], rtol=1e-5
    )
    np.testing.assert_allclose(vote(found, truth, 1), [[1, 0, 0]])
    np.testing.assert_allclose(
        vote(found, truth, 3, norm="max"), [[1, (w[1] + w[2]) / (w[0] + w[1]), 0]], rtol=1e-5
    )


def test_unknown_labels_neither_vote_nor_weigh():
    found = Neighbours(np.full((1, 2), 0.5, np.float32), np.array([[1, 2]], np.int64))
    truth = truth_of(np.array([[3, 3], [3, 1], [0, 3]], np.uint8), "ignore")
    np.testing.assert_allclose(vote(found, truth, 2), [[0.5, 1.0]])


def test_planted_truth_scores_one_and_noise_is_chance():
    rng = np.random.default_rng(0)
    labels = tuple("abcd")
    single = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, 400)] * 3
    truth = truth_of(single)
    planted = (single + 0.01 * rng.random(single.shape)).astype(np.float32)
    votes = vote(neighbours(planted, 5)[0], truth, 5)
    assert score(truth, votes, votes >= 0.5, labels).overall["macro_f1"] == 1
    noise = rng.normal(size=(400, 32)).astype(np.float32)
    votes = vote(neighbours(noise, 1)[0], truth, 1)
    # One random neighbour calls one label of four: precision and recall are both near 1/4.
    assert score(truth, votes, votes >= 0.5, labels).overall["macro_f1"] == pytest.approx(
        0.25, abs=0.06
    )


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.nbytes)
        return out


def test_memory_does_not_grow_with_the_square_of_rows():
    features = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    with Largest() as largest:
        neighbours(features, 5, [np.arange(3000) // 3], block_bytes=2**20)
    assert largest.bytes <= 2**20  # all similarities at once would be 36e6
