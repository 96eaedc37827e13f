"""The guard's numbers on embeddings of known health, and what it says of them."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from zarrloc.models.channels import resolve
from zarrloc.pretraining.data import Arrays
from zarrloc.pretraining.dino import Head, Network
from zarrloc.pretraining.guard import (
    Guard,
    Health,
    complaints,
    effective_rank,
    knn_macro_f1,
    whole_images,
)
from zarrloc.pretraining.inputs import Inputs

ROLES = ("nucleus", "protein")


def test_effective_rank_counts_directions() -> None:
    """5 equal directions have rank 5; one direction 1; a constant no more than 1."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    five = np.linalg.qr(rng.normal(size=(2000, 5)) - 0)[0]
    five -= five.mean(0)
    assert effective_rank(np.linalg.qr(five)[0] @ basis[:5]) == pytest.approx(5, abs=0.05)
    assert effective_rank(rng.normal(size=(200, 1)) @ basis[:1]) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.ones((50, 8))) <= 1.01


def test_knn_leaves_the_own_protein_out() -> None:
    """Embeddings that know the protein and nothing else score 0; those of the label score 1."""
    rng = np.random.default_rng(0)
    protein = np.repeat(np.arange(24), 5)
    label = protein % 3
    grade = np.zeros((120, 3), np.uint8)
    grade[np.arange(120), label] = 3
    by_label = np.eye(3)[label] + 0.01 * rng.normal(size=(120, 3))
    by_protein = np.eye(24)[protein] + 0.01 * rng.normal(size=(120, 24))
    assert knn_macro_f1(by_label.astype(np.float32), grade, protein) == 1
    known = knn_macro_f1(by_protein.astype(np.float32), grade, protein)
    assert known is not None
    assert known < 0.4
    assert knn_macro_f1(by_label.astype(np.float32), np.zeros_like(grade), protein) is None


def test_whole_images_in_the_order_asked_for() -> None:
    """Rows of several shards, mixed, each in [0, 1] of its own."""
    images = np.random.default_rng(0).integers(100, 60_000, (6, 2, 8, 8), np.uint16)
    shards = np.array([1, 0, 1, 0, 2, 2])
    source = Arrays(images, ROLES, shards, np.full((6, 2), 8))
    got = whole_images(source, np.array([0, 1, 2, 3, 5]), 8).float().numpy()
    for row, view in zip((0, 1, 2, 3, 5), got, strict=True):
        low, high = images[row].min((1, 2), keepdims=True), images[row].max((1, 2), keepdims=True)
        np.testing.assert_allclose(view, (images[row] - low) / (high - low), atol=1e-3)


class Mean(nn.Module):
    """Features are the inputs' means, or the same for every image."""

    def __init__(self, collapsed: bool) -> None:
        super().__init__()
        self.collapsed = collapsed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean((2, 3))
        return torch.full_like(means, 0.7) if self.collapsed else means


@pytest.mark.parametrize("kind", ["natural", "replicate"])
def test_collapse_is_seen_and_said(kind: str) -> None:
    """An output that tells images apart has information; one that does not is called collapsed."""
    torch.manual_seed(0)
    level = torch.rand(64, 2, 1, 1)
    images = level.expand(-1, -1, 4, 4).half()
    grade = np.where(level[:, :, 0, 0].numpy() > 0.5, 3, 0).astype(np.uint8)
    inputs = Inputs(resolve(kind, ROLES, ROLES, kind), (0.5, 0.5), (0.3, 0.3))
    head = Head(2, 16, 4, 32)
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    guard = Guard(images, grade, np.arange(64), inputs, 0.04)
    healthy, collapsed = (
        guard.check(Network(Mean(c), head).eval(), torch.zeros(32), step)
        for step, c in enumerate((False, True))
    )
    assert healthy.information > 0.5
    assert collapsed.information == pytest.approx(0, abs=1e-6)
    assert healthy.effective_rank > 1.5
    assert complaints(healthy, dataclasses.replace(healthy, effective_rank=9.0)) == []
    assert "COLLAPSE at step 1" in complaints(healthy, collapsed)[0]
    # A fresh head of 65,536 prototypes tells 0.01 nats before anything went wrong.
    fresh = dataclasses.replace(healthy, information=0.01)
    assert complaints(fresh, dataclasses.replace(fresh, step=1)) == []
    assert complaints(fresh, dataclasses.replace(fresh, step=1, information=0.0)) != []


def test_worse_than_its_start_is_said() -> None:
    """The paper's ImageNet B/8 with replication: 0.798 -> 0.710. A hair's breadth is not."""
    start = Health(0, 0.798, 50.0, 0.5, 3.0)
    worse = dataclasses.replace(start, step=100, knn_macro_f1=0.710)
    assert (
        "WORSE THAN ITS START at step 100: kNN macro-F1 0.798 -> 0.710"
        in (complaints(start, worse)[0])
    )
    assert complaints(start, dataclasses.replace(start, knn_macro_f1=0.795)) == []
    assert complaints(start, dataclasses.replace(start, knn_macro_f1=None)) == []
