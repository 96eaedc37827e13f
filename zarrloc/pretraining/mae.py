"""MAE: most of an image is hidden, and a small decoder paints it from what is left (He et al. 2022,
"Masked Autoencoders Are Scalable Vision Learners")."""

from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from zarrloc.pretraining.augment import View
from zarrloc.pretraining.objective import Network, Objective

HEAD_WIDTH = 32
"""Width of one of the decoder's attention heads."""


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images `(n, c, y, x)` as patches `(n, p, patch * patch * c)`, row by row."""
    n, c, height, width = images.shape
    cut = images.view(n, c, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def mae_loss(painted: Tensor, patches: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error on hidden patches, each patch's own pixels normalised (section 3).

    `painted`, `patches` `(n, p, pixel)`; `hidden` `(n, p)` bool. Pixels of channels that are absent
    are NaN, and nobody asks for them.
    """
    known = ~patches.isnan()
    count = known.sum(-1, keepdim=True)
    mean = patches.nanmean(-1, keepdim=True)
    variance = (patches - mean).square().nansum(-1, keepdim=True) / (count - 1)
    wanted = ((patches - mean) / (variance + 1e-6).sqrt()).where(known, 0)
    error = (painted - wanted).square().where(known, 0).sum(-1) / count[..., 0]
    return error[hidden].mean()


def sine_cosine(side: int, width: int) -> Tensor:
    """The fixed two-dimensional position embedding `(1, 1 + side * side, width)`, 0 for the class.

    Half of the features tell the column, half the row, as in the reference implementation.
    """
    frequency = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], 1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    grid = torch.cat([columns, rows], 2).flatten(0, 1)
    return torch.cat([torch.zeros(1, width), grid.float()])[None]


class Decoder(nn.Module):
    """Tokens of the shown patches -> pixels of all: `(n, 1 + kept, dim)` -> `(n, p, pixel)`."""

    position: Tensor

    def __init__(self, dim: int, width: int, depth: int, side: int, pixels: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.enter = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("position", sine_cosine(side, width))
        self.blocks = nn.Sequential(
            *(Block(width, width // HEAD_WIDTH, qkv_bias=True) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, pixels)
        nn.init.normal_(self.mask_token, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """`kept` `(n, kept)` says where the shown patches belong."""
        shown = self.enter(tokens)
        patches = self.mask_token.expand(len(tokens), self.position.shape[1] - 1, -1).to(
            shown.dtype
        )
        where = kept[..., None].expand(-1, -1, shown.shape[2])
        patches = patches.scatter(1, where, shown[:, -kept.shape[1] :])
        whole = torch.cat([shown[:, :1], patches], 1) + self.position
        painted: Tensor = self.leave(self.norm(self.blocks(whole))[:, 1:])
        return painted


class Painter(Network):
    """The encoder sees the shown patches alone, which is what makes it cheap."""

    def forward(self, views: list[Tensor], drawn: Tensor | None = None) -> Tensor:
        """`drawn` `(n, kept)` are the shown patches."""
        assert drawn is not None
        tokens = self.backbone.tokens(views[0], kept=drawn)
        painted: Tensor = self.head(tokens, drawn)
        return painted


class Mae(Objective):
    """Reconstruction; a crop and a flip are all the augmentation it needs (table 1e)."""

    teaches: ClassVar[bool] = False
    masks: ClassVar[bool] = True

    def views(self) -> list[View]:
        """One, in its own colours."""
        given = self.config
        return [
            View(
                given.size, given.global_scale, 0.0, given.flip, 0.0,
                remove_channel=0.0, rescale_protein=0.0, turn=given.turn,
            )
        ]  # fmt: skip

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.config.size // self.spec.patch

    def head(self) -> Decoder:
        """The decoder."""
        given, spec = self.config, self.spec
        pixels = spec.patch**2 * len(spec.roles)
        return Decoder(spec.features, given.decoder_width, given.decoder_depth, self.side, pixels)

    def network(self, backbone: nn.Module, head: nn.Module) -> Painter:
        """Encoder and decoder."""
        return Painter(backbone, head)

    def draw(self, n: int, generator: Generator) -> Tensor:
        """The shown patches of each sample, `(n, kept)`."""
        patches = self.side**2
        kept = max(1, min(patches - 1, round(patches * (1 - self.config.mask_ratio))))
        return torch.rand(n, patches, generator=generator).argsort(1)[:, :kept]

    def targets(self, teacher: Network, views: list[Tensor], drawn: Tensor) -> Tensor:
        """The pixels themselves."""
        return patchify(views[0].float(), self.spec.patch)

    def loss(self, answer: Tensor, targets: Tensor, drawn: Tensor) -> Tensor:
        """Squared error where the encoder saw nothing."""
        hidden = torch.ones(targets.shape[:2], dtype=torch.bool, device=targets.device)
        return mae_loss(answer.float(), targets, hidden.scatter(1, drawn, False))
