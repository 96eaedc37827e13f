"""Settings of self-supervised training; the defaults are the paper's, or Doron et al.'s (2023)."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from zarrloc.config.base import Config


class PretrainConfig(Config):
    """Self-supervision on a store's fields or cells; DINO's as in the paper, 2.3 to 2.5."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    RUN_ONLY: ClassVar[tuple[str, ...]] = (
        *("weights", "also", "cache", "device", "processes", "accumulate"),
        *("checkpoint_steps", "keep", "log_steps", "tensorboard", "keep_going"),
    )
    """How a run is carried out, and where its data lies: may differ when it is resumed."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Optimisation": (
            *("final_learning_rate", "warmup", "weight_decay", "final_weight_decay", "clip"),
            *("momentum", "freeze_last", "drop_path"),
        ),
        "Views": (
            *("local_size", "local_views", "global_scale", "local_scale", "warp", "flip", "turn"),
            *("jitter", "remove_channel", "rescale_protein", "noise", "blur"),
        ),
        "Objective": (
            *("prototypes", "head_hidden", "bottleneck", "student_temperature"),
            *("teacher_temperature", "center_momentum", "ibot_weight", "koleo_weight"),
            *("mask_range", "mask_probability", "mask_ratio", "decoder_width", "decoder_depth"),
            *("contrast_temperature", "projection"),
        ),
        "Guard": ("guard_epochs", "eval_every", "guard_samples", "keep_going"),
        "Where it runs": (
            *("cache", "pool_shards", "device", "precision", "processes", "accumulate"),
            *("checkpoint_steps", "keep", "log_steps", "tensorboard"),
        ),
    }

    objective: Literal["dino", "dinov2", "mae", "simclr", "vicreg"] = Field(
        "dino", description="What is learned."
    )
    arch: str | None = Field(
        None, description="timm ViT such as vit_small_patch8; the backbone's own when fine-tuning."
    )
    start: str = Field(
        "scratch", alias="from", description="`scratch`, a backbone's name, or its directory."
    )
    weights: str | None = Field(
        None, description="File of the backbone's weights, or random:SEED; else the published ones."
    )
    arch_options: tuple[str, ...] = Field(
        (), description="timm arguments for --from scratch, as depth=4,patch_size=8."
    )
    tokens: Literal["patch", "channel"] = Field(
        "patch",
        description="From scratch, a token is a patch of all channels or of one: the latter embeds "
        "any set of channels.",
    )
    channel_sampling: bool = Field(
        True, description="With channel tokens, show a step some channels only, drawn at random."
    )
    also: tuple[str, ...] = Field(
        (), description="Further stores to train on, of any channels, with channel tokens."
    )
    views: Literal["sample", "protein"] = Field(
        "sample",
        description="Both views of one field or cell, or of two fields of one protein (SimCLR, "
        "VICReg); then only proteins that are held out are new to the backbone.",
    )
    level: Literal["fov", "cell"] = Field("fov", description="Train on whole fields or on cells.")
    cells: str = Field("cells", description="Name of the cells group, for --level cell.")
    crop_um: float | None = Field(None, gt=0, description="Side of a cell's window in um.")
    channels: str | None = Field(
        None, description="natural, replicate, or ROLE=INPUT,...; the backbone's own if not given."
    )
    split: str | None = Field(None, description="Read only the training part of this split.")
    fraction: float = Field(
        1.0, gt=0, le=1, description="Share of the training fields; smaller ones nest in larger."
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order and views.")

    epochs: int = Field(100, ge=1, description="Passes over the data.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps, instead of --epochs.")
    batch: int = Field(
        64,
        ge=1,
        description="Samples a step, over all processes together; if not given, a quarter of all "
        "samples at most.",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Rate for 256 samples a step; 5e-4 from scratch, a tenth to tune."
    )
    final_learning_rate: float = Field(1e-6, ge=0, description="Rate at the end of the cosine.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps with a rising rate.")
    weight_decay: float = Field(0.04, ge=0, description="Decay at the start; on matrices only.")
    final_weight_decay: float = Field(0.4, ge=0, description="Decay at the end of its cosine.")
    clip: float = Field(3.0, gt=0, description="Largest gradient norm of a parameter.")
    momentum: float = Field(
        0.996, ge=0, le=1, description="DINO, DINOv2: teacher's EMA momentum, cosine to 1."
    )
    freeze_last: float = Field(
        0.01,
        ge=0,
        le=1,
        description="DINO, DINOv2: share of the steps with the head's last layer frozen.",
    )
    drop_path: float = Field(0.1, ge=0, lt=1, description="Stochastic depth of the student.")

    prototypes: int = Field(65536, ge=2, description="Outputs of DINO's and DINOv2's heads.")
    head_hidden: int = Field(2048, ge=1, description="Not MAE: hidden width of the head.")
    bottleneck: int = Field(256, ge=1, description="DINO, DINOv2: width before the prototypes.")
    student_temperature: float = Field(
        0.1, gt=0, description="DINO, DINOv2: softness of the student's output."
    )
    teacher_temperature: float = Field(
        0.04, gt=0, description="DINO, DINOv2: sharpening of the teacher's."
    )
    center_momentum: float = Field(0.9, ge=0, le=1, description="Momentum of DINO's centre.")
    ibot_weight: float = Field(1.0, ge=0, description="DINOv2: weight of hidden patches.")
    koleo_weight: float = Field(0.1, ge=0, description="DINOv2: weight of KoLeo.")
    mask_range: tuple[float, float] = Field(
        (0.1, 0.5), description="DINOv2: share of a view's patches that is hidden."
    )
    mask_probability: float = Field(
        0.5, ge=0, le=1, description="DINOv2: share of the views that hide patches."
    )
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="MAE: share of hidden patches.")
    decoder_width: int = Field(512, ge=32, multiple_of=32, description="MAE: decoder's width.")
    decoder_depth: int = Field(8, ge=1, description="MAE: decoder's blocks.")
    contrast_temperature: float = Field(0.1, gt=0, description="SimCLR: temperature.")
    projection: int = Field(128, ge=1, description="SimCLR: width that views are compared in.")

    size: int = Field(224, ge=1, description="Side of a global view, px; the embedding's size too.")
    local_size: int = Field(96, ge=1, description="DINO, DINOv2: side of a local view, px.")
    local_views: int = Field(8, ge=0, description="DINO, DINOv2: local views a sample.")
    global_scale: tuple[float, float] = Field((0.4, 1.0), description="Area of a global view.")
    local_scale: tuple[float, float] = Field(
        (0.05, 0.4), description="DINO, DINOv2: area of a local view."
    )
    warp: float = Field(
        0.25, ge=0, lt=0.5, description="Not MAE: furthest inward move of one corner."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a flip on each axis.")
    turn: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Probability of swapped axes; with flips, all eight orientations.",
    )
    jitter: float = Field(
        0.5, ge=0, description="Not MAE: sd of brightness and contrast, per channel."
    )
    remove_channel: float = Field(
        0.2, ge=0, le=1, description="Not MAE: probability; never the protein."
    )
    rescale_protein: float = Field(0.2, ge=0, le=1, description="Not MAE: probability.")

    noise: float = Field(
        0.0, ge=0, description="Not MAE: largest sd of a camera's noise at full brightness, 1."
    )
    blur: float = Field(
        0.0, ge=0, description="Not MAE: largest sd of a blur by the optics, px of a view."
    )

    guard_epochs: int = Field(5, ge=0, description="Check for collapse every N epochs; 0 never.")
    eval_every: int | None = Field(
        None, ge=1, description="Check every N steps, in place of --guard-epochs."
    )
    guard_samples: int = Field(2000, ge=2, description="Training samples the guard embeds.")

    keep_going: bool = Field(
        False, description="Train on after a collapse, which else ends the run with exit code 3."
    )

    cache: Literal["none", "ram", "device"] = Field(
        "none", description="Keep pixels decoded: a memory-mapped file a node, or on the device."
    )
    pool_shards: int = Field(4, ge=1, description="Shards that samples are drawn from at once.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic; auto: bf16 on CUDA, fp32 elsewhere."
    )
    processes: int = Field(
        0, ge=0, description="Processes to start; 0: one a GPU, or as torchrun or srun started."
    )
    accumulate: int = Field(1, ge=1, description="Parts a process's share of a step is cut into.")
    checkpoint_steps: int = Field(500, ge=1, description="Steps between checkpoints.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")
    log_steps: int = Field(10, ge=1, description="Steps between progress lines.")
    tensorboard: bool = Field(False, description="Log for TensorBoard too, if it is installed.")

    @model_validator(mode="after")
    def _scales(self) -> "PretrainConfig":
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} is {low},{high}; give two shares, 0 < low <= high <= 1")
        low, high = self.mask_range
        if not 0 < low <= high < 1:
            raise ValueError(f"mask_range is {low},{high}; give two shares, 0 < low <= high < 1")
        if self.also and self.start == "scratch" and self.tokens == "patch":
            raise ValueError(
                "also needs tokens channel: a patch of all channels cannot lack one of them"
            )
        if self.views == "protein" and self.objective not in ("simclr", "vicreg"):
            raise ValueError(
                f"views protein is for the objectives simclr and vicreg, not {self.objective}"
            )
        if self.views == "protein" and self.cache == "none":
            raise ValueError(
                "views protein needs the samples in memory, as any two may be one's views: set "
                "cache to ram or device"
            )
        if self.start == "scratch" and self.arch is None:
            raise ValueError("--from scratch needs --arch, such as vit_small_patch8")
        if self.start == "scratch" and self.weights is not None:
            raise ValueError(
                "weights is for a start from a backbone: name it (from), or leave weights out"
            )
        if self.start != "scratch" and self.arch_options:
            raise ValueError(
                f"arch_options is for a start from scratch: {self.start} is what it is; leave "
                "arch_options out"
            )
        return self

    def result(self) -> dict[str, object]:
        """The settings that the trained weights depend on, beside those they start from."""
        return self.model_dump(mode="json", exclude=set(self.RUN_ONLY))
