"""The backbone a run starts from: what may be one, and what is refused before it begins."""

import dataclasses
from typing import Any

import pytest
import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError, WeightsError
from zarrloc.models import backbones
from zarrloc.models.vit import Backbone
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec

ROLES = ("nucleus", "protein")
PATCH = ("patch_size=14",)


def config_of(**settings: Any) -> PretrainConfig:
    return PretrainConfig.of({"size": 28, "local_size": 28, **settings})


@pytest.mark.parametrize(
    "arch",
    [
        *("resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "mixer_s16_224"),
        *("vit_base_patch16_siglip_224", "deit_tiny_distilled_patch16_224"),
        *("vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"),
    ],
)
def test_only_a_plain_vit_starts_from_scratch(arch: str) -> None:
    """What zarrloc cannot make the tokens of: no ViT, no class token, or none with a place."""
    with pytest.raises(ConfigError, match=f"--arch {arch} is no plain ViT with a class token"):
        start_spec(config_of(arch=arch), ROLES)


def test_an_option_that_timm_does_not_know_is_named() -> None:
    with pytest.raises(ConfigError, match="or takes no depht=1; name one"):
        start_spec(config_of(arch="vit_tiny_patch16", arch_options=("depht=1",)), ROLES)


@pytest.mark.parametrize("arch", ["vit_tiny_patch16", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("tokens", ["patch", "channel"])
def test_a_plain_vit_starts_from_scratch(arch: str, tokens: str) -> None:
    config = config_of(arch=arch, tokens=tokens, arch_options=("depth=1", "patch_size=14"))
    spec = start_spec(config, ROLES)
    assert (spec.patch, spec.roles) == (14, ROLES)
    assert Backbone(spec)(torch.rand(2, 2, 28, 42)).shape == (2, spec.features)


def test_stochastic_depth_is_asked_of_what_has_it() -> None:
    """A network without goes, if none is asked for."""
    given = {"from": "timm:densenet121", "weights": "random:0"}
    config = config_of(**given)
    with pytest.raises(ConfigError, match=r"timm:densenet121 has no stochastic depth.*--drop-path"):
        start_backbones(config, start_spec(config, ROLES))
    config = config_of(**given, drop_path=0.0)
    student, teacher, _ = start_backbones(config, start_spec(config, ROLES))
    torch.testing.assert_close(student.state_dict(), teacher.state_dict())


@pytest.mark.parametrize("objective", ["mae", "dinov2"])
def test_patches_are_hidden_only_where_a_feature_is_one_token(objective: str) -> None:
    """SubCell's is a pool of all, twice as wide as a token."""
    config = config_of(**{"from": "subcell-mae"}, objective=objective, size=32, local_size=16)
    with pytest.raises(ConfigError, match=f"--objective {objective} hides patches"):
        start_spec(config, ROLES)


def test_sides_are_those_of_the_views_there_are() -> None:
    """A local view's counts only where there is one."""
    given = {"from": "dinov2-vits14", "local_size": 96}
    for settings in ({"objective": "simclr"}, {"objective": "mae"}, {"local_views": 0}):
        assert start_spec(config_of(**given, **settings), ROLES).patch == 14
        with pytest.raises(ConfigError, match="--size 30 is not a multiple of the patch, 14"):
            start_spec(config_of(**given, **{**settings, "size": 30}), ROLES)
    with pytest.raises(ConfigError, match="--local-size 96 is not a multiple of the patch, 14"):
        start_spec(config_of(**given), ROLES)


def test_what_only_one_kind_of_start_uses_is_refused_to_the_other() -> None:
    """Who forgets `from` would else train from nothing."""
    with pytest.raises(ConfigError, match="weights is for a start from a backbone"):
        config_of(arch="vit_tiny_patch16", weights="/no/such/file.pth")
    with pytest.raises(ConfigError, match="arch_options is for a start from scratch"):
        config_of(**{"from": "dino-vits16"}, arch_options=("depth=1",))


def test_what_is_fine_tuned_is_of_its_own_kind() -> None:
    """Its arch may be named, and no other; its tokens are what they are."""
    given = {"from": "dino-vits16", "size": 32, "local_size": 16}
    assert start_spec(config_of(**given, arch="vit_small_patch16"), ROLES).name == "dino-vits16"
    with pytest.raises(WeightsError, match=r"vit_small_patch16_224 -> vit_tiny_patch16"):
        start_spec(config_of(**given, arch="vit_tiny_patch16"), ROLES)
    with pytest.raises(ConfigError, match="a token of dino-vits16 is a patch"):
        start_spec(config_of(**given, tokens="channel"), ROLES)
    with pytest.raises(ConfigError, match="--also needs a backbone of channel tokens"):
        start_spec(config_of(**given, also=("b.zarr",)), ROLES)


def test_options_are_numbers_of_their_kind() -> None:
    """A dot makes a fraction; what is no number is refused."""
    options = ("depth=2", " drop_rate =0.5", "patch_size=14")
    spec = start_spec(config_of(arch="vit_tiny_patch16", arch_options=options), ROLES)
    assert dict(spec.options) == {
        "img_size": 28, "depth": 2, "drop_rate": 0.5, "patch_size": 14
    }  # fmt: skip
    assert isinstance(spec.options["depth"], int)
    for wrong in ("depth", "depth=two", "drop_rate=0.5.1"):
        with pytest.raises(ConfigError, match="expected NAME=NUMBER"):
            start_spec(config_of(arch="vit_tiny_patch16", arch_options=(wrong,)), ROLES)


def test_tokens_of_a_channel_are_of_one_channel() -> None:
    """A view of one channel in all inputs has none of the others."""
    for tokens, refused in (("patch", False), ("channel", True)):
        config = config_of(
            arch="vit_tiny_patch16", tokens=tokens, channels="replicate", arch_options=PATCH
        )
        spec = start_spec(config, ROLES)
        if refused:
            with pytest.raises(ConfigError, match="--channels replicate is for a backbone of"):
                start_channels(config, spec, ROLES)
        else:
            assert start_channels(config, spec, ROLES).kind == "replicate"
    natural = config_of(arch="vit_tiny_patch16", tokens="channel", arch_options=PATCH)
    assert start_channels(natural, start_spec(natural, ROLES), ROLES).passes == ((0, 1),)


def test_student_and_teacher_start_alike_and_the_student_alone_skips() -> None:
    """From the seed's weights, with a share of skipped blocks that grows to what was asked for."""
    options = ("depth=3", "embed_dim=24", "num_heads=3", *PATCH)
    given = {"arch": "vit_tiny_patch16", "arch_options": options, "drop_path": 0.4}
    made = []
    for seed in (3, 3, 4):
        config = config_of(**given, seed=seed)
        student, teacher, origin = start_backbones(config, start_spec(config, ROLES))
        assert origin == f"random:{seed}"
        for name, value in student.state_dict().items():
            assert torch.equal(value, teacher.state_dict()[name])
        shares = [
            [getattr(block.drop_path1, "drop_prob", 0.0) for block in one.vit.blocks]
            for one in (student, teacher)
        ]
        assert shares == [[0.0, pytest.approx(0.2), pytest.approx(0.4)], [0.0] * 3]
        made.append(teacher.vit.patch_embed.proj.weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_what_is_fine_tuned_keeps_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """--tokens is of networks from scratch."""
    spec = dataclasses.replace(backbones.spec("dino-vits16"), tokens="channel")
    monkeypatch.setattr("zarrloc.pretraining.start.backbones.spec", lambda name: spec)
    given = {"from": "dino-vits16", "size": 32, "local_size": 16}
    for tokens in ("patch", "channel"):
        assert start_spec(config_of(**given, tokens=tokens), ROLES).tokens == "channel"
    assert start_spec(config_of(**given, also=("b.zarr",)), ROLES).tokens == "channel"


def test_a_fine_tune_starts_from_the_weights_it_is_given() -> None:
    """Student and teacher; which they are is told."""
    given = {"from": "timm:test_vit", "size": 160, "local_size": 160, "drop_path": 0.0}
    origins = []
    for weights in ("random:1", "random:2"):
        config = config_of(**given, weights=weights)
        student, teacher, origin = start_backbones(config, start_spec(config, ROLES))
        expected = backbones.load("timm:test_vit", weights).vit.state_dict()
        for one in (student, teacher):
            torch.testing.assert_close(one.vit.state_dict(), expected)
        origins.append(origin)
    assert origins[0] != origins[1]
