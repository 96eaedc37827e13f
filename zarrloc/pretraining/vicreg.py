"""VICReg: views agree, each dimension keeps its variance, no two say the same (Bardes et al. 2022,
"VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning")."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zarrloc.pretraining.augment import View
from zarrloc.pretraining.objective import Objective, Together, mlp, multi_crop_views

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""lambda, mu and nu of eq. 6."""


def variance(z: Tensor, eps: float = 1e-4) -> Tensor:
    """How far the sd of each dimension of `z` `(n, d)` falls short of 1, eq. 1 and 2."""
    return F.relu(1 - (z.var(0) + eps).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """The squared covariances of all pairs of dimensions of `z` `(n, d)`, over d, eq. 3 and 4."""
    centred = z - z.mean(0)
    found = centred.T @ centred / (len(z) - 1)
    return (found.square().sum() - found.diagonal().square().sum()) / z.shape[1]


def vicreg_loss(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 6 of two views' expansions `(n, d)`, the variance as a mean of both (their code)."""
    return (
        INVARIANCE * F.mse_loss(a, b)
        + VARIANCE * (variance(a) + variance(b)) / 2
        + COVARIANCE * (covariance(a) + covariance(b))
    )


class VicReg(Objective):
    """No teacher, no negatives: collapse is forbidden outright."""

    teaches: ClassVar[bool] = False
    compares: ClassVar[bool] = True

    def views(self) -> list[View]:
        """Two global views."""
        return multi_crop_views(self.config)[:2]

    def head(self) -> nn.Module:
        """The expander: three layers of one width."""
        wide = self.config.head_hidden
        return mlp(self.spec.features, wide, wide, wide, norm=True)

    def network(self, backbone: nn.Module, head: nn.Module) -> Together:
        """One that compares the samples of all processes."""
        return Together(backbone, head)

    def loss(self, answer: Tensor, targets: None, drawn: Tensor) -> Tensor:
        """Variance, invariance, covariance."""
        return vicreg_loss(answer[0].float(), answer[1].float())
