"""Settings of `zarrloc segment`: which model, on which channels, and what becomes of its masks."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from zarrloc.config.base import Config

NUCLEI_MODELS = ("nuclei", "watershed")
"""Models made for the nucleus channel alone; every other one takes protein, then nucleus."""


CELLPOSE_3 = ("cyto3", "cyto2", "nuclei")
"""Models of Cellpose 1 to 3 that are published."""

CELLPOSE_4 = ("cpsam", "cpsam_v2")
"""Models run by Cellpose 4's own code."""


class SegmentConfig(Config):
    """What a mask depends on. Where the work runs is in the run's own settings."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Cellpose": ("size_model", "flow_threshold", "cellprob_threshold", "tile_batch"),
    }

    model: str = Field(
        "cyto3",
        description="cyto3, cyto2 or nuclei (Cellpose 1 to 3), a PATH to such weights, "
        "cpsam or cpsam_v2 (Cellpose 4), or watershed (no weights).",
    )
    channels: tuple[str, ...] = Field(
        (),
        max_length=2,
        description="Roles: what is segmented, then the second channel. Default: protein,nucleus; "
        "nucleus for the models nuclei and watershed.",
    )
    diameter: Annotated[PositiveFloat, Field(allow_inf_nan=False)] | Literal["auto"] = Field(
        "auto",
        description="Diameter of the objects in px, or auto: by the size model; for watershed by "
        "the image; for cpsam none.",
    )
    size_model: str | None = Field(
        None, description="PATH of the size model that goes with a PATH to weights."
    )
    grow: str | None = Field(
        None,
        description="Grow the masks into cells: a role (protein) whose light they follow, a number "
        "of PX, or none. Default: protein for watershed, else none.",
    )
    flow_threshold: float = Field(
        0.4, ge=0, description="Cellpose: largest flow error of a mask; 0 keeps all."
    )
    cellprob_threshold: float = Field(
        0.0, description="Cellpose: least logit of a pixel in a mask; lower for larger masks."
    )
    min_size: NonNegativeInt = Field(15, description="Smallest mask kept, in px.")
    tile_batch: PositiveInt | None = Field(
        None,
        description="Tiles in one pass of the network, halved while the device has no memory for "
        "them. Default: 8 on a CPU, 32 on a GPU.",
    )

    @model_validator(mode="after")
    def _grow_is_a_role_or_px(self) -> Self:
        px = self.grow_px
        if px is not None and not 0 < px < float("inf"):
            raise ValueError(f"grow: got {self.grow}, expected a positive number of px or a role")
        return self

    @property
    def segmented(self) -> tuple[str, ...]:
        """The roles the model reads, its default filled in."""
        default = ("nucleus",) if self.model in NUCLEI_MODELS else ("protein", "nucleus")
        return self.channels or default

    @property
    def roles(self) -> Mapping[str, str]:
        """Every role that is read, and the setting that asks for it."""
        segmented = self.segmented[:1] if self.model == "watershed" else self.segmented
        grown = {self.grow_role: "grow"} if self.grow_role else {}
        return {**grown, **dict.fromkeys(segmented, "channels")}

    @property
    def grow_role(self) -> str | None:
        """The role whose light masks grow into; None where they don't, or grow by a distance."""
        if self.grow is None:
            return "protein" if self.model == "watershed" else None
        return None if self.grow == "none" or self.grow_px is not None else self.grow

    @property
    def grow_px(self) -> float | None:
        """The distance in px that masks grow by, where `grow` is a number."""
        try:
            return None if self.grow is None else float(self.grow)
        except ValueError:
            return None
