"""Embed: each field of view becomes one feature vector of a backbone.

A block is one shard of fields. Its pixels go to the device as stored; cropping the padding,
resizing, normalising and mapping channels happen there, in batches of fields of one size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc import backbones, channels, preprocess
from zarrloc.channels import ChannelMap
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.run import RunConfig
from zarrloc.digest import combine
from zarrloc.engine.blocks import Block, Output
from zarrloc.engine.drive import drive
from zarrloc.engine.ledger import Ledger, receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import WeightsError
from zarrloc.fovs import GROUP as FOVS
from zarrloc.fovs import Fovs, read_fov_block
from zarrloc.location import Location, StoreClock
from zarrloc.lock import hold
from zarrloc.store import (
    PENDING,
    StageAttrs,
    Variable,
    allocate,
    check_name,
    claim,
    commit,
    write_column,
)
from zarrloc.vit import Backbone

CPU_BATCH = 16
CPU_TOKENS = CPU_BATCH * 1024
"""A CPU batch holds at most this many tokens: beyond, it costs memory and gains no speed."""

GPU_BATCH = 512


# --- one block ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """Which backbone a worker loads, and what its weights must hash to."""

    name: str
    weights: str | None
    weights_hash: str

    def load(self, device: str) -> Backbone:
        """The backbone on `device`, loaded once a process. WeightsError where a worker differs."""
        key = (self, device)
        if key not in _LOADED:
            backbone = backbones.load(self.name, self.weights)
            if backbone.weights_hash != self.weights_hash:
                raise WeightsError(
                    f"weights of {self.name} hash to {backbone.weights_hash} here, to "
                    f"{self.weights_hash} where the run began; give every worker the same file"
                )
            _LOADED[key] = backbone.to(device)
        return _LOADED[key]


_LOADED: dict[tuple[Model, str], Backbone] = {}


@dataclass(frozen=True)
class Forward:
    """From fields of one size to features: preparation, passes and batches on one device."""

    model: Model
    channel_map: ChannelMap
    size: str
    norm: preprocess.Norm
    pixel_size_um: float | None
    execution: dict[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> Backbone:
        """The loaded backbone."""
        return self.model.load(self.execution.get("device") or default_device())

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`(n, channel, y, x)` -> features `(n, feature)` and the largest input `(n,)`, float32."""
        backbone = self.backbone
        inputs, _ = preprocess.prepare(
            images,
            self.channel_map,
            preprocess.Size.parse(self.size),
            self.norm,
            backbone.patch,
            self.pixel_size_um,
        )
        with torch.autocast(
            images.device.type, torch.bfloat16, enabled=self.execution.get("precision") == "bf16"
        ):
            features = torch.cat([backbone(one) for one in inputs], dim=1)
        return features.float(), inputs.abs().amax((0, 2, 3, 4))

    def batches(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """All of `images`, in batches; after running out of memory, all of it in smaller ones."""
        batch = min(self.execution["batch"], _LIMIT.get("batch", self.execution["batch"]))
        while True:
            try:
                return self._batches(images, batch)
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
                batch //= 2
                _LIMIT["batch"] = batch
                torch.cuda.empty_cache()

    def _batches(
        self, images: npt.NDArray[Any], batch: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        device = self.execution["device"]
        features, largest = [], []
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(images[start : start + batch]).to(device, non_blocking=True)
            one, most = self(pixels)
            features.append(one)
            largest.append(most)
        return torch.cat(features).cpu().numpy(), torch.cat(largest).cpu().numpy()

    def settle(self, height: int, width: int, dtype: str, precision: str) -> dict[str, Any]:
        """Device, precision and batch for fields of this size, found on this worker."""
        device = default_device()
        if precision == "auto":
            bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bf16" if bf16 else "fp32"
        if device == "cpu":
            plan = preprocess.Size.parse(self.size).plan(
                height, width, self.backbone.patch, self.pixel_size_um
            )
            tokens = max(1, plan.height * plan.width // self.backbone.patch**2)
            batch = max(1, min(CPU_BATCH, CPU_TOKENS // tokens))
            return {"device": device, "precision": precision, "batch": batch}
        shape = (GPU_BATCH, len(self.channel_map.store_roles), height, width)
        trial = replace(
            self, execution={"device": device, "precision": precision, "batch": GPU_BATCH}
        )
        with inference(0):
            trial.batches(np.zeros(shape, dtype))
        batch = _LIMIT.pop("batch", GPU_BATCH)
        return {"device": device, "precision": precision, "batch": batch}


_LIMIT: dict[str, int] = {}
"""The batch this process has learned not to exceed."""


def default_device() -> str:
    """`cuda` where there is a GPU: a dask-cuda worker sees its own as the first."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def inference(threads: int) -> Iterator[None]:
    """No gradients; `threads` compute threads (0: as they are) for this task, then as before."""
    # Set at the head of each task: set once from outside, it has no effect on executor threads.
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class EmbedStage:
    """One feature vector a field of view."""

    location: Location
    group: str
    forward: Forward
    height: int
    width: int
    dtype: str
    precision: str
    array: str | None = "embedding"
    on_device: bool = True

    def settle(self) -> dict[str, Any]:
        """How this worker executes it."""
        return self.forward.settle(self.height, self.width, self.dtype, self.precision)

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""
        return replace(self, forward=replace(self.forward, execution=execution))

    def open(self) -> None:
        """Load the backbone."""
        _ = self.forward.backbone

    def read(self, block: Block, clock: StoreClock) -> Any:
        """The block's fields, grouped by size: `(height, width)` -> (rows in the block, pixels)."""
        found = read_fov_block(self.location, block, clock)
        error = np.array(
            [f"fovs: {text}" if text else "" for text in found.error], np.dtypes.StringDType()
        )
        sizes: dict[tuple[int, int], list[int]] = {}
        for at in range(len(block)):
            if not error[at]:
                sizes.setdefault((int(found.height[at]), int(found.width[at])), []).append(at)
        for row, reason in block.skip.items():
            # Its place in the batch stays, blank: the neighbours' values must not depend on it.
            found.image[row - block.start] = 0
            error[row - block.start] = reason
        return error, [
            (rows, np.ascontiguousarray(found.image[rows, :, :height, :width]))
            for (height, width), rows in sizes.items()
        ]

    def device(self, data: Any) -> Any:
        """Features of all fields."""
        error, groups = data
        width = self.forward.channel_map.feature_width(self.forward.backbone.features)
        features = np.full((len(error), width), np.nan, np.float32)
        largest = np.zeros(len(error), np.float32)
        with inference(self.forward.execution["threads"]):
            for rows, images in groups:
                features[rows], largest[rows] = self.forward.batches(images)
        return features, largest, error

    def finish(self, block: Block, state: Any) -> Output:
        """The block's rows; a field without a finite embedding has an error."""
        features, largest, error = state
        broken = (error == "") & ~np.isfinite(features).all(1)
        error[broken] = "its embedding is not finite; try --precision fp32"
        failed = error != ""
        features[failed], largest[failed] = np.nan, 0
        return Output(features, {"error": error, "largest_input": largest})


# --- the whole ----------------------------------------------------------------------------------


def embed(
    store: str | Path,
    config: EmbedConfig,
    name: str,
    *,
    run: RunConfig | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Summary:
    """Embed every field of `store` into `embeddings/<name>`: `embedding (fov, feature)` float32.

    Row i is field i of `fovs`; a field that failed is NaN and has an `error`. Raises
    `ConfigError`, `ChannelError`, `WeightsError`, `StoreError` or `LockedError` before anything
    is written.
    """
    run = run or RunConfig()
    location, group = Location.of(store), f"embeddings/{check_name(name)}"
    fovs = Fovs.of(location)
    backbone = backbones.load(config.backbone, config.weights)
    spec = backbone.spec
    channel_map = channels.resolve(config.channels, spec.roles, fovs.roles, spec.default_channels)
    size = preprocess.Size.parse(config.size)
    plan = size.plan(fovs.height, fovs.width, spec.patch, fovs.pixel_size_um)
    # A blank field through the preparation: what does not fit is refused before anything is made.
    blank = torch.zeros(1, len(fovs.roles), spec.patch, spec.patch)
    preprocess.prepare(blank, channel_map, size, config.norm, spec.patch, fovs.pixel_size_um)
    forward = Forward(
        Model(config.backbone, _absolute(config.weights), backbone.weights_hash),
        channel_map,
        config.size,
        config.norm,
        fovs.pixel_size_um,
    )
    settings = {
        "level": "fov",
        "backbone": spec.name,
        "architecture": spec.timm_model,
        "weights": backbone.weights_source,
        "weights_hash": backbone.weights_hash,
        "channels": channel_map.as_config(),
        "size": str(size),
        "norm": config.norm,
        "precision": config.precision,
    }
    columns = ("error", "largest_input")
    wanted = StageAttrs.of(
        "embed", settings, {FOVS: fovs.fingerprint},
        block_rows=fovs.shard, array="embedding", digested=list(columns),
    )  # fmt: skip
    stage = EmbedStage(
        location, group, forward, fovs.height, fovs.width, fovs.dtype, config.precision
    )
    width = channel_map.feature_width(spec.features)
    with hold(location, group, new_run_id()) as token:
        if claim(location, group, wanted, overwrite=overwrite) is None:
            variables = embedding_variables("fov", fovs.rows, width, fovs.shard)
            variables.update({n: Variable(("fov",), "string", (fovs.rows,)) for n in fovs.coords})
            attrs = {"zarrloc": wanted.model_dump()}
            opened = allocate(
                location, group, variables, attrs=attrs, coords=["error", *fovs.coords]
            )
        else:
            Ledger.grow(location, group, "fov", fovs.rows, fovs.shard)
            opened = location.group(group)
        for coord, values in fovs.coords.items():
            write_column(opened, coord, values)
        commit(location, group)
        ledger = Ledger(location, group, columns, fovs.rows, fovs.shard)
        inputs = [combine([wanted.fingerprint, int(output)]) for output in fovs.block_output]
        expect = {FOVS: fovs.block_output}
        summary = drive(stage, ledger, inputs, run, token, expect=expect, quiet=quiet)
    summary.notes += _notes(channel_map, plan, ledger)
    return summary


def embedding_variables(
    rows_dim: str, rows: int, width: int, block_rows: int
) -> dict[str, Variable]:
    """What every embedding group holds."""
    return {
        "embedding": Variable(
            (rows_dim, "feature"), "float32", (rows, width), np.nan, grid_chunk=block_rows
        ),
        "error": Variable((rows_dim,), "string", (rows,), PENDING),
        "largest_input": Variable(
            (rows_dim,),
            "float32",
            (rows,),
            attrs={"long_name": "largest absolute value that went into the backbone"},
        ),
        **receipt_variables(rows, block_rows),
    }


def _absolute(weights: str | None) -> str | None:
    if weights is None or weights.startswith("random:"):
        return weights
    return str(Path(weights).expanduser().resolve())


def _notes(channel_map: ChannelMap, plan: preprocess.Plan, ledger: Ledger) -> list[str]:
    physical = (
        ""
        if plan.um_per_px is None or plan.um_per_token is None
        else f", {plan.um_per_px:.3f} um a pixel, {plan.um_per_token:.2f} um a token"
    )
    largest = float(ledger.columns["largest_input"].max(initial=0))
    return [
        f"channels: {channel_map.describe()}",
        f"input: {plan.height} x {plan.width} px{physical}; largest value {largest:.1f}",
    ]
