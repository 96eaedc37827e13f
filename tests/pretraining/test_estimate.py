"""What a run will do: the batch that fits few samples, the tokens and the memory it says."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.models.inputs import Detail
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


def plan_of(samples: int = 100, processes: int = 1, device: str = "cpu", **settings: Any) -> Plan:
    return Plan.of(
        PretrainConfig.of({"arch": "x", "batch": 8, **settings}), samples, processes, device
    )


def test_a_batch_may_be_all_the_samples_there_are() -> None:
    """And a part of it two samples, where samples are compared."""
    assert plan_of(8, epochs=3).steps == 3
    assert plan_of(epochs=3).steps == 3 * (100 // 8)
    assert plan_of(epochs=3, steps=5).steps == 5
    plan = plan_of(processes=2, objective="simclr", accumulate=2)
    assert (plan.share, plan.parts, plan.most_parts) == (4, 2, 2)
    for processes, accumulate in ((2, 3), (4, 2), (1, 5)):
        with pytest.raises(ConfigError, match="must leave two or more"):
            plan_of(processes=processes, objective="simclr", accumulate=accumulate)
    plan = plan_of(processes=4, accumulate=3)
    assert (plan.share, plan.parts, plan.most_parts) == (2, 2, 2)


@pytest.mark.parametrize(
    ("precision", "on_cpu", "on_gpu"),
    [("auto", False, True), ("fp32", False, False), ("bf16", True, True)],
)
def test_half_precision_is_for_gpus_unless_asked_for(
    precision: str, on_cpu: bool, on_gpu: bool
) -> None:
    found = [plan_of(device=device, precision=precision).bfloat16 for device in ("cpu", "cuda")]
    assert found == [on_cpu, on_gpu]


def test_what_changes_from_step_to_step() -> None:
    """Rate with a warm-up, decay and momentum by half a cosine, and the first steps frozen."""
    given = {"learning_rate": 0.64, "final_learning_rate": 0.002, "weight_decay": 0.1}
    plan = plan_of(
        steps=21, warmup=0.2, final_weight_decay=0.5, momentum=0.9, freeze_last=0.1, **given
    )
    rate = 0.64 * 8 / 256
    for step in range(21):
        rates, left = plan.rates(step), (1 + math.cos(math.pi * step / 20)) / 2
        assert rates.weight_decay == pytest.approx(0.5 - 0.4 * left)
        assert rates.momentum == pytest.approx(1 - 0.1 * left)
        assert rates.frozen == (step < 2)
        if step <= 4:
            assert rates.learning_rate == pytest.approx(rate * step / 4)
    assert plan.rates(12).learning_rate == pytest.approx((rate + 0.002) / 2)
    assert plan.rates(20).learning_rate == pytest.approx(0.002)
    # A run so slow that it begins below the end stays there; without a teacher there is no average.
    slow = plan_of(steps=5, warmup=0.0, learning_rate=1e-6, objective="mae")
    assert {slow.rates(step).learning_rate for step in range(5)} == {1e-6 * 8 / 256}
    assert {slow.rates(step).momentum for step in range(5)} == {0.0}


def test_a_rate_that_nobody_set() -> None:
    """Caron et al. 2021: 5e-4 for 256 samples; a fine-tune takes a tenth."""
    assert plan_of().learning_rate.start == pytest.approx(5e-4 * 8 / 256)
    tuned = plan_of(**{"from": "dino-vits16", "arch": None})
    assert tuned.learning_rate.start == pytest.approx(5e-5 * 8 / 256)


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
    return describe(
        config, plan, spec, channels, student, objective, 7, "nothing", Detail.of(4, 0.2)
    )


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
    assert "a view's pixel is 4 stored ones along a side (0.8 um), at most" in text


def test_tokens_are_those_of_every_channel_where_each_has_its_own() -> None:
    assert f"{2 * 33 + 3 * 9} tokens a sample" in told(tokens="channel")
    assert gib(tokens="channel", prototypes=2) > 1.7 * gib(prototypes=2)


def test_rates_are_told_along_the_run() -> None:
    """A quarter of the steps on, half of them, and at the end."""
    given = {"learning_rate": 0.0128, "final_learning_rate": 0.0, "warmup": 0.0, "steps": 401}
    told_of = re.search(r"rate +(.*)", told(**given))
    assert told_of
    found = {}
    for one in told_of[1].split(", "):
        share, rate = one.split()
        found[int(share.rstrip("%")) / 100] = float(rate)
    assert [*found] == [0, 0.05, 0.1, 0.25, 0.5, 0.75, 1]
    for share, rate in found.items():
        expected = 0.0128 * 20_000 / 256 * (1 + math.cos(math.pi * share)) / 2
        assert rate == pytest.approx(expected, rel=0.01, abs=1e-6)


def test_memory_is_that_of_published_counts() -> None:
    """34 bytes a token, feature and block at 16 bits (Korthikanti et al. 2022), five times four a
    weight."""
    many = {"batch": 200_000, "prototypes": 2, "head_hidden": 1, "bottleneck": 1}
    expected = 200_000 * (2 * 17 + 3 * 5) * 24 * 34 / 2**30
    assert gib(precision="bf16", **many) == pytest.approx(expected, abs=0.1)
    assert gib(precision="fp32", **many) == pytest.approx(2 * expected, abs=0.1)
    deep = ("patch_size=4", "depth=3", "embed_dim=24", "num_heads=3")
    assert gib(precision="bf16", **many, arch_options=deep) == pytest.approx(3 * expected, abs=0.1)
    large = gib(batch=2, prototypes=2**19, bottleneck=512, head_hidden=1)
    assert large == pytest.approx(20 * 2**28 / 2**30, abs=0.15)


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
