"""Settings of `zarrloc evaluate` and `zarrloc predict`."""

from typing import Literal

from pydantic import Field, PositiveInt

from zarrloc.config.train import DeviceConfig, Weak

Threshold = Literal["0.5", "tuned"]


class EvaluateConfig(DeviceConfig):
    """What is scored, and how."""

    head: str | None = Field(default=None, description="name of the head to score")
    embedding: str | None = Field(
        default=None, description="name of the embedding to score with --knn"
    )
    knn: tuple[PositiveInt, ...] = Field(
        default=(), description="numbers of neighbours, such as 1,3,5,10,20"
    )
    vote_norm: Literal["sum", "max"] = Field(
        default="sum",
        description="divide votes by the sum of weights, or by the largest label's vote",
    )
    temperature: float = Field(
        default=0.07, gt=0, description="temperature of the votes, exp(s / T)"
    )
    exclude_same: Literal["none", "fov", "protein"] = Field(
        default="none",
        description="neighbours from the query's own field or protein do not vote; "
        "the others' figures are shown beside it",
    )
    labels: Literal["weak", "expert"] = Field(
        default="weak", description="single cells: their field's labels, or an expert's own"
    )
    weak: Weak = Field(
        default="ignore", description="kNN: what grades 1 and 2 are (a head knows its own)"
    )
    probe: bool = Field(default=False, description="score a linear probe beside the head")
    baselines: bool = Field(
        default=True, description="score what chance, intensity and leakage give"
    )
    threshold: Threshold = Field(
        default="0.5", description="call a label from 0.5, or from what is best on the other folds"
    )
    bootstrap: int = Field(
        default=1000, ge=0, description="bootstrap resamples of the proteins; 0 = none"
    )
    seed: int = Field(default=0, ge=0, description="seed of bootstrap and permutation")


class PredictConfig(DeviceConfig):
    """New images through a trained head."""

    head: str = Field(description="the head: STORE/heads/NAME")
    embedding: str = Field(description="name of the embedding in the store of new images")
    threshold: Threshold = Field(
        default="0.5", description="call from 0.5, or from the head's tuned ones"
    )
