"""DINOv2: DINO on whole images, iBOT on hidden patches, and features spread apart (Oquab et al.
2023; Zhou et al. 2021, "iBOT"; Sablayrolles et al. 2018 for KoLeo).

Three things beside DINO: patches of the student's global views are hidden, and it says what its
teacher, who sees them, answers there; the teacher's answers are evened out over the prototypes by
Sinkhorn-Knopp instead of a centre; and KoLeo drives each image's feature from its nearest other.
Registers (Darcet et al. 2023) are a matter of the ViT: `--arch-options reg_tokens=4`.
"""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from zarrloc.pretraining.augment import View
from zarrloc.pretraining.dino import Head, dino_loss
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.objective import Network, Objective, multi_crop_views

ALONE = World()
ITERATIONS = 3
LARGEST_ASPECT = 1 / 0.3
"""Largest aspect ratio of a hidden rectangle."""


def sinkhorn(
    logits: Tensor, temperature: float, iterations: int = ITERATIONS, world: World = ALONE
) -> Tensor:
    """Probabilities `(n, k)` whose prototypes are used alike: `logits` `(n, k)`, no gradient.

    Alike over the rows of all processes, of which each has as many as it has.
    """
    logits = logits.detach().double() / temperature
    highest = logits.max() if len(logits) else logits.new_tensor(-torch.inf)
    share = (logits - world.highest(highest)).exp()
    for _ in range(iterations):  # the reference's constant factors cancel, and are left out
        columns = world.total(share.sum(0, keepdim=True))
        share = share / columns.clamp(min=1e-300)
        share = share / share.sum(1, keepdim=True).clamp(min=1e-300)
    return share.float()


def ibot_loss(student: Tensor, targets: Tensor, hidden: Tensor, temperature: float) -> Tensor:
    """Cross-entropy on hidden patches, a mean over each view's own, then over all views.

    `student` logits and `targets` `(m, k)` are of the hidden patches, in the order of `hidden`
    `(views, p)` bool; a view that hides none counts as 0.
    """
    each = -(targets * (student / temperature).log_softmax(-1)).sum(-1)
    weight = (hidden / hidden.sum(1, keepdim=True).clamp(min=1))[hidden]
    return (each * weight).sum() / len(hidden)


def koleo_loss(features: Tensor, eps: float = 1e-8) -> Tensor:
    """-mean log of the distance to the nearest other, for unit-length `features` `(n, f)`."""
    unit = F.normalize(features, eps=eps)
    with torch.no_grad():
        cosine = unit @ unit.T
        nearest = cosine.fill_diagonal_(-torch.inf).argmax(1)
    distance = nn.functional.pairwise_distance(unit, unit[nearest], eps=eps)
    return -(distance + eps).log().mean()


def rectangles(side: int, count: int, generator: Generator) -> Tensor:
    """`count` patches of a `side` x `side` grid, `(side * side,)` bool, hidden in rectangles."""
    hidden = torch.zeros(side, side, dtype=torch.bool)
    while (left := count - int(hidden.sum())) > 0:
        area, aspect, top, start = torch.rand(4, generator=generator).tolist()
        wanted = max(1.0, area * left)
        ratio = LARGEST_ASPECT ** (2 * aspect - 1)
        height = min(side, max(1, round((wanted * ratio) ** 0.5)))
        width = min(side, max(1, round((wanted / ratio) ** 0.5)))
        y, x = int(top * (side - height + 1)), int(start * (side - width + 1))
        before = hidden.clone()
        hidden[y : y + height, x : x + width] = True
        surplus = (hidden & ~before).flatten().nonzero()[left:]  # the last rectangle is cut short
        hidden.view(-1)[surplus] = False
    return hidden.flatten()


class Answer(NamedTuple):
    """What a network says of its views."""

    views: Tensor
    """Logits `(v, n, k)` of the class tokens."""
    patches: Tensor
    """Logits `(m, k)` of the hidden patches."""
    features: Tensor
    """Class tokens `(2, n, feature)` of the global views."""


class Heads(nn.Module):
    """A projection for images and one for patches, and what stands in a hidden patch's place."""

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.image = Head(dim, hidden, bottleneck, prototypes)
        self.patch = Head(dim, hidden, bottleneck, prototypes)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))


class Masked(Network):
    """The student sees its global views with patches hidden, the teacher whole ones."""

    def forward(self, views: list[Tensor], drawn: Tensor | None = None) -> Answer:
        """`drawn` `(n, 2, p)` bool says which patches are asked for, `(2 n, p)` view by view."""
        assert drawn is not None
        n, backbone = len(drawn), self.backbone
        hidden = drawn.transpose(0, 1).flatten(0, 1)
        shown = {"hidden": hidden, "token": self.head.mask_token} if self.training else {}
        tokens = backbone.tokens(torch.cat(views[:2]), **shown)
        class_tokens, patches = tokens[:, 0], tokens[:, -hidden.shape[1] :]
        every = [class_tokens, self.features(views[2:])] if len(views) > 2 else [class_tokens]
        logits = self.head.image(torch.cat(every))
        return Answer(
            logits.view(len(views), n, -1),
            self.head.patch(patches[hidden]),
            class_tokens.view(2, n, -1),
        )


class DinoV2(Objective):
    """Image, patch and spread together."""

    masks: ClassVar[bool] = True
    compares: ClassVar[bool] = True

    def views(self) -> list[View]:
        """Multi-crop."""
        return multi_crop_views(self.config)

    def head(self) -> Heads:
        """Two projections: tied ones do worse at scale (Oquab et al., section 4)."""
        given = self.config
        return Heads(self.spec.features, given.head_hidden, given.bottleneck, given.prototypes)

    def network(self, backbone: nn.Module, head: nn.Module) -> Masked:
        """With hidden patches."""
        return Masked(backbone, head)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Hidden patches `(n, 2, p)`: half of the views hide a share of `mask_range`."""
        low, high = self.config.mask_range
        side = self.config.size // self.spec.patch
        patches = side**2
        share = low + (high - low) * torch.rand(n, 2, generator=generator)
        share *= torch.rand(n, 2, generator=generator) < self.config.mask_probability
        counts = (share.flatten() * patches).round().int().tolist()
        masks = [rectangles(side, count, generator) for count in counts]
        return torch.stack(masks).view(n, 2, patches)

    def targets(
        self, teacher: Network, views: list[Tensor], drawn: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The teacher's probabilities for the global views `(2, n, k)` and hidden patches."""
        answer, warmth = teacher(views[:2], drawn), self.config.teacher_temperature
        images = sinkhorn(answer.views.float().flatten(0, 1), warmth, world=self.world)
        patches = sinkhorn(answer.patches.float(), warmth, world=self.world)
        return images.view(2, len(drawn), -1), patches

    def loss(self, answer: Answer, targets: tuple[Tensor, Tensor], drawn: Tensor) -> Tensor:
        """L_DINO + L_iBOT + weight * L_KoLeo."""
        given, (images, patches) = self.config, targets
        hidden = drawn.transpose(0, 1).flatten(0, 1)
        warmth = given.student_temperature
        every = [self.world.gathered(one) for one in answer.features.float()]
        spread = torch.stack([koleo_loss(one) for one in every]).sum()
        return (
            dino_loss(answer.views.float(), images, warmth)
            + given.ibot_weight * ibot_loss(answer.patches.float(), patches, hidden, warmth)
            + given.koleo_weight * spread
        )

    def outputs(self) -> float:
        """One a prototype: as DINO's, and both networks' of the hidden patches of two views."""
        given = self.config
        share = given.mask_probability * sum(given.mask_range) / 2
        hidden = 2 * share * (given.size // self.spec.patch) ** 2
        return (len(self.views()) + 2 + 2 * hidden) * given.prototypes

    def frozen(self, network: Network) -> Iterable[nn.Parameter]:
        """Both heads' prototypes."""
        head = network.head
        return [*head.image.prototypes.parameters(), *head.patch.prototypes.parameters()]

    def probabilities(self, teacher: Network, features: Tensor) -> Tensor:
        """Sharpened alone: Sinkhorn-Knopp would make any answer even."""
        logits: Tensor = teacher.head.image(features).double()
        return (logits / self.config.teacher_temperature).softmax(-1)
