"""The backbone a run starts from: a fresh one for the store's channels, or a given one."""

from dataclasses import replace

import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError, WeightsError
from zarrloc.models import backbones
from zarrloc.models.channels import ChannelMap, resolve
from zarrloc.models.specs import BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.models.weights import fill, random_state
from zarrloc.pretraining.objectives import OBJECTIVES, objective_of


def start_spec(config: PretrainConfig, roles: tuple[str, ...]) -> BackboneSpec:
    """The spec of the backbone to train, for a store with channels `roles`.

    Raises `WeightsError` with the difference where `--arch` is not what `--from` is, and
    `ConfigError` where a view's side is not a multiple of the patch.
    """
    if config.start == "scratch":
        spec = _scratch_spec(config, roles)
    else:
        spec = backbones.spec(config.start)
        found = spec.timm_model.split(".")[0]
        if config.arch is not None and not found.startswith(config.arch):
            raise WeightsError(
                f"--from {config.start} is another arch: {found} -> {config.arch}; "
                "leave --arch out, or name its own"
            )
        if config.tokens != "patch" and spec.tokens != config.tokens:
            raise ConfigError(
                f"--tokens {config.tokens} is for --from scratch: a token of {config.start} is a "
                f"{spec.tokens}"
            )
        if config.also and spec.tokens != "channel":
            raise ConfigError(
                f"--also needs a backbone of channel tokens, and a token of {config.start} is a "
                "patch; start from scratch with --tokens channel"
            )
    if OBJECTIVES[config.objective].masks and (spec.position == "timm" or spec.pool_heads):
        raise ConfigError(
            f"--objective {config.objective} hides patches, which {config.start} cannot do; start "
            "from scratch or from a DINO, DINOv2 or Dino4Cells backbone"
        )
    sides = {view.size for view in objective_of(config, spec).views()}
    for name in ("size", "local_size"):
        side = getattr(config, name)
        if side in sides and side % spec.patch:
            raise ConfigError(
                f"--{name.replace('_', '-')} {side} is not a multiple of the patch, {spec.patch}"
            )
    return spec


def _scratch_spec(config: PretrainConfig, roles: tuple[str, ...]) -> BackboneSpec:
    import timm
    from timm.models.vision_transformer import VisionTransformer

    arch = str(config.arch)
    model = arch if timm.is_model(arch) else f"{arch}_224"
    options = {"img_size": config.size, **_options(config.arch_options)}
    draft = BackboneSpec(
        arch, model, roles, 1, 0, "zarrloc pretrain", default_channels="natural", options=options,
        tokens=config.tokens,
    )  # fmt: skip
    try:
        with torch.device("meta"):
            vit = Backbone(draft).vit
    except (TypeError, AttributeError):  # it takes no image size, has no width, or not that option
        vit = None
    if type(vit) is not VisionTransformer or vit.cls_token is None or vit.no_embed_class:
        given = ", ".join(config.arch_options)
        asked = f", or takes no {given}" if given else ""
        raise ConfigError(
            f"--arch {arch} is no plain ViT with a class token and a place for it, which --from "
            f"scratch needs{asked}; name one such as vit_small_patch8"
        )
    return replace(draft, patch=vit.patch_embed.patch_size[0], features=vit.num_features)


def _options(pairs: tuple[str, ...]) -> dict[str, int | float]:
    options: dict[str, int | float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            options[name.strip()] = float(value) if "." in value else int(value)
        except ValueError:
            raise ConfigError(
                f"--arch-options {pair!r}: expected NAME=NUMBER, such as depth=4"
            ) from None
    return options


def start_channels(
    config: PretrainConfig, spec: BackboneSpec, roles: tuple[str, ...]
) -> ChannelMap:
    """Which of the store's channels goes into which input."""
    found = resolve(config.channels, spec.roles, roles, spec.default_channels)
    if spec.tokens == "channel" and found.kind == "replicate":
        raise ConfigError(
            "--channels replicate is for a backbone of patch tokens: with --tokens channel each "
            "channel has tokens of its own; leave --channels out"
        )
    return found


def start_backbones(config: PretrainConfig, spec: BackboneSpec) -> tuple[Backbone, Backbone, str]:
    """Student (with stochastic depth) and teacher of the same weights, and these weights' hash."""
    teacher = Backbone(spec)
    if config.start == "scratch":
        fill(teacher.vit, random_state(teacher.vit, config.seed), "a fresh start")
        origin = f"random:{config.seed}"
    else:
        loaded = backbones.load(config.start, config.weights)
        fill(teacher.vit, loaded.vit.state_dict(), config.start)
        origin = loaded.weights_hash
    student = _deep(spec, config.drop_path)
    fill(student.vit, teacher.vit.state_dict(), config.start)
    return student, teacher, origin


def _deep(spec: BackboneSpec, drop_path: float) -> Backbone:
    """A backbone of `spec` whose blocks are left out with probability `drop_path`."""
    try:
        return Backbone(replace(spec, options={**spec.options, "drop_path_rate": drop_path}))
    except TypeError:
        if drop_path == 0:
            return Backbone(spec)
        raise ConfigError(
            f"{spec.name} has no stochastic depth; pass --drop-path 0, or choose another backbone"
        ) from None
