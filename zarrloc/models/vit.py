"""The backbone as a torch module: images of any size in, one feature vector an image out."""

import functools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zarrloc.errors import ConfigError
from zarrloc.models import torchvision_shim  # noqa: F401  (before timm)
from zarrloc.models.specs import RGB, BackboneSpec


class Backbone(nn.Module):
    """A timm network with the numbers of its original implementation at every image size.

    `vit` is the timm module; its state dict is what `zarrloc.models.weights` reads, hashes and
    writes.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.vit = _build(spec)
        if spec.tokens == "channel":
            named = torch.zeros(len(spec.roles), self.vit.num_features)
            self.vit.channel_embed = nn.Parameter(named)
        if spec.pool_heads:
            with torch.random.fork_rng(devices=[]):
                self.vit.pool_model = GatedPool(self.vit.num_features, spec.pool_heads)
        self.weights_hash = ""
        self.weights_source = ""

    @property
    def roles(self) -> tuple[str, ...]:
        """The role of each input."""
        return self.spec.roles

    @property
    def features(self) -> int:
        """Width of the feature vector."""
        return self.spec.features

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return self.spec.patch

    def forward(self, images: Tensor, last_blocks: int = 1) -> Tensor:
        """Embed `images` (n, inputs, y, x) float32 as (n, last_blocks * features) float32.

        y and x are multiples of the patch. The feature is the class token after the final norm,
        all tokens pooled by gated attention where the spec has heads for it, or what the timm
        model pools where it has no class token. Of several `last_blocks` it is the class token of
        each, after that same norm, the last one's at the end, as DINOv2's
        `get_intermediate_layers` gives them.
        """
        self.refuse_blocks(last_blocks)
        _, inputs, height, width = images.shape
        if inputs != len(self.roles) or height % self.patch or width % self.patch:
            raise ConfigError(
                f"{self.spec.name}: got images of {(inputs, height, width)}; expected "
                f"{len(self.roles)} inputs, y and x multiples of {self.patch}; "
                "zarrloc.models.preprocess.prepare makes them so"
            )
        if self.spec.position == "timm":
            features: Tensor = self.vit(images)
            return features.float()
        if self.spec.pool_heads:
            pooled: Tensor = self.vit.pool_model(self.tokens(images))
            return pooled.float()
        seen: list[Tensor] = []
        self._blocks(images, seen=seen)
        return torch.cat([self.vit.norm(token) for token in seen[-last_blocks:]], dim=1).float()

    def refuse_blocks(self, last_blocks: int) -> None:
        """Refuse class tokens of blocks that there are not. Raises `ConfigError`."""
        if last_blocks == 1:
            return
        if self.spec.position == "timm" or self.spec.pool_heads:
            why = f"got {last_blocks}, but {self.spec.name} gives no class token alone; give 1"
        elif last_blocks > len(self.vit.blocks):
            why = f"got {last_blocks}, but {self.spec.name} has {len(self.vit.blocks)} blocks"
        else:
            return
        raise ConfigError(f"last_blocks: {why}", {"last_blocks": why})

    def tokens(
        self,
        images: Tensor,
        *,
        hidden: Tensor | None = None,
        token: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """All tokens of `images` after the final norm: class, registers, patches row by row.

        With channel tokens a patch is the mean of those of the inputs there are.

        Where `hidden` (n, patches) bool says so, `token` (1, 1, features) stands in the place of
        a patch. `kept` (n, k) int64 names the only patches that go through the network, in their
        order.
        """
        tokens: Tensor = self.vit.norm(self._blocks(images, hidden, token, kept))
        return tokens

    def _blocks(
        self,
        images: Tensor,
        hidden: Tensor | None = None,
        token: Tensor | None = None,
        kept: Tensor | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """All tokens after the last block; `seen` gets each block's class token."""
        n, each = len(images), 1
        if self.spec.tokens == "channel":
            present = ~images[:, :, 0, 0].isnan()  # (n, inputs)
            used = present.any(0)
            present = present[:, used]
            each = present.shape[1]
            images = images[:, used].flatten(0, 1)[:, None].nan_to_num()
        patches = self.vit.patch_embed(images)  # (n * each, rows, columns, width)
        _, rows, columns, width = patches.shape
        patches = patches.flatten(1, 2)
        if hidden is not None and token is not None:
            covered = hidden.repeat_interleave(each, 0)[..., None]
            patches = torch.where(covered, token.to(patches.dtype), patches)
        first = [self.vit.cls_token] + [self.vit.reg_token] * (self.vit.reg_token is not None)
        prefix = torch.cat(first, 1).expand(n, -1, -1)
        own = prefix.shape[1]
        # Computed each time: a thousandth of the forward pass, and right while the weights train.
        position = resample_position(
            self.vit.pos_embed, rows, columns, own, by_size=self.spec.position == "hugging"
        )
        patches = patches + position[:, own:]
        if self.spec.tokens == "channel":
            patches = patches + self.vit.channel_embed[used].repeat(n, 1)[:, None]
        if kept is not None:
            where = kept.repeat_interleave(each, 0)[..., None].expand(-1, -1, width)
            patches = patches.gather(1, where)
        apart = patches.unflatten(0, (n, each))
        tokens = torch.cat((prefix + position[:, :own], apart.flatten(1, 2)), dim=1)
        mask = None
        if self.spec.tokens == "channel" and not present.all():
            shown = torch.cat(
                (present.new_ones(n, own), present.repeat_interleave(apart.shape[2], 1)), dim=1
            )
            mask = shown[:, None, None]
        for block in self.vit.blocks:
            tokens = block(tokens) if mask is None else block(tokens, attn_mask=mask)
            if seen is not None:
                seen.append(tokens[:, 0])
        if self.spec.tokens == "patch":
            return tokens
        share = (present / present.sum(1, keepdim=True))[:, :, None, None].to(tokens.dtype)
        mean = (tokens[:, own:].view(apart.shape) * share).sum(1)
        return torch.cat((tokens[:, :own], mean), dim=1)


class GatedPool(nn.Module):
    """SubCell's pooling: weights by a gated attention over all tokens, one set a head.

    Names are those of CellProfiling/SubCellPortable's checkpoints, in whose sequences a dropout
    comes first.
    """

    def __init__(self, width: int, heads: int, hidden: int = 512) -> None:
        super().__init__()
        self.attention_v = nn.Sequential(nn.Identity(), nn.Linear(width, hidden), nn.Tanh())
        self.attention_u = nn.Sequential(nn.Identity(), nn.Linear(width, hidden), nn.GELU())
        self.attention = nn.Linear(hidden, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool `tokens` (n, token, width) to (n, heads * width)."""
        gated: Tensor = self.attention_v(tokens) * self.attention_u(tokens)
        weights = self.attention(gated).transpose(1, 2).softmax(-1)
        pooled: Tensor = torch.bmm(weights, tokens)
        return pooled.flatten(1)


def resample_position(
    embedding: Tensor, rows: int, columns: int, prefix: int = 1, *, by_size: bool = False
) -> Tensor:
    """Bring a position embedding (1, 1 + side**2, width) to (1, 1 + rows * columns, width).

    With registers, `prefix` tokens instead of 1 come before the patches.

    As `interpolate_pos_encoding` of facebookresearch's DINO and DINOv2 (and of Dino4Cells):
    bicubic, by the scale factor (rows + 0.1) / side, without antialiasing. The 0.1 shifts the
    sampling points a little, so timm's resampling by size gives other numbers (up to 4e-2 in the
    feature). Hugging Face's ViT goes by size, too (`by_size`). The trained grid itself is returned
    as it is.
    """
    side = math.isqrt(embedding.shape[1] - prefix)
    if rows == columns == side:
        return embedding
    grid = embedding[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if by_size:
        grid = nn.functional.interpolate(grid, size=(rows, columns), mode="bicubic")
    else:
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat((embedding[:, :prefix], grid.flatten(2).transpose(1, 2)), dim=1)


@functools.cache
def timm_spec(name: str) -> BackboneSpec:
    """The spec of `timm:<model>`: three inputs, timm's own pooling and position resampling.

    Raises `ConfigError` where timm has no such model or it takes one image size only.
    """
    model = name.removeprefix("timm:")
    spec = BackboneSpec(name, model, RGB, patch=1, features=0, source="", position="timm")
    with torch.device("meta"):
        vit = _build(spec)
    published = vit.pretrained_cfg
    hub = f"https://huggingface.co/{published.get('hf_hub_id')}/resolve/main/model.safetensors"
    embed: Any = getattr(vit, "patch_embed", None)
    if published["fixed_input_size"] and getattr(embed, "strict_img_size", True):
        raise ConfigError(f"{name} takes one image size only; choose a plain ViT or a ConvNet")
    return replace(
        spec,
        patch=max(embed.patch_size) if hasattr(embed, "patch_size") else 1,
        features=getattr(vit, "head_hidden_size", None) or vit.num_features,
        source=hub if published.get("hf_hub_id") else "nowhere",
        licence=published.get("license") or "",
    )


def _build(spec: BackboneSpec) -> Any:
    """The timm module of a spec; its fresh weights do not touch torch's global generator."""
    import timm

    inputs = len(spec.roles) if spec.tokens == "patch" else 1
    settings = {"num_classes": 0, "in_chans": inputs, **spec.options}
    if "norm_eps" in settings:
        settings["norm_layer"] = functools.partial(nn.LayerNorm, eps=settings.pop("norm_eps"))
    with torch.random.fork_rng(devices=[]):
        try:
            return timm.create_model(spec.timm_model, dynamic_img_size=True, **settings)
        except TypeError:  # not a ViT: convolutions take any size and know no such argument
            return timm.create_model(spec.timm_model, **settings)
        except RuntimeError as error:
            raise ConfigError(
                f"timm cannot build {spec.timm_model!r}: {error}; "
                "timm.list_models() names what it has"
            ) from error
