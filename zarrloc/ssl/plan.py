"""What a run will do, worked out before it does it."""

from dataclasses import dataclass, replace

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.ssl.dino import Schedule

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
    steps: int
    steps_per_epoch: int
    learning_rate: Schedule
    weight_decay: Schedule
    momentum: Schedule
    frozen_steps: int
    bfloat16: bool
    parts: int

    @classmethod
    def of(cls, config: PretrainConfig, samples: int, processes: int, device: str) -> "Plan":
        """Raises `ConfigError` where the batch fits neither the data nor the processes."""
        if config.batch > samples:
            raise ConfigError(
                f"--batch {config.batch} is more than the {samples} samples there are; lower it"
            )
        if config.batch % processes:
            raise ConfigError(
                f"--batch {config.batch} does not divide among {processes} processes; use "
                f"{config.batch // processes * processes or processes}"
            )
        per_epoch = samples // config.batch
        steps = config.steps or config.epochs * per_epoch
        per_256 = config.learning_rate or SCRATCH_RATE * (1 if config.start == "scratch" else 0.1)
        rate = per_256 * config.batch / 256
        bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and device == "cuda"
        )
        return cls(
            samples=samples,
            steps=steps,
            steps_per_epoch=per_epoch,
            learning_rate=Schedule(
                rate, min(rate, config.final_learning_rate), steps, round(config.warmup * steps)
            ),
            weight_decay=Schedule(config.weight_decay, config.final_weight_decay, steps),
            momentum=Schedule(config.momentum, 1.0, steps),
            frozen_steps=round(config.freeze_last * steps),
            bfloat16=bfloat16,
            parts=min(config.accumulate, config.batch // processes),
        )

    def rates(self, step: int) -> Rates:
        """The schedules at a step."""
        return Rates(
            self.learning_rate.at(step),
            self.weight_decay.at(step),
            self.momentum.at(step),
            step < self.frozen_steps,
        )

    def in_parts(self, parts: int) -> "Plan":
        """The same with each process's share cut into more parts."""
        return replace(self, parts=parts)
