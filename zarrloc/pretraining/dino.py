"""DINO: projection head, loss, centring, EMA teacher and schedules (paper 2.3; Caron et al. 2021).

lightly was left out: its head and loss are the few lines below, and it brings hydra, omegaconf,
antlr and pytorch-lightning along.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """Three-layer MLP to a unit-length bottleneck, then the cosine with each prototype.

    Features `(n, dim)` -> logits `(n, prototypes)`. The prototypes' lengths are fixed at one
    (`norm_last_layer` of the reference implementation).
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.prototypes = nn.Linear(bottleneck, prototypes, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines `(n, prototypes)`."""
        point = F.normalize(self.mlp(features), dim=-1)
        return F.linear(point, F.normalize(self.prototypes.weight, dim=-1))


class Network(nn.Module):
    """Backbone and head; views of one size go through the backbone together."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, views: list[Tensor]) -> Tensor:
        """Views, each `(n, input, y, x)` and equal sizes adjacent -> `(view, n, prototypes)`."""
        sizes = [view.shape[-1] for view in views]
        runs = [i for i in range(len(views)) if i == 0 or sizes[i] != sizes[i - 1]]
        features = torch.cat(
            [
                self.backbone(torch.cat(views[start:stop]))
                for start, stop in zip(runs, [*runs[1:], len(views)], strict=True)
            ]
        )
        logits: Tensor = self.head(features)
        return logits.view(len(views), -1, logits.shape[1])


def teacher_probabilities(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Centred and sharpened teacher output `(view, n, k)`, without gradient."""
    return ((logits.detach() - center) / temperature).softmax(-1)


def dino_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy H(P_t(x), P_s(x')) over global x and all other views x' (paper, eq. 2).

    `student` `(view, n, k)` logits with the global views first; `targets` `(global, n, k)` are
    the teacher's probabilities.
    """
    views, n, _ = student.shape
    log_probability = (student / temperature).log_softmax(-1)
    pairs = torch.einsum("gnk,vnk->gv", targets, log_probability) / n
    other = 1 - torch.eye(len(targets), views).to(pairs)
    return -(pairs * other).sum() / other.sum()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """theta_t <- momentum * theta_t + (1 - momentum) * theta_s (paper, eq. 3)."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)


def parameter_groups(network: nn.Module) -> list[dict[str, object]]:
    """Matrices with weight decay; biases, norms and other vectors without."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False, "weight_decay": 0.0},
    ]


def freeze(parameters: Iterable[nn.Parameter]) -> None:
    """Drop gradients, so that the optimizer leaves these parameters alone this step."""
    for parameter in parameters:
        parameter.grad = None


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to `start` over `warmup` steps, then a half cosine to `end`."""

    start: float
    end: float
    steps: int
    warmup: int = 0

    def at(self, step: int) -> float:
        """The value at a step; `end` is reached at the last, `steps - 1`, and stays."""
        if step < self.warmup:
            return self.start * step / self.warmup
        passed = (step - self.warmup) / max(1, self.steps - 1 - self.warmup)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * min(1, passed))) / 2
