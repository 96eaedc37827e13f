"""Settings of `zarrloc ingest` that decide what the store holds."""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from zarrloc.config.base import Config


class IngestConfig(Config):
    """How image files become fields of view. What is not given is taken from the files."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "What is stored": ("dtype", "lossy", "field_size", "shard_fovs"),
        "Part of a source": ("only", "genes", "limit"),
    }

    channels: tuple[str, ...] = Field(
        default=(),
        description="Channel roles in file order, such as nucleus,protein, or by name, such as "
        "w1=nucleus,w2=protein. Known for OpenCell; taken from the files' names or metadata where "
        "these name them, which then win over any order.",
    )
    pattern: str | None = Field(
        default=None,
        description="What file names mean, such as '{plate}_{well}_s{site}_w{channel}{*}.tif': "
        "{channel} and {z} join the files of a field, other fields become coordinates, {*} does "
        "not count.",
    )
    axes: str | None = Field(
        default=None, description="Axes of plain TIFFs, such as CYX, YXC or ZCYX."
    )
    project: Literal["max", "mean", "focus"] | None = Field(
        default=None,
        description="How a z stack becomes one plane; focus is the sharpest, the same for all "
        "channels.",
    )
    pixel_size_um: float | None = Field(
        default=None, gt=0, description="Pixel size in micrometres, over what the files say."
    )
    dtype: Literal["uint8", "uint16", "float32"] | None = Field(
        default=None,
        description="Number type of the store; default: the files', where whole numbers are stored "
        "without a sign and in at most 16 bits, real ones in 32. An image whose values do not fit "
        "gets an error.",
    )
    lossy: bool = Field(
        default=False,
        description="Round and clip values that the number type cannot hold, instead of an error.",
    )
    field_size: str | None = Field(
        default=None,
        description="Common size of the fields, HEIGHTxWIDTH in pixels; default: the largest "
        "found, unless a few would double the store. Smaller fields are padded, larger ones get an "
        "error.",
    )
    shard_fovs: int | None = Field(
        default=None,
        ge=1,
        description="FOVs in one shard; default: as many as fit 128 MiB, at most 64, and few "
        "enough that every core has some (give it where a small start will grow).",
    )
    only: Literal["proj", "stack"] | None = Field(
        default=None, description="Take OpenCell's projections, or its stacks, alone."
    )
    genes: tuple[str, ...] = Field(
        default=(), description="Take OpenCell's fields of these genes alone, such as ACTB,TUBB."
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Take the first so many fields, in the order of their names.",
    )

    @field_validator("axes")
    @classmethod
    def _are_axes(cls, value: str | None) -> str | None:
        letters = (value or "YX").upper()
        if len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters) <= set("TZCYX"):
            raise ValueError("expected letters of TZCYX, each at most once, Y and X among them")
        return None if value is None else letters

    @field_validator("field_size")
    @classmethod
    def _is_size(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", value):
            raise ValueError("expected HEIGHTxWIDTH, such as 600x600")
        return value
