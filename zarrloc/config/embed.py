"""Settings of `zarrloc embed` that decide an embedding's values."""

from typing import Literal

from pydantic import Field

from zarrloc.config.base import Config


class EmbedConfig(Config):
    """How fields of view, or cells, become feature vectors."""

    backbone: str = Field(
        description="Backbone name (`zarrloc backbones` lists them), timm:MODEL, a directory "
        "written by `zarrloc pretrain`, or classic: measured texture, without a network."
    )
    weights: str | None = Field(
        default=None,
        description="Checkpoint file, or random:SEED; default: the published weights.",
    )
    last_blocks: int = Field(
        default=1,
        ge=1,
        description="Class tokens of so many last blocks, side by side, instead of the last one's "
        "alone; Cell-DINO's makers take 4.",
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
    norm: Literal["auto", "zscore", "cell", "minmax", "imagenet", "trained", "none"] = Field(
        default="auto",
        description="Normalisation of each image and channel; auto: as a `zarrloc pretrain` "
        "backbone was trained, else the backbone's own; cell: z-score over the cell's mask; "
        "minmax: the range of all channels together becomes 0 to 1.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Arithmetic; auto: bf16 on a GPU that has it, else fp32."
    )
    level: Literal["fov", "cell"] = Field(
        default="fov", description="What a row is: a field of view, or a cell of --cells."
    )
    cells: str | None = Field(default=None, description="Cell table, for --level cell.")
    crop_um: float | None = Field(
        default=None,
        gt=0,
        description="Side of a cell's crop in micrometres; default: the paper's 53 um, or 256 px "
        "where the store has no pixel size.",
    )
    outside: Literal["black", "keep"] = Field(
        default="black",
        description="What a crop shows outside its cell: nothing, or the neighbours.",
    )
    all_cells: bool = Field(
        default=False, description="Embed cells too whose `keep` is false; they are NaN otherwise."
    )
