"""Settings of `zarrloc simulate`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from zarrloc.config.base import Config


class SimulateConfig(Config):
    """How many proteins and fields, how large, and which seed; either `fovs` or `proteins`."""

    fovs: int | None = Field(
        default=None, ge=1, description="Fields in all, 4 to 6 a protein; 20 if nothing is asked."
    )
    proteins: int | None = Field(default=None, ge=1, le=9999, description="Proteins (cell lines).")
    fovs_per_protein: int | None = Field(
        default=None, ge=1, description="Fields a protein; 4 to 6 at random if not given."
    )
    size: int = Field(default=600, ge=64, le=8192, description="Side of a field in pixels.")
    seed: int = Field(default=0, ge=0, description="Same seed, same bytes.")
    labels: Literal["balanced", "opencell"] = Field(
        default="balanced",
        description="Main label of a protein: every label as often, or as often as in OpenCell.",
    )
    workers: int | None = Field(
        default=None, ge=1, description="Processes; as many as there are CPUs if not given."
    )

    @model_validator(mode="after")
    def _one_way_to_count(self) -> Self:
        if self.fovs is not None and (self.proteins or self.fovs_per_protein):
            raise ValueError("give fovs, or proteins with fovs_per_protein, not both")
        if self.fovs_per_protein is not None and self.proteins is None:
            raise ValueError("fovs_per_protein needs proteins")
        return self
