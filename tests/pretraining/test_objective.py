"""The seam of objectives: which views a loss compares, and what several processes see together."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining import simclr, vicreg
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.objective import Network, Together, multi_crop_views
from zarrloc.pretraining.objectives import OBJECTIVES, objective_of

SPEC = BackboneSpec("toy", "none", ("nucleus", "protein"), 4, 5, "")


def test_what_an_objective_is() -> None:
    """Of what the loop asks: a teacher beside the student, hidden patches, samples compared."""
    is_so = {
        what: {name for name, kind in OBJECTIVES.items() if getattr(kind, what)}
        for what in ("teaches", "masks", "compares")
    }
    assert is_so == {
        "teaches": {"dino", "dinov2"},
        "masks": {"dinov2", "mae"},
        "compares": {"dinov2", "simclr", "vicreg"},
    }


@pytest.mark.parametrize("name", ["simclr", "vicreg"])
def test_a_loss_compares_the_two_views(name: str) -> None:
    """Neither with itself: two that agree cost less than two that do not."""
    config = PretrainConfig(arch="none", objective=name, contrast_temperature=0.3)
    objective = objective_of(config, SPEC)
    a, b = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = {"simclr": simclr.nt_xent(a, b, 0.3), "vicreg": vicreg.vicreg_loss(a, b)}[name]
    found = objective.loss(torch.stack([a, b]), None, torch.empty(6, 0))
    torch.testing.assert_close(found, expected)
    for one in (a, b):
        assert objective.loss(torch.stack([one, one]), None, torch.empty(6, 0)) < 0.9 * found


@pytest.mark.parametrize(
    ("name", "widths", "norms"), [("simclr", (5, 12, 7), 0), ("vicreg", (5, 12, 12, 12), 2)]
)
def test_a_projection_is_as_its_paper_has_it(
    name: str, widths: tuple[int, ...], norms: int
) -> None:
    """Something not linear between two layers, and a batch norm before it in VICReg's expander."""
    config = PretrainConfig(arch="none", objective=name, head_hidden=12, projection=7)
    head = objective_of(config, SPEC).head()
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert (linear[0].in_features, *(layer.out_features for layer in linear)) == widths
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in head) == norms
    kinds = [type(layer) for layer in head]
    between = [nn.BatchNorm1d, nn.ReLU] if norms else [nn.ReLU]
    assert kinds == [nn.Linear, *[*between, nn.Linear] * (len(widths) - 2)]


def test_views_of_the_papers_multi_crop() -> None:
    """Only the first is warped and always has all channels; the small ones come last."""
    shared = {"flip": 0.1, "turn": 0.2, "jitter": 0.3, "rescale_protein": 0.4, "noise": 0.5}
    config = PretrainConfig(
        arch="none", size=32, local_size=16, local_views=3, global_scale=(0.5, 0.9), blur=0.6,
        local_scale=(0.1, 0.3), warp=0.35, remove_channel=0.45, **shared,
    )  # fmt: skip
    first, second, *local = (dataclasses.asdict(view) for view in multi_crop_views(config))
    shared["blur"] = 0.6
    assert first == {
        **shared, "size": 32, "scale": (0.5, 0.9), "warp": 0.35, "remove_channel": 0.0
    }  # fmt: skip
    assert second == {**first, "warp": 0.0, "remove_channel": 0.45}
    assert local == [{**second, "size": 16, "scale": (0.1, 0.3)}] * 3


def test_views_of_one_size_go_through_the_backbone_together() -> None:
    """And come back in their order, view by view."""
    sizes: list[tuple[int, ...]] = []

    class Seen(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(tuple(images.shape))
            return images.flatten(1)[:, :8]

    network = Network(Seen(), nn.Linear(8, 3))
    views = [torch.rand(4, 2, size, size) for size in (6, 6, 3, 3, 3, 6)]
    found = network(views)
    assert sizes == [(8, 2, 6, 6), (12, 2, 3, 3), (4, 2, 6, 6)]
    for view, answer in zip(views, found, strict=True):
        torch.testing.assert_close(answer, network.head(view.flatten(1)[:, :8]))


def test_what_an_objective_does_without() -> None:
    """SimCLR draws nothing beside its views, remembers nothing, and its output counts as none."""
    objective = objective_of(PretrainConfig(arch="none", objective="simclr"), SPEC)
    assert objective.draw(6, torch.Generator()).shape == (6, 0)
    assert objective.tally(None).shape == (0,)
    assert objective.outputs() == 0
    assert not objective.state_dict()
    assert [*objective.frozen(objective.network(nn.Identity(), objective.head()))] == []


class Twice(World):
    """As if another process had the same samples, negated."""

    def gathered(self, values: Tensor) -> Tensor:
        return torch.cat([values, -values])


def test_a_network_that_compares_sees_every_sample_of_a_step() -> None:
    """View by view, own samples first; the head's input is features, whatever their number."""
    network = Together(nn.Flatten(), nn.Linear(8, 3, bias=False))
    network.world = Twice()
    views = [torch.randn(4, 2, 2, 2) for _ in range(3)]
    answer = network(views)
    assert answer.shape == (3, 8, 3)
    for view, found in zip(views, answer, strict=True):
        own = view.flatten(1) @ network.head.weight.T
        torch.testing.assert_close(found, torch.cat([own, -own]))
