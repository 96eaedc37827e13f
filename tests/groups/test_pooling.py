"""Pooling of cells: what plain layers, a field at a time, give."""

import pytest
import torch
from torch import Tensor, nn

from zarrloc.groups.pooling import alone, gated, pooled, pooled_by, typical

FOLDS, WIDE, GATE = 2, 5, 3
SIZES = (4, 1, 3)


class GatedAttention(nn.Module):
    """As AMLab-Amsterdam/AttentionDeepMIL has it: attends, pools, then classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_v = nn.Sequential(nn.Linear(WIDE, GATE), nn.Tanh())
        self.attention_u = nn.Sequential(nn.Linear(WIDE, GATE), nn.Sigmoid())
        self.attention_w = nn.Linear(GATE, 1)
        self.classifier = nn.Linear(WIDE, 1)

    def forward(self, cells: Tensor) -> Tensor:
        """Cells `(n, WIDE)` of one field -> its logit."""
        a = self.attention_w(self.attention_v(cells) * self.attention_u(cells))
        found: Tensor = self.classifier(torch.softmax(a.T, dim=1) @ cells)
        return found.squeeze()


@pytest.fixture
def networks() -> list[list[GatedAttention]]:
    """One a fold and label."""
    torch.manual_seed(0)
    return [[GatedAttention() for _ in range(1)] for _ in range(FOLDS)]


def gates_of(networks: list[list[GatedAttention]]) -> list[Tensor]:
    ones = [each[0] for each in networks]
    v, u = ([getattr(one, f"attention_{name}")[0] for one in ones] for name in ("v", "u"))
    return [
        torch.stack([layer.weight.T for layer in v]),
        torch.stack([layer.bias[None] for layer in v]),
        torch.stack([layer.weight.T for layer in u]),
        torch.stack([layer.bias[None] for layer in u]),
        torch.stack([one.attention_w.weight.T for one in ones]),
    ]


def test_pooling_is_that_of_plain_layers_a_field_at_a_time(
    networks: list[list[GatedAttention]],
) -> None:
    """The classifier is linear: classified and then pooled is pooled and then classified."""
    cells = torch.randn(sum(SIZES), WIDE)
    expected = torch.stack(
        [torch.stack([one[0](part) for part in cells.split(SIZES)]) for one in networks]
    )
    every = cells.expand(FOLDS, -1, -1)
    attention = gated(every, gates_of(networks))
    logits = torch.stack([one[0].classifier(cells) for one in networks])
    field = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
    found = pooled_by(logits, attention, field, 3)[..., 0]
    torch.testing.assert_close(found, expected)

    mixed = torch.randperm(len(field))
    again = pooled_by(logits[:, mixed], attention[:, mixed], field[mixed], 3)[..., 0]
    torch.testing.assert_close(again, expected)

    padded = [torch.full((FOLDS, 3, max(SIZES), 1), 99.0) for _ in range(2)]
    inside = torch.zeros(FOLDS, 3, max(SIZES), dtype=torch.bool)
    for place, (start, stop) in enumerate(((0, 4), (4, 5), (5, 8))):
        inside[:, place, : stop - start] = True
        for whole, part in zip(padded, (logits, attention), strict=True):
            whole[:, place, : stop - start] = part[:, start:stop]
    torch.testing.assert_close(pooled(*padded, inside)[..., 0], expected)


def test_equal_attention_is_a_mean_and_a_field_without_cells_is_nan() -> None:
    logits = torch.tensor([[[1.0, 2.0], [5.0, 4.0], [-3.0, 0.0]]])
    found = pooled_by(logits, torch.full((1, 3, 1), 80.0), torch.tensor([2, 2, 0]), 3)
    torch.testing.assert_close(found[0, [0, 2]], torch.tensor([[-3.0, 0.0], [3.0, 3.0]]))
    assert found[0, 1].isnan().all()


def test_attention_far_apart_does_not_overflow() -> None:
    logits = torch.tensor([[[1.0], [2.0]]])
    found = pooled_by(logits, torch.tensor([[[-900.0], [900.0]]]), torch.tensor([0, 0]), 1)
    assert found.item() == 2


def test_what_training_fields_are_like() -> None:
    """Field by field, of the fold's own alone; a field without cells is none of them."""
    torch.manual_seed(1)
    logits, attention = torch.randn(2, 6, 3), torch.randn(2, 6, 1)
    of = torch.tensor([0, 0, 0, 1, 3, 3])  # field 2 has no cells
    train = torch.tensor([[True, True, False, False], [False, True, False, True]])
    level, rest = typical(logits, attention, of, train)
    for fold, fields in enumerate(([0, 1], [1, 3])):
        levels, calls = [], []
        for field in fields:
            a, s = attention[fold, of == field, 0], logits[fold, of == field]
            levels.append(a.exp().mean().log())
            calls.append((a.softmax(0)[:, None] * s).sum(0))
        torch.testing.assert_close(level[fold], torch.stack(levels).mean())
        torch.testing.assert_close(rest[fold], torch.stack(calls).mean(0))


def test_a_cell_alone_counts_as_far_as_it_is_attended_to() -> None:
    logits, rest = torch.tensor([[[4.0, -4.0]] * 3]), torch.tensor([[0.0, -2.0]])
    attention = torch.tensor([[[-60.0], [1.5], [60.0]]])
    found = alone(logits, attention, torch.tensor([1.5]), rest)
    torch.testing.assert_close(found[0], torch.tensor([[0.0, -2.0], [2.0, -3.0], [4.0, -4.0]]))
