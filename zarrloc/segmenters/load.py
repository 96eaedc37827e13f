"""The segmenter that a config asks for. Nothing slow is imported before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zarrloc.config.segment import CELLPOSE_3, CELLPOSE_4, SegmentConfig
from zarrloc.errors import ChannelError, ConfigError, WeightsError

if TYPE_CHECKING:
    import torch

    from zarrloc.segmenters.seam import AnySegmenter


def load(config: SegmentConfig, device: str | torch.device = "cpu") -> AnySegmenter:
    """The segmenter `config` asks for, its weights read, checked and on `device`.

    Raises `WeightsError` (absent or wrong weights, and what to do), `ConfigError`.
    """
    refuse_unknown(config)
    segmenter = _load(config, device)
    if config.grow_role is None and config.grow_px is None:
        return segmenter
    from zarrloc.segmenters.grow import Grown

    return Grown(segmenter, config.grow_role, config.grow_px)


def _load(config: SegmentConfig, device: str | torch.device) -> AnySegmenter:
    if config.model == "watershed":
        from zarrloc.segmenters import watershed

        return watershed.WatershedSegmenter(config)
    import torch

    if config.model in CELLPOSE_4:
        from zarrloc.segmenters import cpsam

        return cpsam.load(config, torch.device(device))
    from zarrloc.segmenters import cellpose

    return cellpose.load(config, torch.device(device))


def refuse_missing_roles(config: SegmentConfig, roles: Sequence[str]) -> None:
    """Refuse, all at once, the channels `config` reads that a store with `roles` lacks.

    Raises
    ------
    ChannelError
        Which are missing, by the setting that asks for them.
    """
    cure = {
        "channels": "give roles of the store",
        "grow": "give a role of the store, a number of px, or none",
    }
    missing: dict[str, list[str]] = {}
    for role, setting in config.roles.items():
        if role not in roles:
            missing.setdefault(setting, []).append(role)
    problems = {
        setting: f"channel {', '.join(missing[setting])} not found; {cure[setting]}"
        for setting in cure
        if setting in missing
    }
    if problems:
        last = list(problems)[-1]
        problems[last] += f"; the store has {', '.join(roles)}"
        listed = "; ".join(f"{setting}: {why}" for setting, why in problems.items())
        raise ChannelError(listed, problems)


def refuse_unknown(config: SegmentConfig) -> None:
    """Refuse, before anything is loaded, a model that there is not or that lacks a file.

    Raises
    ------
    WeightsError
        Where `model` is neither a name nor a file, or `size_model` no file.
    ConfigError
        Where the diameter is `auto` and the weights of one's own come without a size model.
    """
    known = (*CELLPOSE_3, *CELLPOSE_4, "watershed")
    if config.size_model and not Path(config.size_model).is_file():
        raise WeightsError(f"no size model at {config.size_model}; expected its PATH")
    if config.model in known:
        return
    if not Path(config.model).is_file():
        raise WeightsError(
            f"no model {config.model}: expected {', '.join(known)} or the PATH of Cellpose 1 to 3 "
            "weights"
        )
    if config.diameter == "auto" and not config.size_model:
        why = (
            f"auto needs the size model of {config.model}: give its PATH as the size model, or "
            "the objects' diameter in px"
        )
        raise ConfigError(f"diameter: {why}", {"diameter": why})
