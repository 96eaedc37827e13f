"""Networks under other names than timm's: parity with their definition, on random weights."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, interpolate, layer_norm, linear, scaled_dot_product_attention

from zarrloc.errors import ConfigError, WeightsError
from zarrloc.models import backbones, hugging, specs
from zarrloc.models.channels import resolve
from zarrloc.models.inputs import Size
from zarrloc.models.preprocess import prepare
from zarrloc.models.specs import SPECS, BackboneSpec

State = dict[str, Tensor]
WIDTH, HEADS, DEPTH, PATCH = 48, 3, 4, 16


def _random(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _tiny(spec: BackboneSpec, monkeypatch: pytest.MonkeyPatch, side: int) -> BackboneSpec:
    """The spec with a small network, under a name of its own."""
    size = {"depth": DEPTH, "embed_dim": WIDTH, "num_heads": HEADS, "img_size": side}
    features = WIDTH * max(1, spec.pool_heads)
    tiny = replace(spec, name="tiny", features=features, options={**spec.options, **size})
    monkeypatch.setattr(specs, "SPECS", {"tiny": tiny})
    return tiny


# --- Hugging Face's ViT, as transformers defines it ---------------------------------------------


def _hugging_shapes(inputs: int, side: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, WIDTH),
        "embeddings.position_embeddings": (1, 1 + (side // PATCH) ** 2, WIDTH),
        "embeddings.patch_embeddings.projection.weight": (WIDTH, inputs, PATCH, PATCH),
        "embeddings.patch_embeddings.projection.bias": (WIDTH,),
        "layernorm.weight": (WIDTH,),
        "layernorm.bias": (WIDTH,),
    }
    parts = {
        **{f"attention.attention.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")},
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (4 * WIDTH, WIDTH),
        "output.dense": (WIDTH, 4 * WIDTH),
    }
    for block in range(DEPTH):
        for part, (rows, columns) in parts.items():
            shapes[f"encoder.layer.{block}.{part}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{block}.{part}.bias"] = (rows,)
        for norm in ("layernorm_before", "layernorm_after"):
            shapes[f"encoder.layer.{block}.{norm}.weight"] = (WIDTH,)
            shapes[f"encoder.layer.{block}.{norm}.bias"] = (WIDTH,)
    return shapes


def _hugging_forward(state: State, images: Tensor, eps: float) -> Tensor:
    """All tokens after the last norm, part by part under Hugging Face's names."""

    def apply(name: str, values: Tensor) -> Tensor:
        return linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(name: str, values: Tensor) -> Tensor:
        return layer_norm(values, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)

    weight = state["embeddings.patch_embeddings.projection.weight"]
    bias = state["embeddings.patch_embeddings.projection.bias"]
    patches = torch.nn.functional.conv2d(images, weight, bias, stride=PATCH)
    rows, columns = patches.shape[2:]
    position = state["embeddings.position_embeddings"]
    side = int((position.shape[1] - 1) ** 0.5)
    if (rows, columns) != (side, side):  # interpolate_pos_encoding
        grid = position[:, 1:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
        grid = interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        position = torch.cat((position[:, :1], grid.flatten(2).transpose(1, 2)), 1)
    first = state["embeddings.cls_token"].expand(len(images), -1, -1)
    tokens = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1) + position
    for block in range(DEPTH):
        name = f"encoder.layer.{block}"
        before = normed(f"{name}.layernorm_before", tokens)
        query, key, value = (
            heads(apply(f"{name}.attention.attention.{part}", before))
            for part in ("query", "key", "value")
        )
        context = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = apply(f"{name}.attention.output.dense", context) + tokens
        after = normed(f"{name}.layernorm_after", tokens)
        inner = gelu(apply(f"{name}.intermediate.dense", after))
        tokens = apply(f"{name}.output.dense", inner) + tokens
    return normed("layernorm", tokens)


def _pooled(state: State, tokens: Tensor) -> Tensor:
    """SubCell's gated attention, written out head by head."""
    v = torch.tanh(linear(tokens, state["attention_v.1.weight"], state["attention_v.1.bias"]))
    u = gelu(linear(tokens, state["attention_u.1.weight"], state["attention_u.1.bias"]))
    scores = linear(v * u, state["attention.weight"], state["attention.bias"])
    share = torch.softmax(scores, dim=1)
    return torch.cat([(share[..., h, None] * tokens).sum(1) for h in range(share.shape[-1])], 1)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize("name", ["subcell-mae", "subcell-vit"])
def test_subcell_is_what_it_is_defined_as(
    name: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tiny(SPECS[name], monkeypatch, side=64)
    encoder = _random(_hugging_shapes(inputs=2, side=64))
    pool_shapes: dict[str, tuple[int, ...]] = {
        "attention_v.1.weight": (512, WIDTH),
        "attention_v.1.bias": (512,),
        "attention_u.1.weight": (512, WIDTH),
        "attention_u.1.bias": (512,),
        "attention.weight": (2, 512),
        "attention.bias": (2,),
    }
    pool = _random(pool_shapes, 1)
    checkpoint = {f"encoder.{key}": value for key, value in encoder.items()}
    checkpoint |= {f"pool_model.{key}": value for key, value in pool.items()}
    torch.save(checkpoint, tmp_path / "encoder.pth")
    backbone = backbones.load("tiny", tmp_path / "encoder.pth")
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(2))
    expected = _pooled(pool, _hugging_forward(encoder, images, eps=1e-12))
    assert backbone(images).shape == (3, 2 * WIDTH)
    torch.testing.assert_close(backbone(images), expected, rtol=1e-4, atol=1e-5)


def test_subcell_s_input_is_a_crop_s_whole_range() -> None:
    spec = SPECS["subcell-mae"]
    assert (spec.roles, spec.features, spec.norm) == (("nucleus", "protein"), 1536, "minmax")
    mapping = resolve(None, spec.roles, ("protein", "er", "nucleus"), spec.default_channels)
    images = torch.randint(100, 60000, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    found, largest = prepare(images, mapping, Size("native"), "minmax", 16, None)
    crop = images[:, [2, 0]].float()
    low = crop.amin((1, 2, 3), keepdim=True)
    expected = (crop - low) / (crop.amax((1, 2, 3), keepdim=True) - low + 1e-8)
    torch.testing.assert_close(found[0], expected)
    assert largest.tolist() == [1.0] * 4
    blank, _ = prepare(torch.full_like(images, 500), mapping, Size("native"), "minmax", 16, None)
    assert not blank.any()


@pytest.mark.parametrize("prefix", ["", "vit.", "model.encoder."])
def test_any_vit_of_hugging_face_loads(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tiny(SPECS["dino-vits16"], monkeypatch, side=64)
    state = _random(_hugging_shapes(inputs=3, side=64))
    saved = {prefix + key: value for key, value in state.items()}
    saved |= {"classifier.weight": torch.ones(2, WIDTH)}
    torch.save(saved, tmp_path / "vit.pth")
    backbone = backbones.load("tiny", tmp_path / "vit.pth")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected = _hugging_forward(state, images, eps=1e-6)[:, 0]
    torch.testing.assert_close(backbone(images), expected, rtol=1e-4, atol=1e-5)


def test_names_without_a_counterpart_are_listed() -> None:
    state = _random(_hugging_shapes(inputs=3, side=64))
    with pytest.raises(WeightsError, match=r"2 tensors .*adapter\.x, encoder\.layer\.0\.gate"):
        hugging.to_timm(
            {**state, "adapter.x": torch.ones(1), "encoder.layer.0.gate": torch.ones(1)}
        )
    del state["encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.qkv\.weight without key"):
        hugging.to_timm(state)


# --- one channel at a time, and Cell-DINO's chunks ----------------------------------------------


def _timm_shapes(inputs: int, scales: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 17, WIDTH),
        "patch_embed.proj.weight": (WIDTH, inputs, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        for part, (rows, columns) in {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items():
            shapes[f"blocks.{block}.{part}.weight"] = (rows, columns)
            shapes[f"blocks.{block}.{part}.bias"] = (rows,)
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{norm}.weight"] = (WIDTH,)
            shapes[f"blocks.{block}.{norm}.bias"] = (WIDTH,)
        if scales:
            shapes[f"blocks.{block}.ls1.gamma"] = (WIDTH,)
            shapes[f"blocks.{block}.ls2.gamma"] = (WIDTH,)
    return shapes


def _dinov2_forward(state: State, images: Tensor, last_blocks: int = 1) -> Tensor:
    """Class tokens of facebookresearch's DINOv2 (or DINO, without LayerScale).

    Of several blocks as in its `get_intermediate_layers`, joined by its `create_linear_input`.
    """
    found = []

    def apply(name: str, values: Tensor) -> Tensor:
        return linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def normed(name: str, values: Tensor) -> Tensor:
        return layer_norm(values, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = torch.nn.functional.conv2d(images, weight, bias, stride=PATCH)
    first = state["cls_token"].expand(len(images), -1, -1)
    tokens = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1) + state["pos_embed"]
    for block in range(DEPTH):
        name, one = f"blocks.{block}", torch.ones(WIDTH)
        n, count, _ = tokens.shape
        qkv = apply(f"{name}.attn.qkv", normed(f"{name}.norm1", tokens))
        query, key, value = qkv.reshape(n, count, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        share = ((query @ key.transpose(-2, -1)) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        mixed = apply(f"{name}.attn.proj", (share @ value).transpose(1, 2).flatten(2))
        tokens = tokens + state.get(f"{name}.ls1.gamma", one) * mixed
        inner = gelu(apply(f"{name}.mlp.fc1", normed(f"{name}.norm2", tokens)))
        tokens = tokens + state.get(f"{name}.ls2.gamma", one) * apply(f"{name}.mlp.fc2", inner)
        found.append(normed("norm", tokens)[:, 0])
    return torch.cat(found[-last_blocks:], dim=-1)


@pytest.mark.parametrize(
    ("name", "inputs", "scales"),
    [("morphem", 1, False), ("cell-dino-channel", 1, True), ("cell-dino-hpa", 4, True)],
)
def test_the_field_s_other_networks_are_what_they_are_defined_as(
    name: str, inputs: int, scales: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPECS[name]
    _tiny(spec, monkeypatch, side=64)
    state = _random(_timm_shapes(inputs, scales))
    saved = dict(state)
    if scales:  # block_chunks: two chunks of two, each block under its own number
        chunked = re.compile(r"blocks\.(\d+)\.")
        saved = {
            chunked.sub(lambda found: f"blocks.{int(found[1]) // 2}.{found[1]}.", key): value
            for key, value in state.items()
        }
        saved["mask_token"] = torch.zeros(1, WIDTH)
    torch.save({"teacher": saved} if scales else saved, tmp_path / "net.pth")
    backbone = backbones.load("tiny", tmp_path / "net.pth")
    images = torch.rand(2, inputs, 64, 64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        backbone(images), _dinov2_forward(state, images), rtol=1e-4, atol=1e-5
    )
    several = backbone(images, last_blocks=3)
    assert several.shape == (2, 3 * WIDTH)
    torch.testing.assert_close(
        several, _dinov2_forward(state, images, last_blocks=3), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(several[:, -WIDTH:], backbone(images))
    with pytest.raises(ConfigError, match=rf"got {DEPTH + 1}, but tiny has {DEPTH} blocks"):
        backbone(images, last_blocks=DEPTH + 1)


def test_only_a_class_token_can_be_taken_of_several_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _tiny(SPECS["subcell-vit"], monkeypatch, side=64)
    with pytest.raises(ConfigError, match="gives no class token alone"):
        backbones.load("tiny", "random:0")(torch.rand(1, 2, 64, 64), last_blocks=2)


def test_a_channel_at_a_time_gives_features_side_by_side() -> None:
    spec = SPECS["morphem"]
    mapping = resolve(None, spec.roles, ("nucleus", "protein"), spec.default_channels)
    assert mapping.feature_width(spec.features) == 768
    assert [list(inputs) for inputs in mapping.passes] == [[0], [1]]
