"""Settings of `zarrloc embed` that decide an embedding's values."""

from typing import Literal

from pydantic import Field

from zarrloc.config.base import Config


class EmbedConfig(Config):
    """How fields of view become feature vectors."""

    backbone: str = Field(
        description="Backbone name (`zarrloc backbones` lists them), timm:MODEL, or a directory "
        "written by `zarrloc pretrain`."
    )
    weights: str | None = Field(
        default=None,
        description="Checkpoint file, or random:SEED; default: the published weights.",
    )
    channels: str | None = Field(
        default=None,
        description="Channel map: natural, replicate, or ROLE=INPUT,... such as "
        "protein=1,nucleus=2; default: the backbone's.",
    )
    size: str = Field(
        default="native",
        description="native, the longer side in pixels, or um:X for X micrometres a pixel.",
    )
    norm: Literal["zscore", "imagenet", "none"] = Field(
        default="zscore", description="Normalisation of each image and channel."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Arithmetic; auto: bf16 on a GPU that has it, else fp32."
    )
