"""From pixels to features on one device: the loaded backbone, its preparation, its batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.errors import WeightsError
from zarrloc.models import backbones, preprocess
from zarrloc.models.channels import ChannelMap
from zarrloc.models.inputs import Affine, Norm, Size
from zarrloc.models.vit import Backbone

T = TypeVar("T")

CPU_BATCH = 16
CPU_TOKENS = CPU_BATCH * 1024
"""A CPU batch holds at most this many tokens: beyond, it costs memory and gains no speed."""

GPU_BATCH = 512


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
    norm: Norm
    pixel_size_um: float | None
    features: int
    """Width of the backbone's own feature vector, of one block."""
    trained: Affine | None = None
    """What a pretrained backbone's inputs were standardised with."""
    last_blocks: int = 1
    """Of how many blocks the class tokens are taken."""
    execution: dict[str, Any] = field(default_factory=dict)
    on_device: bool = True

    @property
    def backbone(self) -> Backbone:
        """The loaded backbone."""
        return self.model.load(self.execution.get("device") or default_device())

    @property
    def width(self) -> int:
        """Width of an embedding: one part a pass."""
        return self.channel_map.feature_width(self.features * self.last_blocks)

    def load(self) -> None:
        """Load the backbone, so that no block waits for it."""
        _ = self.backbone

    def __call__(self, images: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(n, channel, y, x)` -> features `(n, feature)` and the largest input `(n,)`, float32.

        A network sees the image as it is: which pixels are the cell's, `inside`, is for `Classic`.
        """
        backbone = self.backbone
        inputs, largest = preprocess.prepare(
            images,
            self.channel_map,
            Size.parse(self.size),
            self.norm,
            backbone.patch,
            self.pixel_size_um,
            self.trained,
        )
        with torch.autocast(
            images.device.type, torch.bfloat16, enabled=self.execution.get("precision") == "bf16"
        ):
            if backbone.spec.tokens == "channel":
                self.channel_map.mark_absent(inputs)
            features = torch.cat([backbone(one, self.last_blocks) for one in inputs], dim=1)
        return features.float(), largest

    def fitting(self, work: Callable[[int], T]) -> T:
        """`work(batch)`; where that runs out of GPU memory, all of it again with half the batch."""
        batch = min(self.execution["batch"], _LIMIT.get("batch", self.execution["batch"]))
        while True:
            try:
                return work(batch)
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
                batch //= 2
                _LIMIT["batch"] = batch
                torch.cuda.empty_cache()

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """The array on the device, sent there while the device computes something else."""
        return uploaded(array, self.execution["device"])

    def batches(self, images: Tensor, batch: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Features and largest inputs of `images` `(n, channel, y, x)` as stored."""
        device = self.execution["device"]
        return gathered([self(part.to(device)) for part in torch.split(images, batch)])

    def settle(self, height: int, width: int, dtype: str, precision: str) -> dict[str, Any]:
        """Device, precision and batch for fields of this size, found on this worker."""
        device = default_device()
        if precision == "auto":
            bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bf16" if bf16 else "fp32"
        if device == "cpu":
            plan = Size.parse(self.size).plan(
                height, width, self.backbone.patch, self.pixel_size_um
            )
            tokens = max(1, plan.height * plan.width // self.backbone.patch**2)
            batch = max(1, min(CPU_BATCH, CPU_TOKENS // tokens))
            return {"device": device, "precision": precision, "batch": batch}
        shape = (len(self.channel_map.store_roles), height, width)
        trial = replace(
            self, execution={"device": device, "precision": precision, "batch": GPU_BATCH}
        )
        with inference(0):
            blank = np.zeros((1, *shape), dtype)
            trial.fitting(
                lambda batch: trial.batches(trial.upload(blank.repeat(batch, axis=0)), batch)
            )
        batch = _LIMIT.pop("batch", GPU_BATCH)
        return {"device": device, "precision": precision, "batch": batch}


_LIMIT: dict[str, int] = {}
"""The batch this process has learned not to exceed."""


def default_device() -> str:
    """`cuda` where there is a GPU: a dask-cuda worker sees its own as the first."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def uploaded(array: npt.NDArray[Any], device: str) -> Tensor:
    """The array on `device`, complete; the thread that reads a block calls it, outside the lock.

    To a GPU it goes from pinned memory on a stream of its own, beside what the device computes. It
    stays on the host where the GPU has no room for it yet.
    """
    host = torch.from_numpy(np.ascontiguousarray(array))
    if torch.device(device).type != "cuda":
        return host
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    try:
        with torch.cuda.stream(stream):
            there = host.pin_memory().to(device, non_blocking=True)
    except torch.cuda.OutOfMemoryError:
        return host
    stream.synchronize()
    there.record_stream(torch.cuda.default_stream(device))  # which computes with it
    return there


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


def gathered(results: list[tuple[Tensor, Tensor]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Features and largest inputs of several batches, brought to the host in one go."""
    features, largest = zip(*results, strict=True)
    return torch.cat(features).cpu().numpy(), torch.cat(largest).cpu().numpy()
