"""Settings of `zarrloc evaluate` and `zarrloc predict`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from zarrloc.config.train import TARGET, DeviceConfig, Weak

Threshold = Literal["0.5", "tuned"]


class EvaluateConfig(DeviceConfig):
    """What is scored, and how."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Neighbours": ("vote_norm", "temperature", "exclude_same"),
        "Statistics": ("baselines", "threshold", "bootstrap", "seed"),
        "Where it runs": ("device",),
    }

    head: str | None = Field(default=None, description="Name of the head to score.")
    embedding: str | None = Field(
        default=None, description="Name of the embedding to score with --knn or --probe."
    )
    knn: tuple[PositiveInt, ...] = Field(
        default=(), description="Numbers of neighbours, such as 1,3,5,10,20."
    )
    vote_norm: Literal["sum", "max"] = Field(
        default="sum",
        description="Divide votes by the sum of weights, or by the largest label's vote.",
    )
    temperature: float = Field(
        default=0.07, gt=0, description="Temperature of the votes, exp(s / T)."
    )
    exclude_same: str = Field(
        default="none",
        description="Neighbours from the query's own fov, protein, or any other coordinate of the "
        "fields (well, plate, donor) do not vote, and share a fold of --probe; auto: protein, or "
        "well where no field names one. The others' figures are shown beside it.",
    )
    target: str | None = Field(default=None, description=TARGET + " A head knows its own.")
    labels: Literal["weak", "expert"] = Field(
        default="weak", description="Single cells: their field's labels, or an expert's own."
    )
    weak: Weak = Field(
        default="ignore", description="kNN: what grades 1 and 2 are (a head knows its own)."
    )
    probe: bool = Field(
        default=False,
        description="Score a linear probe: on the head's folds, or of --embedding on five folds "
        "of its own.",
    )
    baselines: bool = Field(
        default=True, description="Score what chance, intensity and leakage give."
    )
    threshold: Threshold = Field(
        default="0.5", description="Call a label from 0.5, or from what is best on the other folds."
    )
    bootstrap: int = Field(
        default=1000, ge=0, description="Bootstrap resamples of the proteins; 0 = none."
    )
    seed: int = Field(default=0, ge=0, description="Seed of bootstrap and permutation.")


class PredictConfig(DeviceConfig):
    """New images through a trained head."""

    head: str = Field(description="The head: STORE/heads/NAME.")
    embedding: str = Field(description="Name of the embedding in the store of new images.")
    threshold: Threshold = Field(
        default="0.5", description="Call from 0.5, or from the head's tuned ones."
    )
