"""Settings of `zarrloc report`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from zarrloc.config.evaluate import Threshold
from zarrloc.config.train import DeviceConfig


class ReportConfig(DeviceConfig):
    """What the page shows of a store."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Scores": ("knn", "baselines", "threshold", "bootstrap"),
        "Map and pictures": ("umap_neighbours", "umap_min_dist", "pictures_mb", "seed"),
        "Where it runs": ("device",),
    }

    embedding: str | None = Field(
        default=None, description="Embedding to map; default: the head's, or the first by name."
    )
    head: str | None = Field(
        default=None,
        description="Head to show; default: the first by name there, trained ones before others.",
    )
    target: str | None = Field(
        default=None,
        description="Coordinate of the fields to show instead of their labels, such as condition: "
        "in map, scores and neighbours; default: the head's, if --head has one.",
    )
    runs: tuple[str, ...] = Field(
        default=(),
        description="Folders of `zarrloc pretrain` whose training to draw: loss, neighbours, rank.",
    )
    knn: tuple[PositiveInt, ...] = Field(
        default=(1, 3, 5, 10, 20),
        description="Numbers of neighbours to score; an empty text leaves that part out.",
    )
    baselines: bool = Field(
        default=True, description="Score what chance, intensity and leakage give."
    )
    threshold: Threshold = Field(
        default="0.5",
        description="Call a label from 0.5, or from the head's tuned ones; scores are tuned on "
        "the other folds.",
    )
    bootstrap: int = Field(
        default=1000, ge=0, description="Bootstrap resamples of the proteins; 0 = none."
    )
    outliers: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Look for fields that are out of focus, empty, saturated or unlike their "
        "replicates, which reads every image; auto: up to 2,000 fields.",
    )
    umap_neighbours: int = Field(
        default=15, ge=2, description="UMAP: neighbours that a point keeps close."
    )
    umap_min_dist: float = Field(
        default=0.1, ge=0, le=1, description="UMAP: how tightly points may lie."
    )
    pictures_mb: float = Field(
        default=8, ge=0, description="Megabytes of hover pictures; points beyond it have none."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the projection and the bootstrap.")
