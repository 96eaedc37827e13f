"""A ViT over channels as tokens: what plain tensor code gives, and any set of channels in."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zarrloc.models.channels import resolve
from zarrloc.models.specs import BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.models.weights import fill, random_state

ROLES = ("nucleus", "protein", "er")
PATCH, WIDE, HEADS, SIDE = 4, 12, 3, 8
SPEC = BackboneSpec(
    "toy", "vit_tiny_patch16_224", ROLES, PATCH, WIDE, "", tokens="channel",
    options={"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDE, "depth": 2,
             "num_heads": HEADS},
)  # fmt: skip


@pytest.fixture
def backbone() -> Backbone:
    made = Backbone(SPEC)
    state = random_state(made.vit, 3)
    random = torch.Generator().manual_seed(1)
    state = {name: value + 0.3 * torch.randn(value.shape, generator=random)
             for name, value in state.items()}  # fmt: skip
    fill(made.vit, state, "planted")
    return made.eval()


def channel_vit(state: dict[str, Tensor], image: Tensor, channels: list[int]) -> Tensor:
    """ChannelViT (Bao et al. 2024, section 3.1) on one image `(c, y, x)`: all tokens."""
    tokens = [state["cls_token"][0, 0] + state["pos_embed"][0, 0]]
    for c in channels:
        for i, (y, x) in enumerate([(y, x) for y in range(2) for x in range(2)]):
            patch = image[c, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            kernel = state["patch_embed.proj.weight"][:, 0]
            token = (kernel * patch).sum((1, 2)) + state["patch_embed.proj.bias"]
            tokens.append(token + state["channel_embed"][c] + state["pos_embed"][0, 1 + i])
    x = torch.stack(tokens)

    def linear(name: str, values: Tensor) -> Tensor:
        return F.linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, values: Tensor) -> Tensor:
        return F.layer_norm(values, (WIDE,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    for block in ("blocks.0", "blocks.1"):
        query, key, value = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x)).chunk(3, 1)
        heads = []
        for q, k, v in zip(*(p.chunk(HEADS, 1) for p in (query, key, value)), strict=True):
            heads.append((q @ k.T / (WIDE // HEADS) ** 0.5).softmax(1) @ v)
        x = x + linear(f"{block}.attn.proj", torch.cat(heads, 1))
        inner = F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", inner)
    return torch.cat(
        [norm("norm", x[:1]), norm("norm", x[1:].view(len(channels), 4, WIDE).mean(0))]
    )


def absent(images: Tensor, channels: list[int]) -> Tensor:
    images = images.clone()
    images[:, channels] = torch.nan
    return images


def test_numbers_are_those_of_plain_tensor_code(backbone: Backbone) -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    state = backbone.vit.state_dict()
    found = backbone.tokens(images)
    assert found.shape == (2, 5, WIDE)
    for one, image in zip(found, images, strict=True):
        torch.testing.assert_close(one, channel_vit(state, image, [0, 1, 2]))
    torch.testing.assert_close(backbone(images), found[:, 0])


def test_an_absent_channel_has_no_tokens(backbone: Backbone) -> None:
    """Alike alone and beside images that have it; a channel of zeros is another thing."""
    images = torch.randn(3, 3, SIDE, SIDE)
    state = backbone.vit.state_dict()
    mixed = images.clone()
    mixed[0, 2] = mixed[2, 0] = torch.nan
    mixed[2, 1] = torch.nan
    found = backbone.tokens(mixed)
    for one, image, channels in zip(found, images, ([0, 1], [0, 1, 2], [2]), strict=True):
        torch.testing.assert_close(one, channel_vit(state, image, channels))
    alike = backbone.tokens(absent(images, [2]))
    torch.testing.assert_close(alike[0], found[0])
    zeros = images.clone()
    zeros[:, 2] = 0
    assert (backbone(zeros) - backbone(absent(images, [2]))).abs().max() > 0.01


def test_a_channel_is_known_by_name_not_by_place(backbone: Backbone) -> None:
    images = torch.randn(1, 3, SIDE, SIDE)
    assert (backbone(images) - backbone(images.flip(1))).abs().max() > 0.01
    with torch.no_grad():
        backbone.vit.channel_embed.zero_()
    torch.testing.assert_close(backbone(images), backbone(images.flip(1)))


def test_patches_are_hidden_and_kept_in_all_channels(backbone: Backbone) -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    hidden = torch.tensor([[True, False, False, False], [False, False, True, True]])
    shown = {"hidden": hidden, "token": torch.ones(1, 1, WIDE)}
    other = images.clone()
    other[0, :, :PATCH, :PATCH] = 9.0
    other[1, :, PATCH:] = -4.0
    torch.testing.assert_close(backbone.tokens(images, **shown), backbone.tokens(other, **shown))
    kept = torch.tensor([[3, 1], [0, 1]])
    few = backbone.tokens(images, kept=kept)
    assert few.shape == (2, 3, WIDE)
    torch.testing.assert_close(few, backbone.tokens(other, kept=kept))
    every = backbone.tokens(images, kept=torch.arange(4).expand(2, 4))
    torch.testing.assert_close(every, backbone.tokens(images))


def test_gradients_pass_by_absent_channels(backbone: Backbone) -> None:
    images = absent(torch.randn(2, 3, SIDE, SIDE), [1])
    backbone(images).sum().backward()
    gradient = backbone.vit.channel_embed.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).any()


def test_blank_inputs_of_a_channel_map_become_absent() -> None:
    mapping = resolve("natural", ROLES, ("er", "nucleus"), "natural")
    mapped = mapping.apply(torch.ones(2, 2, 4, 4))
    mapping.mark_absent(mapped)
    assert mapped[0, :, 1].isnan().all()
    assert (mapped[0][:, [0, 2]] == 1).all()
