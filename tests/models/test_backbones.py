import json
import math
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zarrloc.errors import ConfigError
from zarrloc.models import backbones, specs, weights
from zarrloc.models.specs import HPA, RGB, SPECS, BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.models.weights import fill, random_state

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def small(timm_model: str, patch: int, roles: tuple[str, ...] = RGB, **options: object) -> Backbone:
    """A ViT of two blocks with random, frozen weights."""
    spec = BackboneSpec(
        "small", timm_model, roles, patch, 48, "random", options={**SMALL, **options}
    )
    backbone = Backbone(spec)
    fill(backbone.vit, random_state(backbone.vit, seed=7), "random:7")
    disturb(backbone)
    return weights.freeze(backbone, "random:7")


def disturb(backbone: Backbone) -> None:
    """Move every parameter off its start, so that a forgotten bias or scale shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in backbone.vit.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# The original implementations, written again as plain tensor code on a flat state dict.


def facebook_position(embedding: Tensor, height: int, width: int, patch: int) -> Tensor:
    count = embedding.shape[1] - 1
    rows, columns = height // patch, width // patch
    if rows * columns == count and height == width:
        return embedding
    side = math.sqrt(count)
    grid = embedding[:, 1:].reshape(1, int(side), int(side), -1).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic"
    )
    assert grid.shape[2:] == (rows, columns)
    flat = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    return torch.cat([embedding[:, :1], flat], dim=1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def rotary(x: Tensor, rows: int, columns: int) -> Tensor:
    """DINOv3's rotation of the patch tokens of x (n, heads, tokens, head_dim); 5 tokens are not."""
    quarter = x.shape[-1] // 4
    periods = 100.0 ** (torch.arange(quarter) * 2 / (x.shape[-1] / 2))
    y = (torch.arange(rows) + 0.5) / rows * 2 - 1
    z = (torch.arange(columns) + 0.5) / columns * 2 - 1
    places = torch.stack(torch.meshgrid(y, z, indexing="ij"), -1).reshape(-1, 2)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)
    first, second = x[:, :, 5:].chunk(2, -1)
    turned = x[:, :, 5:] * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
    return torch.cat([x[:, :, :5], turned], dim=2)


def original(state: Mapping[str, Tensor], images: Tensor, patch: int, heads: int) -> Tensor:
    """DINO, Dino4Cells, DINOv2 (with layer scale) and DINOv3 (with rotary positions)."""
    n, _, height, width = images.shape
    v3 = "reg_token" in state
    eps = 1e-5 if v3 else 1e-6

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv2d(images, kernel, bias, stride=patch).flatten(2).transpose(1, 2)
    first = [state["cls_token"], state["reg_token"]] if v3 else [state["cls_token"]]
    x = torch.cat([torch.cat(first, 1).expand(n, -1, -1), x], dim=1)
    if not v3:
        x = x + facebook_position(state["pos_embed"], height, width, patch)
    for block in range(len({key.split(".")[1] for key in state if key.startswith("blocks.")})):
        name = f"blocks.{block}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if v3:
            q, k = (rotary(t, height // patch, width // patch) for t in (q, k))
        y = linear(attention(q, k, v), f"{name}.attn.proj")
        x = x + y * state.get(f"{name}.ls1.gamma", state.get(f"{name}.gamma_1", torch.ones(())))
        y = linear(F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
        x = x + y * state.get(f"{name}.ls2.gamma", state.get(f"{name}.gamma_2", torch.ones(())))
    return norm(x, "norm")[:, 0]


def assert_original(backbone: Backbone, height: int, width: int, heads: int) -> None:
    images = noise(2, len(backbone.roles), height, width)
    with torch.inference_mode():
        got = backbone(images)
    expected = original(backbone.vit.state_dict(), images, backbone.patch, heads)
    assert got.dtype == torch.float32
    assert got.shape == (2, backbone.features)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width"), [(224, 224), (96, 96), (112, 448), (256, 160), (32, 304)]
)
def test_dino_equals_the_original_at_any_size(height: int, width: int) -> None:
    assert_original(small("vit_small_patch16_224.dino", 16), height, width, heads=3)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (128, 128), (200, 312)])
def test_dino4cells_with_four_inputs_and_patch_8(height: int, width: int) -> None:
    assert_original(small("vit_base_patch8_224", 8, HPA), height, width, heads=3)


@pytest.mark.parametrize(("height", "width"), [(518, 518), (224, 224), (140, 196)])
def test_dinov2_equals_the_original(height: int, width: int) -> None:
    backbone = small("vit_small_patch14_dinov2.lvd142m", 14)
    assert_original(backbone, height, width, heads=3)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (224, 224), (96, 160)])
def test_dinov3_equals_the_original(height: int, width: int) -> None:
    spec = SPECS["dinov3-vits16"]
    options = {**SMALL, **spec.options, "num_heads": 4, "embed_dim": 64}
    backbone = Backbone(
        BackboneSpec("v3", spec.timm_model, RGB, 16, 64, "", position="timm", options=options)
    )
    disturb(backbone)
    weights.freeze(backbone, "disturbed")
    assert_original(backbone, height, width, heads=4)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (128, 304)])
def test_dino_vits16_itself_equals_the_original(height: int, width: int) -> None:
    assert_original(backbones.load("dino-vits16", "random:0"), height, width, heads=6)


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_says_what_timm_builds(name: str) -> None:
    spec = SPECS[name]
    with torch.device("meta"):
        vit = Backbone(spec).vit
    kernel = tuple(vit.patch_embed.proj.weight.shape)
    width = spec.features // max(1, spec.pool_heads)
    assert kernel == (width, len(spec.roles), spec.patch, spec.patch)
    eps = {"dinov3": 1e-5, "subcell": 1e-12}
    assert vit.norm.eps == eps.get(name.partition("-")[0], 1e-6)
    if spec.position == "facebook":
        trained = 518 if name.startswith("dinov2") else 224
        assert vit.pos_embed.shape[1] == 1 + (trained // spec.patch) ** 2


def test_listing_imports_no_torch() -> None:
    script = """
import json, sys
from zarrloc.models import backbones, channels, specs
channels.resolve(None, specs.HPA, ("nucleus", "protein"), "natural")
print(json.dumps([name for name in ("torch", "timm", "numpy") if name in sys.modules]))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []
    assert set(specs.SPECS) == {
        *("dino-vits16", "dino-vits8", "dino-vitb16", "dino-vitb8", "hpa-fov-vitb8"),
        *("hpa-cell-vitb16", "dinov2-vits14", "dinov2-vitb14", "dinov3-vits16", "dinov3-vitb16"),
        *("subcell-mae", "subcell-vit", "morphem", "cell-dino-hpa", "cell-dino-channel"),
    }


def test_bf16_autocast_stays_close_and_gives_float32() -> None:
    backbone = small("vit_small_patch16_224.dino", 16)
    images = noise(2, 3, 96, 128)
    with torch.inference_mode():
        exact = backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = backbone(images)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert F.cosine_similarity(rounded, exact).min() > 0.999


def test_positions_train_and_are_followed_at_other_sizes() -> None:
    trained = Backbone(small("vit_small_patch16_224.dino", 16).spec)
    before = trained(noise(1, 3, 96, 96))
    before[:, 0].sum().backward()
    assert trained.vit.pos_embed.grad.abs().sum() > 0
    with torch.no_grad():
        trained.vit.pos_embed.data[:, 1:] += noise(*trained.vit.pos_embed[:, 1:].shape)
    assert not torch.allclose(trained(noise(1, 3, 96, 96)), before)


def test_wrong_images_are_refused() -> None:
    backbone = small("vit_small_patch16_224.dino", 16)
    with pytest.raises(ConfigError, match=r"got images of \(3, 100, 96\).*multiples of 16"):
        backbone(noise(1, 3, 100, 96))
    with pytest.raises(ConfigError, match=r"got images of \(2, 96, 96\); expected 3 inputs"):
        backbone(noise(1, 2, 96, 96))


def test_any_plain_timm_model_is_a_backbone() -> None:
    vit = backbones.spec("timm:vit_tiny_patch16_224")
    assert (vit.roles, vit.patch, vit.features, vit.position) == (RGB, 16, 192, "timm")
    assert vit.source == (
        "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
        "/resolve/main/model.safetensors"
    )
    backbone = backbones.load("timm:resnet18", "random:1")
    assert (backbone.patch, backbone.features) == (1, 512)
    with torch.inference_mode():
        assert backbone(noise(1, 3, 61, 83)).shape == (1, 512)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dino-vits17", "unknown backbone 'dino-vits17'; expected one of dino-vits16"),
        ("timm:no_such_net", "timm cannot build 'no_such_net': Unknown model"),
        ("timm:vit_tiny_patch16_224.no_tag", "timm cannot build .*Invalid pretrained tag"),
        ("timm:mixer_s16_224", "takes one image size only"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        backbones.spec(name)
