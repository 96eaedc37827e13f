"""DINO: a student learns its own moving average's answers across crops (paper 2.3; Caron et al.
2021, "Emerging Properties in Self-Supervised Vision Transformers").

lightly was left out: its head and loss are the few lines below, and it brings hydra, omegaconf,
antlr and pytorch-lightning along. The tests compare with it.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.augment import View
from zarrloc.pretraining.objective import Network, Objective, multi_crop_views


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
        point = F.normalize(self.mlp(features))
        return F.linear(point, F.normalize(self.prototypes.weight))


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


class Dino(Objective):
    """Centring and sharpening keep the teacher from one answer for all."""

    center: Tensor  # (k,) running mean of the teacher's logits

    def __init__(self, config: PretrainConfig, spec: BackboneSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("center", torch.zeros(config.prototypes))

    def views(self) -> list[View]:
        """Multi-crop."""
        return multi_crop_views(self.config)

    def head(self) -> Head:
        """The projection."""
        given = self.config
        return Head(self.spec.features, given.head_hidden, given.bottleneck, given.prototypes)

    def targets(self, teacher: Network, views: list[Tensor], drawn: Tensor) -> Tensor:
        """The teacher's logits on the global views, `(2, n, k)`."""
        logits: Tensor = teacher(views[:2]).float()
        return logits

    def loss(self, answer: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """Cross-entropy with the teacher's answers."""
        wanted = teacher_probabilities(targets, self.center, self.config.teacher_temperature)
        return dino_loss(answer.float(), wanted, self.config.student_temperature)

    def tally(self, targets: Tensor) -> Tensor:
        """The mean logits `(k,)`."""
        return targets.mean((0, 1))

    def remember(self, tally: Tensor) -> None:
        """Move the centre (eq. 4)."""
        self.center.lerp_(tally, 1 - self.config.center_momentum)

    def outputs(self) -> float:
        """One a prototype: the student's of all views, the teacher's of the global ones."""
        return (len(self.views()) + 2) * self.config.prototypes

    def frozen(self, network: Network) -> Iterable[nn.Parameter]:
        """The prototypes."""
        found: Iterable[nn.Parameter] = network.head.prototypes.parameters()
        return found

    def probabilities(self, teacher: Network, features: Tensor) -> Tensor:
        """The teacher's probabilities, as in the loss, in float64."""
        logits = teacher.head(features).double()
        return teacher_probabilities(logits, self.center, self.config.teacher_temperature)
