"""Settings of `zarrloc train`: the paper's section 2.6.1 where it says a number."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from zarrloc.config.base import Config

Weak = Literal["ignore", "positive", "negative"]
Pool = Literal["none", "mean", "attention"]


EPOCHS = 300
STEPS = 3000
"""The paper's training: 300 epochs of about ten batches. Small data get more epochs."""


class HeadConfig(Config):
    """One classification head and how it is optimised; every fold gets the same."""

    hidden: tuple[int, ...] = Field(default=(512, 256), description="Widths of the hidden layers.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout after each hidden layer.")
    lr: float = Field(default=1e-4, gt=0, description="Initial learning rate, cosine to 0.")
    weight_decay: float = Field(default=0.04, ge=0, description="AdamW's decoupled weight decay.")
    epochs: int | None = Field(
        default=None,
        ge=1,
        description="Epochs; default: the paper's 300, or as many as make its 3,000 steps where "
        "an epoch has few.",
    )
    batch: int = Field(
        default=512, ge=1, description="Largest batch; an epoch is cut into equal ones."
    )
    resample: Literal["epoch", "once"] = Field(
        default="epoch",
        description="Draw a new balanced sample each epoch, or one before the first "
        "(as Dino4Cells does).",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of the layers' products; auto: bf16 where the device has it, else "
        "fp32. Weights, loss and optimizer are fp32 always.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of weights, samples and dropout.")

    def epochs_of(self, steps: int) -> int:
        """How many epochs to train where one has `steps` steps."""
        return self.epochs or max(EPOCHS, -(-STEPS // steps))


TARGET = (
    "Coordinate of the fields to learn instead of their labels, such as condition: each field is "
    "of one class, its value there."
)


class DeviceConfig(Config):
    """Where torch computes; no part of what a result is."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"Where it runs": ("device",)}

    device: str = Field(
        default="auto", description="Auto (a GPU where there is one), cpu, cuda or cuda:N."
    )


class TrainConfig(HeadConfig, DeviceConfig):
    """A head on a stored embedding, trained on every fold of a stored split."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Optimisation": (
            "hidden",
            "dropout",
            "lr",
            "weight_decay",
            "epochs",
            "batch",
            "resample",
            "seed",
        ),
        "Where it runs": ("precision", "device"),
    }

    embedding: str = Field(description="Name of the embedding to train on.")
    split: str = Field(description="Name of the split.")
    target: str | None = Field(default=None, description=TARGET)
    pool: Pool = Field(
        default="none",
        description="On cells: none, each cell is called what its field is; mean and attention, a "
        "field is called by all its cells together, and the head learns which of them show it.",
    )
    weak: Weak = Field(
        default="ignore",
        description="What grades 1 and 2 are: left out of loss and scores, positive, or negative.",
    )
