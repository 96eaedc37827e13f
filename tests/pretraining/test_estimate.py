"""What a run will do: the batch that fits few samples, the tokens and the memory it says."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.models.vit import Backbone
from zarrloc.pretraining.estimate import Plan, describe, fitted
from zarrloc.pretraining.objectives import objective_of
from zarrloc.pretraining.start import start_channels, start_spec

ROLES = ("nucleus", "protein")


@pytest.mark.parametrize(
    ("samples", "batch"), [(2, 2), (7, 2), (15, 2), (16, 4), (40, 8), (127, 16), (128, 32)]
)
def test_a_batch_nobody_set_is_a_quarter_of_few_samples(samples: int, batch: int) -> None:
    """The largest power of two that is no more; what somebody set stays as it is."""
    config = PretrainConfig(arch="x")
    assert fitted(config, samples).batch == batch
    own = PretrainConfig(arch="x", batch=48)
    assert fitted(own, samples) is own


def test_a_batch_that_fits_stays() -> None:
    config = PretrainConfig(arch="x")
    assert fitted(config, 4 * config.batch) is config
    assert fitted(config, 4 * config.batch - 1).batch == config.batch // 2


@pytest.mark.parametrize("level", ["fov", "cell"])
def test_nothing_to_train_on_is_said_as_that(level: str) -> None:
    """Not as a batch that is too large for it."""
    config = PretrainConfig(arch="x", level=level)
    with pytest.raises(ConfigError, match=f"there is no {level} to train on"):
        Plan.of(fitted(config, 0), 0, 1, "cpu")
    with pytest.raises(ConfigError, match="--batch 64 is more than the 9 samples") as refused:
        Plan.of(config, 9, 1, "cpu")
    assert ("--level cell" in str(refused.value)) == (level == "fov")


def told(**settings: Any) -> str:
    """The plan of a small ViT on a million samples."""
    config = PretrainConfig.of(
        {
            "arch": "vit_tiny_patch16", "size": 16, "local_size": 8, "local_views": 3,
            "arch_options": ("patch_size=4", "depth=1", "embed_dim=24", "num_heads=3"),
            "batch": 20_000, "steps": 10, "prototypes": 1000, **settings,
        }
    )  # fmt: skip
    spec = start_spec(config, ROLES)
    with torch.device("meta"):
        student = Backbone(spec)
    plan = Plan.of(config, 1_000_000, 1, "cpu")
    channels, objective = start_channels(config, spec, ROLES), objective_of(config, spec)
    return describe(config, plan, spec, channels, student, objective, 7, "nothing")


def gib(**settings: Any) -> float:
    found = re.search(r"memory +about ([\d.]+) GiB", told(**settings))
    assert found
    return float(found[1])


def test_tokens_of_a_sample_are_counted() -> None:
    """Two views of 4 x 4 patches and three of 2 x 2, each with its class token."""
    text = told()
    assert f"{2 * 17 + 3 * 5} tokens a sample" in text
    assert "2 x 16 px + 3 x 8 px" in text
    assert "10 of 20000 samples, 50 an epoch (0.2 epochs)" in text


def test_tokens_are_those_of_every_channel_where_each_has_its_own() -> None:
    assert f"{2 * 33 + 3 * 9} tokens a sample" in told(tokens="channel")
    assert gib(tokens="channel", prototypes=2) > 1.7 * gib(prototypes=2)


def test_hidden_patches_are_answered_by_prototypes_too() -> None:
    """32 patches of two views, half of them hidden in all views, by student and teacher."""
    settings = {"objective": "dinov2", "mask_range": (0.5, 0.5), "mask_probability": 1.0}
    of_patches = gib(**settings) - gib(**{**settings, "mask_probability": 0.0})
    assert of_patches == pytest.approx(20_000 * 2 * 16 * 1000 * 12 / 2**30, abs=0.11)
    assert gib(objective="dinov2", mask_probability=0.0) == pytest.approx(gib(), abs=0.11)


def test_memory_grows_with_the_samples_of_a_step_the_network_and_its_outputs() -> None:
    once, twice, thrice = (gib(batch=batch) for batch in (20_000, 40_000, 60_000))
    assert once > 1
    assert twice - once == pytest.approx(thrice - twice, abs=0.11)
    assert twice == pytest.approx(2 * once, rel=0.1)
    assert gib(batch=40_000, accumulate=2) == pytest.approx(once, abs=0.11)
    assert gib(precision="bf16") < once
    assert gib(prototypes=4000) > 1.5 * once
    deeper = ("patch_size=4", "depth=4", "embed_dim=24", "num_heads=3")
    assert gib(arch_options=deeper) > 1.2 * once


def test_a_run_goes_on_in_no_more_parts_than_it_has_samples() -> None:
    """As the checkpoint says, unless more are asked for now, or there are more processes."""

    def plan(processes: int = 1, **settings: Any) -> Plan:
        config = PretrainConfig(arch="x", batch=8, **settings)
        return Plan.of(config, 100, processes, "cpu")

    assert plan().resumed(4, True) == replace(plan(accumulate=4), bfloat16=True)
    assert plan(accumulate=8).resumed(4, False).parts == 8
    assert plan(processes=4).resumed(4, False).parts == 2
    assert plan(processes=8).resumed(4, False).parts == 1
    assert plan(processes=4, objective="simclr").resumed(4, False).parts == 1
    assert plan(objective="simclr").resumed(8, False).parts == 4
