"""What every objective shares: rates over the steps, the optimizer's groups, the EMA teacher."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


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


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """theta_t <- momentum * theta_t + (1 - momentum) * theta_s (paper, eq. 3).

    Buffers, such as a batch norm's running statistics, are the student's.
    """
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    average(list(teacher.parameters()), list(student.parameters()), 0)
    for own, new in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(new)


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
