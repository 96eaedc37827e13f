"""Settings of `zarrloc reproduce`: a table of a paper as a file, and what stands in for weights."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from zarrloc.config.base import Config
from zarrloc.config.train import Weak

SCRATCH = "scratch"

Value = Annotated[tuple[float, ...], Field(min_length=1, max_length=2)]
"""A figure, or a mean and its standard deviation."""


class FinetuneConfig(Config):
    """Self-supervised training on the store before a row is embedded."""

    epochs: PositiveInt = Field(100, description="Passes over the training fields.")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of the training fields.")


class ReproducedRowConfig(Config):
    """One row of a table: a backbone, how it sees the store, and what the paper found."""

    name: str = Field(min_length=1, description="Name of the row.")
    backbone: str = Field(description="A backbone of `zarrloc backbones`, or `scratch`.")
    weights: str | None = Field(None, description="File of weights; else the published ones.")
    arch: str | None = Field(None, description="timm ViT of a row from scratch.")
    channels: str | None = Field(
        None, description="natural, replicate, ROLE=INPUT,..., or random:SEED."
    )
    finetune: FinetuneConfig | None = Field(None, description="Training on the store beforehand.")
    paper: dict[str, Value] = Field(
        {}, description="The paper's figures: `macro_f1`, or `k=1`, `k=3`, ..., with their sd."
    )

    @model_validator(mode="after")
    def _scratch_is_trained(self) -> Self:
        if self.backbone == SCRATCH and (self.finetune is None or self.arch is None):
            raise ValueError("a row from scratch needs arch and finetune")
        return self


class ReproduceConfig(Config):
    """A table of the paper: settings that its rows share, and the rows."""

    title: str = Field(min_length=1, description="Title of the table.")
    figure: Literal["none", "rows", "fractions", "neighbours", "map", "examples"] = Field(
        "none", description="Figure to draw."
    )
    level: Literal["fov", "cell"] = Field("fov", description="What is embedded.")
    rows: tuple[ReproducedRowConfig, ...] = Field(min_length=1, max_length=200)

    part: Literal["validation", "test"] = Field(
        "test", description="Whose macro-F1 is reported: the validation folds', or the test set's."
    )
    size: str = Field("native", description="As `embed --size`.")
    weak: Weak = Field("positive", description="What grades 1 and 2 are.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of the fields kept as a test set.")
    folds: int = Field(5, ge=2, le=100, description="Folds of the rest.")
    group: str = Field("image", description="What stays together in the split, as of `split`.")
    seed: int = Field(0, ge=0, description="Seed of split and heads.")
    head: dict[str, Any] = Field({}, description="Settings of `train` other than the paper's.")
    pretrain: dict[str, Any] = Field({}, description="Settings of `pretrain` for all rows.")

    cells: str = Field("paper", description="Name of the cell table; made where it is absent.")
    segment: dict[str, Any] = Field({}, description="Settings of `segment` that make it.")
    keep_percentile: float | None = Field(
        None, description="As `segment --keep-percentile`; else the absolute black cutoff."
    )
    crop_um: float | None = Field(None, gt=0, description="Side of a cell's window, um.")
    labels: Literal["weak", "expert"] = Field("expert", description="Whose labels cells have.")
    knn: tuple[PositiveInt, ...] = Field((1, 3, 5, 10, 20), description="Neighbours of cells.")

    choices: dict[str, tuple[Any, ...]] = Field(
        {}, description="Settings the paper leaves open, and their alternatives (`--sensitivity`)."
    )
    reasons: dict[str, str] = Field({}, description="Why each of them is what it is here.")

    @model_validator(mode="after")
    def _choices_are_settings(self) -> Self:
        for name in (*self.choices, *self.reasons):
            if name not in type(self).model_fields or name in ("rows", "choices", "reasons"):
                raise ValueError(f"choices: {name!r} is no setting of a table")
        names = [row.name for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rows: {', '.join(map(repr, twice))} stands there twice")
        return self


class StandInConfig(Config):
    """What takes the place of one backbone."""

    backbone: str | None = Field(None, description="A folder of `zarrloc pretrain`, or a name.")
    weights: str | None = Field(None, description="Weights: a file, or random:SEED.")
    arch: str | None = Field(None, description="timm ViT for rows from scratch.")


class StandInsConfig(Config):
    """Small backbones in the place of a paper's, and the settings that go with them."""

    backbones: dict[str, StandInConfig] = Field(
        {}, description="Stand-ins by the name (from scratch: the arch) of what they replace."
    )
    epochs_share: float = Field(1.0, gt=0, le=1, description="Share of every row's epochs.")
    cell_epochs_share: float | None = Field(
        None, gt=0, le=1, description="The same for rows of cells, of which there are more."
    )
    table: dict[str, Any] = Field({}, description="Settings of the table that differ.")
    pretrain: dict[str, Any] = Field({}, description="Settings of `pretrain` that differ.")
