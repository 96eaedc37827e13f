"""Heads: every fold as if trained alone, as plain PyTorch trains it, on what is known only."""

import numpy as np
import pytest
import torch
from torch import nn

from zarrloc.config.train import HeadConfig
from zarrloc.errors import ConfigError
from zarrloc.scoring import heads as module
from zarrloc.scoring.heads import (
    Heads,
    precision_of,
    rarest_label_weights,
    standardisation,
    train_heads,
)
from zarrloc.scoring.metrics import Truth, score, truth_of

SMALL = HeadConfig(hidden=(24, 12), epochs=5, batch=40, lr=1e-2, precision="fp32")


def problem(n=203, f=10, labels=4, folds=3, seed=0):
    rng = np.random.default_rng(seed)
    grade = rng.choice([0, 1, 3], size=(n, labels), p=[0.6, 0.1, 0.3]).astype(np.uint8)
    features = (3 + rng.normal(size=(n, f)) * rng.uniform(0.5, 4, f)).astype(np.float32)
    fold = np.arange(n) % folds
    return features, truth_of(grade), np.stack([fold != k for k in range(folds)])


@pytest.mark.parametrize("resample", ["epoch", "once"])
def test_each_fold_is_what_training_it_alone_gives(resample):
    features, truth, train = problem()
    config = SMALL.model_copy(update={"resample": resample})
    together = train_heads(features, truth, train, config, draws=130)
    assert not np.allclose(together.weights[0][0], together.weights[0][1])
    for fold in range(3):
        alone = train_heads(features, truth, train[[fold]], config, streams=[fold], draws=130)
        for a, b in zip(together.arrays().values(), alone.arrays().values(), strict=True):
            np.testing.assert_allclose(a[fold], b[0], rtol=1e-4, atol=1e-5)


def test_bf16_products_train_the_same_head():
    features, truth, train = problem(n=400)
    exact, fast = (
        train_heads(features, truth, train, SMALL.model_copy(update={"precision": precision}))
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(exact.weights[0], fast.weights[0])
    assert all(part.dtype == np.float32 for part in fast.arrays().values())
    one, other = exact.probability(features), fast.probability(features)
    assert np.abs(one - other).max() < 0.02 < one.std()


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_what_the_processor_has(native, monkeypatch):
    able = {"avx512_bf16": native, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert precision_of("auto", "cpu") == ("bf16" if native else "fp32")
    assert precision_of("fp32", "cpu") == "fp32"


def test_one_fold_is_plain_pytorch(monkeypatch):
    """The same start, samples and dropout through nn.Linear, BCEWithLogitsLoss and AdamW."""
    features, truth, train = problem()
    started, orders, masks = [], [], []

    def record(name, into):
        original = getattr(module, name)

        def wrapped(*arguments):
            out = original(*arguments)
            into.append([part.clone() for part in out] if isinstance(out, tuple) else out)
            return out

        monkeypatch.setattr(module, name, wrapped)

    record("_linear", started)
    record("_keep", masks)
    epochs = module._epochs
    monkeypatch.setattr(
        module, "_epochs", lambda *a: (orders.append(order) or order for order in epochs(*a))
    )
    got = train_heads(features, truth, train[[0]], SMALL, draws=132)  # 4 batches of 33

    rows = train[0]
    x = torch.from_numpy((features - features[rows].mean(0)) / features[rows].std(0))
    y = torch.from_numpy(truth.positive).float()
    known = torch.from_numpy(truth.known)
    layers = []
    for weight, bias in started:
        layer = nn.Linear(weight.shape[1], weight.shape[2])
        layer.weight.data, layer.bias.data = weight[0].T.clone(), bias[0, 0].clone()
        layers.append(layer)
    model = nn.ModuleList(layers)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=1e-2, weight_decay=0.04, betas=(0.9, 0.999), fused=False
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, SMALL.epochs)
    kept = iter(masks)
    for order in orders:
        for index in order[0].split(33):
            h = x[index]
            for layer in layers[:-1]:
                h = torch.relu(layer(h)) * next(kept)[0] / 0.5
            loss = nn.BCEWithLogitsLoss()(layers[-1](h)[known[index]], y[index][known[index]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    assert next(kept, None) is None
    for layer, weight, bias in zip(layers, got.weights, got.biases, strict=True):
        np.testing.assert_allclose(layer.weight.detach().numpy().T, weight[0], atol=2e-5)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias[0], atol=2e-5)


def test_dropout_keeps_the_share_it_says_and_every_fold_differs():
    noise = [torch.Generator().manual_seed(s) for s in range(3)]
    for p in (0.999, 0.0, 0.25, 0.5):
        keep = module._keep(torch.Size((3, 200, 50)), p, noise)
        assert keep.any()
        share = keep.float().mean(dim=(1, 2))
        assert ((share - (1 - p)).abs() < 0.015).all()
    assert (keep[0] != keep[1]).float().mean() == pytest.approx(0.5, abs=0.02)
    columns = keep.float()
    assert torch.corrcoef(columns[0].T).triu(1).abs().max() < 0.35  # units are independent


def test_dropped_relu_has_the_gradient_of_relu_then_dropout():
    z = torch.randn(2, 30, 7, requires_grad=True)
    noise = [torch.Generator().manual_seed(s) for s in range(2)]
    keep = module._keep(z.shape, 0.5, [torch.Generator().manual_seed(s) for s in range(2)])
    out = torch.rand(2, 30, 7)
    (module._DroppedReLU.apply(z * 1, 0.5, noise) * out).sum().backward()
    got, z.grad = z.grad, None
    (torch.relu(z) * keep / 0.5 * out).sum().backward()
    torch.testing.assert_close(got, z.grad)
    assert module._DroppedReLU.apply(torch.ones(2, 30, 7), 0.999, noise).isfinite().all()


def test_rare_labels_are_drawn_as_often_as_common_ones():
    rng = np.random.default_rng(0)
    label = rng.choice(3, 2000, p=[0.9, 0.08, 0.02])
    positive = np.eye(3, dtype=bool)[label]
    positive[:5] = False
    weight = rarest_label_weights(Truth(positive, np.ones_like(positive)), np.ones((1, 2000), bool))
    assert (weight[0, :5] == 0).all()
    mass = [weight[0, positive[:, i]].sum() for i in range(3)]
    np.testing.assert_allclose(mass, 1)


def test_a_row_weighs_by_its_rarest_label_in_its_own_training_rows():
    positive = np.array([[1, 1], [1, 0], [1, 0], [0, 0], [1, 1]], bool)
    train = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], bool)
    weight = rarest_label_weights(Truth(positive, np.ones_like(positive)), train)
    np.testing.assert_allclose(weight[0], [1, 1 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(weight[1], [0, 1 / 3, 1 / 3, 0, 1])


def test_weak_grades_change_nothing_when_ignored():
    features, _, train = problem()
    rng = np.random.default_rng(1)
    strong = rng.choice([0, 3], size=(len(features), 4)).astype(np.uint8)
    strong[:, 0] = 3
    faint = (rng.random(strong.shape) < 0.2) & (np.arange(4) > 0)
    one, two = np.where(faint, 1, strong), np.where(faint, 2, strong)
    a, b = (train_heads(features, truth_of(g.astype("u1")), train, SMALL) for g in (one, two))
    np.testing.assert_array_equal(a.weights[0], b.weights[0])
    c = train_heads(features, truth_of(one.astype("u1"), "positive"), train, SMALL)
    assert not np.allclose(a.weights[0], c.weights[0])


def test_standardisation_is_scikit_learns():
    from sklearn.preprocessing import StandardScaler

    features, _, train = problem()
    features[:, 3] = 7
    mean, scale = standardisation(features, train)
    for fold, rows in enumerate(train):
        theirs = StandardScaler().fit(features[rows].astype(np.float64))
        np.testing.assert_allclose(mean[fold], theirs.mean_, rtol=1e-6)
        np.testing.assert_allclose(scale[fold], theirs.scale_, rtol=1e-6)


def test_planted_truth_is_learned_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = tuple("abcd")
    positive = rng.random((600, 4)) < 0.3
    truth = Truth(positive, np.ones_like(positive))
    train = np.arange(600)[None] % 5 != np.arange(5)[:, None]
    config = HeadConfig(hidden=(32,), dropout=0.1, epochs=40, batch=100, lr=1e-2)
    found = {}
    for name, features in {
        "planted": positive + 0.02 * rng.normal(size=(600, 4)),
        "noise": rng.normal(size=(600, 4)),
    }.items():
        x = features.astype(np.float32)
        trained = train_heads(x, truth, train, config)
        probability = trained.probability(x)[np.arange(600) % 5, np.arange(600)]
        found[name] = score(truth, probability, probability >= 0.5, labels).overall
    assert found["planted"]["macro_f1"] == 1
    assert found["noise"]["macro_auroc"] == pytest.approx(0.5, abs=0.06)


def test_linear_probe_is_a_head_without_hidden_layers():
    features, truth, train = problem()
    trained = train_heads(features, truth, train, SMALL.model_copy(update={"hidden": ()}))
    assert [w.shape for w in trained.weights] == [(3, 10, 4)]


def test_probabilities_are_the_formula_and_nan_rows_stay_nan():
    features, truth, train = problem()
    trained = train_heads(features, truth, train, SMALL)
    features[5] = np.nan
    got = trained.probability(features, block=50)
    assert got.shape == (3, 203, 4)
    assert np.isnan(got[:, 5]).all()
    h = (features[7].astype(np.float64) - trained.mean[1]) / trained.scale[1]
    for index, (w, b) in enumerate(zip(trained.weights, trained.biases, strict=True)):
        h = (np.maximum(h, 0) if index else h) @ w[1] + b[1]
    np.testing.assert_allclose(got[1, 7], 1 / (1 + np.exp(-h)), rtol=1e-4)


def test_arrays_round_trip():
    features, truth, train = problem()
    trained = train_heads(features, truth, train, SMALL)
    again = Heads.of_arrays(trained.arrays())
    np.testing.assert_array_equal(again.probability(features), trained.probability(features))


def test_a_fold_without_labels_is_refused():
    features, truth, train = problem()
    truth.positive[train[1]] = False
    with pytest.raises(ConfigError, match=r"fold \[1\] has no labelled row"):
        train_heads(features, truth, train, SMALL)
