"""The seam of objectives: which views a loss compares, and what several processes see together."""

import pytest
import torch
from torch import Tensor, nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining import simclr, vicreg
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.objective import Together
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
