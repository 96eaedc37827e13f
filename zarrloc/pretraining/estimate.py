"""What a run will do, worked out before it does it."""

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.models.channels import ChannelMap
from zarrloc.models.cost import tokens_of
from zarrloc.models.inputs import Detail
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.objective import Objective
from zarrloc.pretraining.objectives import OBJECTIVES
from zarrloc.pretraining.schedule import Schedule

SCRATCH_RATE = 5e-4
"""Learning rate for 256 samples a step (Caron et al. 2021); a fine-tune takes a tenth."""


@dataclass(frozen=True)
class Rates:
    """What changes from step to step."""

    learning_rate: float
    weight_decay: float
    momentum: float
    frozen: bool


@dataclass(frozen=True)
class Plan:
    """Steps and schedules of a run on `samples` samples."""

    samples: int
    share: int
    """Samples of a step that one process has."""
    steps: int
    steps_per_epoch: int
    learning_rate: Schedule
    weight_decay: Schedule
    momentum: Schedule
    frozen_steps: int
    bfloat16: bool
    parts: int
    """Pieces a share is cut into, one after the other."""
    most_parts: int
    """With more, one would lack a sample, or another to compare it with."""

    @classmethod
    def of(cls, config: PretrainConfig, samples: int, processes: int, device: str) -> "Plan":
        """Raises `ConfigError` where the batch fits neither the data nor the processes."""
        if samples == 0:
            raise ConfigError(
                f"there is no {config.level} to train on: none is kept, free of errors, and in the "
                "training part of the split; see `zarrloc report`, and ingest or segment again"
            )
        if config.batch > samples:
            more = "" if config.level == "cell" else ", or train on cells (--level cell)"
            raise ConfigError(
                f"--batch {config.batch} is more than the {samples} samples there are; "
                f"lower it (such as --batch {max(1, samples // 4)}){more}"
            )
        if config.batch % processes:
            raise ConfigError(
                f"--batch {config.batch} does not divide among {processes} processes; use "
                f"{config.batch // processes * processes or processes}"
            )
        share, compares = config.batch // processes, OBJECTIVES[config.objective].compares
        if compares and share // config.accumulate < 2:
            raise ConfigError(
                f"--objective {config.objective} compares samples that go through the network "
                f"together: --batch {config.batch} over {processes} processes and --accumulate "
                f"{config.accumulate} must leave two or more; raise --batch"
            )
        per_epoch = samples // config.batch
        steps = config.steps or config.epochs * per_epoch
        per_256 = config.learning_rate or SCRATCH_RATE * (1 if config.start == "scratch" else 0.1)
        rate = per_256 * config.batch / 256
        bfloat16 = config.precision == "bf16" or (config.precision == "auto" and device == "cuda")
        return cls(
            samples=samples,
            share=share,
            steps=steps,
            steps_per_epoch=per_epoch,
            learning_rate=Schedule(
                rate, min(rate, config.final_learning_rate), steps, round(config.warmup * steps)
            ),
            weight_decay=Schedule(config.weight_decay, config.final_weight_decay, steps),
            momentum=Schedule(config.momentum, 1.0, steps)
            if OBJECTIVES[config.objective].teaches
            else Schedule(0.0, 0.0, steps),
            frozen_steps=round(config.freeze_last * steps),
            bfloat16=bfloat16,
            parts=min(config.accumulate, share),
            most_parts=share // 2 if compares else share,
        )

    def resumed(self, parts: int, bfloat16: bool) -> "Plan":
        """Go on as a checkpoint says, but in smaller parts where that is asked for now."""
        parts = min(max(parts, self.parts), self.most_parts)
        return replace(self, parts=parts, bfloat16=bfloat16)

    def rates(self, step: int) -> Rates:
        """The schedules at a step."""
        return Rates(
            self.learning_rate.at(step),
            self.weight_decay.at(step),
            self.momentum.at(step),
            step < self.frozen_steps,
        )


def fitted(config: PretrainConfig, samples: int) -> PretrainConfig:
    """The settings for so many samples: a batch that nobody set is a quarter of them at most.

    Examples
    --------
    >>> fitted(PretrainConfig(arch="vit_small_patch8"), 40).batch
    8
    >>> fitted(PretrainConfig(arch="vit_small_patch8", batch=32), 40).batch
    32
    """
    most = max(2, samples // 4)
    if "batch" in config.model_fields_set or config.batch <= most:
        return config
    return config.model_copy(update={"batch": 2 ** (most.bit_length() - 1)})


def describe(
    config: PretrainConfig,
    plan: Plan,
    spec: BackboneSpec,
    channels: ChannelMap,
    student: nn.Module,
    objective: Objective,
    fields: int,
    held_out: str,
    detail: Detail,
) -> str:
    """The plan, line by line; memory is an estimate."""
    sides, inputs = Counter(view.size for view in objective.views()), len(spec.roles)
    tokens = sum(count * tokens_of(spec, side, side, inputs) for side, count in sides.items())
    views = " + ".join(f"{count} x {side} px" for side, count in sides.items())
    rates = ", ".join(
        f"{share:.0%} {plan.learning_rate.at(round(share * (plan.steps - 1))):.2e}"
        for share in (0, 0.05, 0.1, 0.25, 0.5, 0.75, 1)
    )
    memory = _memory(plan, spec, student, objective, tokens)
    lines = [
        f"objective  {config.objective}",
        f"backbone   {spec.timm_model} from {config.start}, {spec.features} features",
        f"channels   {channels.describe()}",
        f"data       {plan.samples} {config.level} samples of {fields} fields",
        f"held out   {held_out}",
        f"steps      {plan.steps} of {config.batch} samples, {plan.steps_per_epoch} an epoch "
        f"({plan.steps / plan.steps_per_epoch:.1f} epochs)",
        f"views      {views}: {tokens} tokens a sample",
        f"detail     a view's pixel is {detail}, at most",
        f"rate       {rates}",
        f"memory     about {memory / 2**30:.1f} GiB a process",
    ]
    return "\n".join(lines)


def _memory(
    plan: Plan,
    spec: BackboneSpec,
    student: nn.Module,
    objective: Objective,
    tokens: int,
) -> float:
    """Bytes of weights, optimizer and activations of one part of a step, roughly."""
    with torch.device("meta"):
        head = objective.head()
    weights = sum(p.numel() for module in (head, student) for p in module.parameters())
    part = plan.share / plan.parts
    blocks = len({name.split(".")[2] for name, _ in student.named_modules() if ".blocks." in name})
    # A transformer block keeps 34 bytes a token and feature at 16 bits (Korthikanti et al. 2022,
    # without the attention maps, which fused attention does not keep).
    kept = 34 * (1 if plan.bfloat16 else 2) * spec.features * blocks
    activations = part * kept * tokens
    # Of each number in 32 bits: itself, its log-softmax or its share by Sinkhorn, a gradient.
    logits = part * objective.outputs() * 4 * 3
    # Student, gradients, two of Adam's and the teacher: five times four bytes a weight.
    total: float = 20 * weights + activations + logits
    return total
