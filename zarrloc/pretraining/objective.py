"""The seam of what is learned: an objective's views, its heads, its targets and its loss.

In shapes: n samples, v views of which the first g are global, k prototypes, p patches of a global
view. The loop, the guard, resuming, caches and lineage know this much of an objective and no more.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.augment import View
from zarrloc.pretraining.launch import World


class Network(nn.Module):
    """A backbone and what is trained on top of it; the student, or its moving average."""

    world: World = World()
    """The processes that a step is spread over."""

    def __init__(self, backbone: Any, head: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, views: list[Tensor]) -> Tensor:
        """Views, each `(n, input, y, x)` and equal sizes adjacent -> `(v * n, feature)`.

        Views of one size go through the backbone together.
        """
        sizes = [view.shape[-1] for view in views]
        runs = [i for i in range(len(views)) if i == 0 or sizes[i] != sizes[i - 1]]
        return torch.cat(
            [
                self.backbone(torch.cat(views[start:stop]))
                for start, stop in zip(runs, [*runs[1:], len(views)], strict=True)
            ]
        )

    def forward(self, views: list[Tensor], drawn: Tensor | None = None) -> Any:
        """What the head makes of all views, `(v, n, output)`."""
        output: Tensor = self.head(self.features(views))
        return output.view(len(views), -1, output.shape[1])


class Together(Network):
    """A network whose head sees the samples of all processes, and so does the loss.

    A head with a batch norm, and a loss that compares samples, are then those of one process.
    """

    def forward(self, views: list[Tensor], drawn: Tensor | None = None) -> Any:
        """What the head makes of all views of all processes, `(v, n * processes, output)`."""
        features = self.features(views)
        features = features.view(len(views), -1, features.shape[1])
        whole = self.world.gathered(features.transpose(0, 1)).transpose(0, 1)
        output: Tensor = self.head(whole.flatten(0, 1))
        return output.view(len(views), -1, output.shape[1])


class Objective(nn.Module, ABC):
    """One way to learn without labels. Buffers are what it remembers from step to step."""

    teaches: ClassVar[bool] = True
    """Whether a moving average of the student is its teacher; without, both are the same."""
    masks: ClassVar[bool] = False
    """Whether it hides patches, which needs a ViT whose tokens zarrloc makes itself."""
    compares: ClassVar[bool] = False
    """Whether the loss compares the samples of a step (of all processes, but of one part where
    --accumulate cuts it), of which it then needs two."""

    world: World = World()
    """The processes that a step is spread over."""

    def __init__(self, config: PretrainConfig, spec: BackboneSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @abstractmethod
    def views(self) -> list[View]:
        """How a sample is shown, the global views first."""

    @abstractmethod
    def head(self) -> nn.Module:
        """A fresh head on the backbone's features."""

    def network(self, backbone: nn.Module, head: nn.Module) -> Network:
        """Backbone and head as one module, called as `network(views, drawn)`."""
        return Network(backbone, head)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """What is random in a step beside the views, `(n, ...)`, for all its samples."""
        return torch.empty(n, 0)

    def targets(self, teacher: Network, views: list[Tensor], drawn: Tensor) -> Any:
        """What the student is to answer; called without gradients."""
        return None

    @abstractmethod
    def loss(self, answer: Any, targets: Any, drawn: Tensor) -> Tensor:
        """The student's loss, a mean over the samples."""

    def tally(self, targets: Any) -> Tensor:
        """What is remembered of a step's targets, as a mean over its samples `(m,)`."""
        return torch.empty(0)

    def remember(self, tally: Tensor) -> None:
        """Take the tally of a whole step, of all processes, into the buffers."""

    def outputs(self) -> float:
        """Logits that student and teacher give for a sample on average, all their answers together.

        What the plan of a run needs to know of its memory; few numbers do not count.
        """
        return 0.0

    def frozen(self, network: Network) -> Iterable[nn.Parameter]:
        """Parameters that stand still in the first steps (`--freeze-last`)."""
        return ()

    def probabilities(self, teacher: Network, features: Tensor) -> Tensor | None:
        """The teacher's answer to `features` `(n, feature)` as a distribution `(n, k)`, if any."""
        return None


def multi_crop_views(config: PretrainConfig) -> list[View]:
    """Two global views, the first of them warped and with all its channels, then local ones."""
    shared = {
        "flip": config.flip,
        "turn": config.turn,
        "jitter": config.jitter,
        "rescale_protein": config.rescale_protein,
        "noise": config.noise,
        "blur": config.blur,
    }
    first = View(config.size, config.global_scale, config.warp, remove_channel=0.0, **shared)
    second = View(
        config.size, config.global_scale, 0.0, remove_channel=config.remove_channel, **shared
    )
    local = View(
        config.local_size, config.local_scale, 0.0, remove_channel=config.remove_channel, **shared
    )
    return [first, second, *[local] * config.local_views]


def mlp(*widths: int, norm: bool = False) -> nn.Sequential:
    """Linear layers with a ReLU (and a batch norm, with `norm`) between them."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(widths)):
        if i:
            layers += [nn.BatchNorm1d(before)] * norm + [nn.ReLU()]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
