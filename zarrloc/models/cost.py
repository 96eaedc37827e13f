"""What features cost: the arithmetic of a network by its shape, and what a core does of it."""

from typing import NamedTuple

import torch

from zarrloc.models.specs import BackboneSpec
from zarrloc.models.vit import Backbone

CORE_FLOPS = 3e10
"""What a ViT reaches on one core at least; some have three times that."""
CLASSIC_S = 0.5 / 600**2
"""A pixel of two channels' classic features, on a core."""


class Shape(NamedTuple):
    """The sizes of a network that its arithmetic depends on."""

    weights: int
    block_weights: int
    depth: int
    width: int


_SHAPES: dict[str, Shape] = {}


def shape_of(spec: BackboneSpec) -> Shape:
    """Weights, blocks and width of a backbone, built once a process and without memory."""
    key = repr((spec.timm_model, len(spec.roles), dict(spec.options)))
    if key not in _SHAPES:
        with torch.device("meta"):
            vit = Backbone(spec).vit
        blocks = getattr(vit, "blocks", ())
        _SHAPES[key] = Shape(
            sum(p.numel() for p in vit.parameters()),
            sum(p.numel() for block in blocks for p in block.parameters()),
            len(blocks),
            int(vit.num_features),
        )
    return _SHAPES[key]


def tokens_of(spec: BackboneSpec, height: int, width: int, channels: int = 1) -> int:
    """Tokens of one image of so many pixels: its patches, of each channel by itself or of all."""
    patches = -(-height // spec.patch) * -(-width // spec.patch)
    return 1 + patches * (channels if spec.tokens == "channel" else 1)


def forward_flops(spec: BackboneSpec, tokens: int) -> float:
    """Floating-point operations of one image's forward pass."""
    shape = shape_of(spec)
    if not shape.depth:  # no ViT: its weights once a token
        return 2.0 * shape.weights * tokens
    return 2.0 * shape.block_weights * tokens + 4.0 * shape.depth * tokens**2 * shape.width
