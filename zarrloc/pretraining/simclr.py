"""SimCLR: two views of one image attract, all other images of the step repel (Chen et al. 2020,
"A Simple Framework for Contrastive Learning of Visual Representations")."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zarrloc.pretraining.augment import View
from zarrloc.pretraining.objective import Objective, Together, mlp, multi_crop_views


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of `a` and `b` `(n, d)`, eq. 1.

    Each of the 2n views is to pick its partner out of the 2n - 1 others, by cosine.
    """
    n, z = len(a), F.normalize(torch.cat([a, b]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, partner)


class SimClr(Objective):
    """Contrast within the samples of a step."""

    teaches: ClassVar[bool] = False
    compares: ClassVar[bool] = True

    def views(self) -> list[View]:
        """Two global views."""
        return multi_crop_views(self.config)[:2]

    def head(self) -> nn.Module:
        """The projection g: one hidden layer."""
        return mlp(self.spec.features, self.config.head_hidden, self.config.projection)

    def network(self, backbone: nn.Module, head: nn.Module) -> Together:
        """One that compares the samples of all processes."""
        return Together(backbone, head)

    def loss(self, answer: Tensor, targets: None, drawn: Tensor) -> Tensor:
        """NT-Xent."""
        return nt_xent(answer[0].float(), answer[1].float(), self.config.contrast_temperature)
