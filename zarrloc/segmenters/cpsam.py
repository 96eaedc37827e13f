"""Cellpose 4 (Cellpose-SAM), through cellpose's own model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose.dynamics import resize_and_compute_masks
from cellpose.models import CellposeModel

# isort: on
from zarrloc.config.segment import SegmentConfig
from zarrloc.models.weights import hash_state
from zarrloc.segmenters import download, dynamics, tiles
from zarrloc.segmenters.objects import Mask, numbered
from zarrloc.segmenters.seam import Field, select

STEPS = 200
DIAMETER_PX = 30.0
"""What `--diameter` is resized to."""

Image = npt.NDArray[np.float32]


class Flows(NamedTuple):
    """What the network says of one field, at the field's own pixels."""

    flow: npt.NDArray[np.float32]
    logit: npt.NDArray[np.float32]


@dataclass(frozen=True)
class CellposeSamSegmenter:
    """A Cellpose 4 model as `zarrloc.segmenters.Segmenter`."""

    model: Any
    config: SegmentConfig
    device: torch.device

    @property
    def roles(self) -> tuple[str, ...]:
        """The channels the network sees; their order does not matter to it."""
        return self.config.segmented

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Weights and settings."""
        recorded = {"diameter", "flow_threshold", "cellprob_threshold", "min_size"}
        weights = hash_state(self.model.net.state_dict())
        settings = self.config.model_dump(include=recorded)
        return {"model": "cellpose 4", "weights": weights, "channels": list(self.roles), **settings}

    @property
    def _diameter(self) -> float | None:
        return None if self.config.diameter == "auto" else self.config.diameter

    def prepare(self, field: Field, roles: Sequence[str]) -> Image:
        """The channels, normalised."""
        return tiles.normalise(select(field, roles, self.roles))

    def network(self, inputs: Sequence[Image]) -> list[Flows]:
        """Flows of all `inputs`: fields of one size go in one stack, which cellpose batches."""
        sizes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(inputs):
            sizes[image.shape].append(index)
        states: dict[int, Flows] = {}
        for indices in sizes.values():
            stack = np.stack([inputs[index] for index in indices])
            found = tiles.fitting(partial(self._flows, stack), self.config.tile_batch, self.device)
            states.update(zip(indices, found, strict=True))
        return [states[index] for index in range(len(inputs))]

    def _flows(self, stack: Image, batch: int) -> list[Flows]:
        _, (_, flow, logit), _ = self.model.eval(
            stack,
            channel_axis=1,
            batch_size=batch,
            diameter=self._diameter,
            normalize=False,
            compute_masks=False,
        )
        # Cellpose drops axes of length 1.
        count, _, *size = stack.shape
        flows, logits = flow.reshape(2, count, *size), logit.reshape(count, *size)
        return [Flows(flows[:, n], logits[n]) for n in range(count)]

    def mask(self, state: Flows) -> Mask:
        """Masks of one field by cellpose's own dynamics."""
        dynamics.accept_sparse_default()
        masks = resize_and_compute_masks(
            state.flow,
            state.logit,
            niter=int(STEPS * (self._diameter or DIAMETER_PX) / DIAMETER_PX),
            cellprob_threshold=self.config.cellprob_threshold,
            flow_threshold=self.config.flow_threshold,
            min_size=self.config.min_size,
        )
        return numbered(masks)


def load(config: SegmentConfig, device: torch.device) -> CellposeSamSegmenter:
    """The published Cellpose 4 model `config.model`. Raises `WeightsError`."""
    path = download.obtain(config.model, download.CELLPOSE_4_URL)
    # bf16 is slower than fp32 on CPUs without it, and the default of cellpose on a GPU.
    half = device.type == "cuda"
    model = CellposeModel(pretrained_model=str(path), device=device, use_bfloat16=half)
    return CellposeSamSegmenter(model, config, device)
