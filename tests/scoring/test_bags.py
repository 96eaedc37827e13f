"""Cells of labelled fields: which are drawn, and what a head learns of the cells themselves."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from zarrloc.config.train import HeadConfig
from zarrloc.groups.heads import Heads
from zarrloc.scoring import bags as module
from zarrloc.scoring.bags import Bags, limits
from zarrloc.scoring.evaluation import training_rows
from zarrloc.scoring.heads import train_heads
from zarrloc.scoring.metrics import Truth

FIELDS, CELLS, CARRIERS, LABELS = 240, 10, 2, 4


def test_cells_of_a_field_are_drawn_without_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a small field, some of a large one, others each epoch and in each fold."""
    monkeypatch.setattr(module, "CELLS", 4)
    field = np.array([1, 0, 1, 1, 2, 1, 0, 1, 1])
    bags = Bags(field, "mean")
    assert bags.width == 4
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    seen = set()
    for _ in range(12):
        cells, inside = bags.drawn(generators).cells(torch.tensor([[1, 0, 2], [1, 1, 0]]))
        assert cells.shape == inside.shape == (2, 3, 4)
        assert inside.sum(2).tolist() == [[4, 2, 1], [4, 4, 2]]
        for fields, rows, there in zip([[1, 0, 2], [1, 1, 0]], cells, inside, strict=True):
            for one, row, real in zip(fields, rows, there, strict=True):
                drawn = row[real].tolist()
                assert len(set(drawn)) == len(drawn)
                assert (field[drawn] == one).all()
        seen |= {tuple(sorted(rows.tolist())) for rows in cells[:, 0]}
    assert len(seen) > 6
    assert Bags(np.array([0, 0, 1]), "mean").width == 2


def planted(seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Features of cells `(field, cell, f)` and which labels each cell shows `(field, cell, label)`.

    Two cells in ten show their field's label. Half of the others are loud: they look as if they
    showed any label, or its opposite, and the last feature says that they are.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(FIELDS, CELLS, LABELS + 3))
    label = np.arange(FIELDS) % LABELS
    shows = np.zeros((FIELDS, CELLS, LABELS), bool)
    shows[np.arange(FIELDS), :CARRIERS, label] = True
    x[..., :LABELS] += 3 * shows
    loud = np.zeros((FIELDS, CELLS), bool)
    loud[:, CARRIERS : CARRIERS + 4] = True
    x[..., :LABELS] += 5 * loud[..., None] * random.normal(size=(FIELDS, CELLS, LABELS))
    x[..., -1] += 5 * loud
    return x.astype(np.float32), shows


def learn(x: npt.NDArray[np.float32], shows: npt.NDArray[np.bool_], pool: str) -> Heads:
    config = HeadConfig(hidden=(), epochs=60, batch=640, lr=0.03, weight_decay=0.01)
    positive = shows.any(1)
    truth = Truth(positive, np.ones_like(positive))
    fold = (np.arange(FIELDS) // LABELS % 3).astype(np.int8)
    train = training_rows(fold, 3)
    flat = x.reshape(-1, x.shape[2])
    field = np.repeat(np.arange(FIELDS), CELLS)
    if pool == "none":
        every = Truth(truth.positive[field], truth.known[field])
        return train_heads(flat, every, train[:, field], config)
    return train_heads(flat, truth, train, config, bags=Bags(field, pool))  # type: ignore[arg-type]


def area(score: npt.NDArray[np.float32], shows: npt.NDArray[np.bool_]) -> float:
    """Under the ROC, a mean over labels."""
    from sklearn.metrics import roc_auc_score

    return float(np.mean([roc_auc_score(t, s) for t, s in zip(shows.T, score.T, strict=True)]))


def test_attention_finds_fields_and_their_cells_better_than_a_mean() -> None:
    """Where few cells show what the field is called; scored on fields never seen."""
    x, shows = planted(0)
    new, truth = planted(1)
    field = np.repeat(np.arange(FIELDS), CELLS)
    fields, cells = {}, {}
    for pool in ("none", "mean", "attention"):
        heads = learn(x, shows, pool)
        flat = new.reshape(-1, new.shape[2])
        p = heads.field_probability(flat, field, FIELDS).mean(0)
        fields[pool] = float((p.argmax(1) == truth.any(1).argmax(1)).mean())
        cells[pool] = area(heads.probability(flat).mean(0), truth.reshape(-1, LABELS))
    assert fields["attention"] > 0.75 > fields["mean"] + 0.2, fields
    assert cells["attention"] > 0.9 > max(cells["mean"], cells["none"]) + 0.05, cells


def test_each_fold_is_what_training_it_alone_gives_and_arrays_come_back() -> None:
    x, shows = planted(2)
    flat, field = x.reshape(-1, x.shape[2]), np.repeat(np.arange(FIELDS), CELLS)
    positive = shows.any(1)
    truth = Truth(positive, np.ones_like(positive))
    train = training_rows((np.arange(FIELDS) % 3).astype(np.int8), 3)
    config = HeadConfig(hidden=(7,), epochs=2, batch=300, lr=0.01, precision="fp32")
    bags = Bags(field, "attention")
    together = train_heads(flat, truth, train, config, bags=bags)
    assert together.pool == "attention"
    for fold in range(3):
        alone = train_heads(flat, truth, train[[fold]], config, streams=[fold], bags=bags)
        for a, b in zip(together.arrays().values(), alone.arrays().values(), strict=True):
            np.testing.assert_allclose(a[fold], b[0], rtol=1e-4, atol=1e-5)
    again = Heads.of_arrays(together.arrays(), pool="attention")
    for given in (together, again):
        found = given.field_probability(flat, field, FIELDS, block=64)
        np.testing.assert_allclose(
            found, together.field_probability(flat, field, FIELDS), rtol=1e-5, atol=1e-6
        )
    mean = train_heads(flat, truth, train, config, bags=Bags(field, "mean"))
    assert mean.gates == ()
    assert Heads.of_arrays(mean.arrays(), pool="mean").pool == "mean"


def test_every_part_of_the_attention_is_trained() -> None:
    x, shows = planted(3)
    flat, field = x.reshape(-1, x.shape[2]), np.repeat(np.arange(FIELDS), CELLS)
    positive = shows.any(1)
    truth, train = Truth(positive, np.ones_like(positive)), np.ones((1, FIELDS), bool)
    one, two = (
        train_heads(
            flat, truth, train, HeadConfig(hidden=(), epochs=n, lr=0.01, weight_decay=0),
            bags=Bags(field, "attention"),
        )
        for n in (1, 2)
    )  # fmt: skip
    for before, after in zip(one.gates, two.gates, strict=True):
        assert (before != after).any()


def test_a_cell_is_called_from_halfway_between_what_is_known_of_cells() -> None:
    """By hand: three fields with the label, two without; one is unknown, one not trained on."""
    field = np.array([0, 0, 1, 2, 2, 3, 3, 4, 5, 6])
    logits = np.array([1, 5, 7, 9, -3, -4, -2, -6, 50, 99], np.float32)[None, :, None]
    logits = np.concatenate([logits, logits], 2)
    positive = np.array([[1, 0], [1, 0], [1, 0], [0, 0], [0, 0], [1, 0], [1, 0]], bool)
    known = np.ones_like(positive)
    known[5] = False
    train = np.array([[1, 1, 1, 1, 1, 1, 0]], bool)
    found = limits(logits, Truth(positive, known), field, train)
    np.testing.assert_allclose(found, [[(-4 + 7) / 2, 0]])  # the second is in no field


def test_cells_are_called_at_half_though_only_fields_were_labelled() -> None:
    """By a mean, whose own zero means nothing, and no worse by attention; fields as before."""
    (x, shows), (new, shown) = planted(0), planted(1)
    plain_ones = [0, 1, *range(CARRIERS + 4, CELLS)]  # and no loud ones
    x, new = ((5 * each[:, plain_ones, :LABELS]).clip(0) for each in (x, new))
    shows, shown = shows[:, plain_ones], shown[:, plain_ones]
    field = np.repeat(np.arange(FIELDS), x.shape[1])
    positive, flat = shows.any(1), x.reshape(-1, x.shape[2])
    truth, train = Truth(positive, np.ones_like(positive)), np.ones((2, FIELDS), bool)
    config = HeadConfig(hidden=(), epochs=40, batch=600, lr=0.03)
    for pool in ("mean", "attention"):
        heads = train_heads(flat, truth, train, config, bags=Bags(field, pool))  # type: ignore[arg-type]
        assert heads.limit is not None
        plain = replace(heads, limit=None)
        own = plain.probability(flat)
        np.testing.assert_allclose(
            heads.probability(flat), expit(logit(own) - heads.limit[:, None]), atol=1e-4
        )
        fields = heads.field_probability(flat, field, FIELDS)
        np.testing.assert_array_equal(fields, plain.field_probability(flat, field, FIELDS))
        again = Heads.of_arrays(heads.arrays(), pool=pool)  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.probability(flat), heads.probability(flat))
        cells = new.reshape(-1, new.shape[2])
        score = {
            name: f1_score(
                shown.reshape(-1, LABELS), one.probability(cells)[0] >= 0.5, average="macro"
            )
            for name, one in (("limit", heads), ("plain", plain))
        }
        gain = score["limit"] - score["plain"]
        assert gain > (0.15 if pool == "mean" else -0.05), (pool, score)
        assert score["limit"] > 0.55
    classes = replace(truth, exclusive=True)
    assert train_heads(flat, classes, train, config, bags=Bags(field, "mean")).limit is None
