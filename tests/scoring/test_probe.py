"""The linear probe against scikit-learn's logistic regression."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from zarrloc.scoring.heads import rarest_label_weights
from zarrloc.scoring.metrics import truth_of
from zarrloc.scoring.probe import train_probe


def test_probe_is_scikit_learns_logistic_regression():
    rng = np.random.default_rng(0)
    features = (5 + 3 * rng.normal(size=(240, 8))).astype(np.float32)
    grade = rng.choice([0, 1, 3], size=(240, 3), p=[0.5, 0.2, 0.3]).astype(np.uint8)
    grade[:, 0] = 3 * (features[:, 0] + rng.normal(size=240) > 5)
    truth = truth_of(grade)
    train = np.arange(240)[None] % 3 != np.arange(3)[:, None]
    probe = train_probe(features, truth, train, strength=0.5)
    weight = rarest_label_weights(truth, train)
    for fold in range(3):
        x = (features - probe.mean[fold]) / probe.scale[fold]
        w = weight[fold] * (weight[fold] > 0).sum() / weight[fold].sum()
        for label in range(3):
            rows = (w > 0) & truth.known[:, label]
            theirs = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(
                x[rows], truth.positive[rows, label], sample_weight=w[rows]
            )
            ours = probe.weights[0][fold, :, label]
            np.testing.assert_allclose(ours, theirs.coef_[0], atol=2e-3)
            np.testing.assert_allclose(
                probe.biases[0][fold, label], theirs.intercept_[0], atol=2e-3
            )


def test_probe_separates_what_is_separable():
    rng = np.random.default_rng(0)
    positive = rng.random((200, 4)) < 0.3
    positive[~positive.any(axis=1), 0] = True
    truth = truth_of(positive.astype(np.uint8) * 3, "negative")
    train = np.arange(200)[None] % 2 != np.arange(2)[:, None]
    features = (positive + 0.05 * rng.normal(size=positive.shape)).astype(np.float32)
    assert ((train_probe(features, truth, train).probability(features) >= 0.5) == positive).all()
