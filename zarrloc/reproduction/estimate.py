"""What is missing, and what it will cost, before anything is run.

Time is arithmetic over speed: multiplications and additions of a ViT by its shape, over what a
small ViT was just measured to do on this machine.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.groups.fovs import Fovs
from zarrloc.models import backbones
from zarrloc.models.cost import CLASSIC_S, forward_flops, shape_of, tokens_of
from zarrloc.models.inputs import Size
from zarrloc.models.specs import SPECS, BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.pixels.window import window_px
from zarrloc.pretraining.objectives import objective_of
from zarrloc.pretraining.start import start_spec
from zarrloc.reproduction.jobs import Job
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import committed

GPU_FLOPS = 1e14
"""What a ViT reaches on a data-centre GPU at 16 bits; for GPU-hours where there is no GPU."""
CELLS_A_FIELD = 25
SEGMENT_S = {"watershed": 0.5}
OTHER_SEGMENT_S = 20.0
"""A field by Cellpose on a core."""
CLASSIC = 346
"""Classic features of two channels."""
FOLDS, LABELS = 5, 17
HEAD_STEP_S = 0.003
"""A head's step beside its products: dropout, the optimiser."""
FIELD_PX = 600**2


@dataclass(frozen=True)
class Cost:
    """What one job costs."""

    done: bool
    items: int
    seconds: float
    gpu_seconds: float
    bytes: int
    files: int


@dataclass(frozen=True)
class Machine:
    """What this machine does."""

    flops: float
    """A ViT's multiplications and additions a second."""
    device: str

    @classmethod
    def measured(cls) -> "Machine":
        """Takes about a second."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        spec = BackboneSpec(
            "probe", "vit_tiny_patch16_224", ("a",), 16, 192, "", options={"depth": 3}
        )
        network = Backbone(spec).to(device).eval()
        images = torch.rand(8, 1, 224, 224, device=device)
        best = 1e9
        with torch.inference_mode():
            for _ in range(3):
                start = time.perf_counter()
                network(images)
                if device == "cuda":
                    torch.cuda.synchronize()
                best = min(best, time.perf_counter() - start)
        return cls(8 * forward_flops(spec, 197) / best, device)


def cost(job: Job, location: Location, fovs: Fovs, out: Path, machine: Machine) -> Cost:
    """What a job costs on this store."""
    done = is_done(job, location, out)
    if job.kind == "split":
        return Cost(done, fovs.rows, 0.1, 0.0, fovs.rows, 2)
    if job.kind == "segment":
        each = SEGMENT_S.get(job.settings["config"].get("model", "cyto3"), OTHER_SEGMENT_S)
        seconds = fovs.rows * each * fovs.megapixels * 1e6 / FIELD_PX
        pixels = int(fovs.rows * fovs.megapixels * 1e6)
        return Cost(done, fovs.rows, seconds, seconds / 40, pixels // 20, _blocks(fovs))
    if job.kind == "train":
        return _head(job, done, fovs, machine)
    if job.kind == "pretrain":
        return _training(job.settings, done, location, fovs, machine)
    return _embedding(job, done, location, fovs, machine)


def _head(job: Job, done: bool, fovs: Fovs, machine: Machine) -> Cost:
    config = job.settings
    specs = [_spec(need) for need in job.needs if need.kind == "embed"]
    widths = (specs[0].features if specs and specs[0] else CLASSIC, *config.hidden, LABELS)
    weights = FOLDS * sum(a * b for a, b in pairwise(widths))
    steps = -(-fovs.rows // config.batch)
    epochs = config.epochs_of(steps)
    flops = 6.0 * epochs * fovs.rows * weights
    seconds = flops / machine.flops + HEAD_STEP_S * epochs * steps
    return Cost(done, fovs.rows, seconds, flops / GPU_FLOPS, 4 * weights, 20)


def is_done(job: Job, location: Location, out: Path) -> bool:
    """Whether what it makes is there; a stage goes over it again, and finds what is missing."""
    if job.kind == "pretrain":
        return (out / "backbones" / job.name / "backbone.json").exists()
    group = {"split": "splits", "segment": "cells", "embed": "embeddings", "train": "heads"}
    return committed(location, f"{group[job.kind]}/{job.name}") is not None


def _embedding(job: Job, done: bool, location: Location, fovs: Fovs, machine: Machine) -> Cost:
    config, spec = job.settings, _spec(job)
    rows = _rows(config.level, config.cells, location, fovs)
    height, width = fovs.height, fovs.width
    if config.level == "cell":
        height = width = window_px(config.crop_um, fovs.pixel_size_um)
    if spec is None:
        each = CLASSIC_S * height * width
        return Cost(done, rows, rows * each, 0.0, rows * CLASSIC * 4, _blocks(fovs))
    plan = Size.parse(config.size).plan(height, width, spec.patch, fovs.pixel_size_um)
    tokens = tokens_of(spec, plan.height, plan.width, len(fovs.roles))
    maps = [config.channels, *(n.settings.channels for n in job.needs if n.kind == "pretrain")]
    passes = len(fovs.roles) if "replicate" in maps else 1
    flops = rows * passes * forward_flops(spec, tokens)
    size = rows * passes * spec.features * 4
    return Cost(done, rows, flops / machine.flops, flops / GPU_FLOPS, size, _blocks(fovs))


def _training(
    config: PretrainConfig, done: bool, location: Location, fovs: Fovs, machine: Machine
) -> Cost:
    spec = start_spec(config, fovs.roles)
    rows = _rows(config.level, config.cells, location, fovs)
    samples = max(1, round(rows * config.fraction))
    seen = config.steps * config.batch if config.steps else config.epochs * samples
    objective = objective_of(config, spec)
    each = 0.0
    for i, view in enumerate(objective.views()):
        # Forward and backward of the student, and the teacher's forward of a global view.
        times = 4 if i < 2 and objective.teaches else 3
        tokens = tokens_of(spec, view.size, view.size, len(fovs.roles))
        each += times * forward_flops(spec, tokens)
    flops, size = seen * each, 20 * shape_of(spec).weights
    return Cost(done, samples, flops / machine.flops, flops / GPU_FLOPS, size, 8)


def _spec(job: Job) -> BackboneSpec | None:
    """The spec of the job's backbone; None for classic features."""
    if job.settings.backbone == backbones.CLASSIC:
        return None
    for need in job.needs:
        if need.kind == "pretrain" and not Path(job.settings.backbone).is_dir():
            roles: Any = ("nucleus", "protein")
            return start_spec(need.settings, roles)
    return backbones.spec(job.settings.backbone)


def _rows(level: str, cells: str | None, location: Location, fovs: Fovs) -> int:
    if level == "fov":
        return fovs.rows
    table = committed(location, f"cells/{cells}")
    return CELLS_A_FIELD * fovs.rows if table is None else len(read_column(table, "fov_index"))


def _blocks(fovs: Fovs) -> int:
    return -(-fovs.rows // fovs.shard) + 10


def fetched(job: Job) -> str | None:
    """Where weights come from that this machine does not have; None where none are wanted."""
    config = job.settings
    name = config.start if job.kind == "pretrain" else config.backbone
    if name not in SPECS or config.weights is not None:
        return None
    from zarrloc.models.weights import is_cached

    source = SPECS[name].source
    return None if is_cached(source) else source
