"""Settings of `zarrloc split`."""

from pydantic import Field

from zarrloc.config.base import Config

FOLDS = 5


class SplitConfig(Config):
    """How the fields of a store are dealt into folds and a test set."""

    folds: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Number of folds; default: 5, or with --target as many as each class has "
        "groups, if these are fewer.",
    )
    test: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the fields kept as a test set."
    )
    group: str = Field(
        default="auto",
        description="What stays together: image (each field alone, as in the paper), or any "
        "coordinate of the fields (protein, well, donor, plate); auto: protein where fields name "
        "one, else well, else image.",
    )
    target: str | None = Field(
        default=None,
        description="Coordinate of the fields to spread over the folds instead of their labels, "
        "such as condition.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the random ties.")
