"""Cellpose 4 (Cellpose-SAM), by cellpose's own network.

Not by its `eval`: that cuts, joins and draws each image on the CPU while the device waits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

SAM_TILE_PX, DINO_TILE_PX = 256, 384
"""Tiles of the two networks, which take no others."""

Image = npt.NDArray[np.float32]


class Flows(NamedTuple):
    """What the network says of one field, and the field's own shape `(y, x)`."""

    output: Image
    """Flow in y, in x, and the logit of being in an object: `(3, y, x)`; the network's pixels."""
    shape: tuple[int, ...]


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
        """Flows of all `inputs`."""
        rescale = 1.0 if self._diameter is None else DIAMETER_PX / self._diameter
        side = SAM_TILE_PX if self.model.backbone == "sam_vitl" else DINO_TILE_PX

        def work(batch: int) -> list[tuple[Image, Image]]:
            resized = (tiles.rescaled(image, rescale) for image in inputs)
            return tiles.forward(self._forward, resized, batch, self.device, side=side)

        outputs = tiles.fitting(work, self.config.tile_batch, self.device)
        return [
            Flows(output[-3:], image.shape[1:])
            for (output, _), image in zip(outputs, inputs, strict=True)
        ]

    def _forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output, style = self.model.net(batch.to(self.model.net.dtype))[:2]
        return output.float(), style.float()

    def mask(self, state: Flows) -> Mask:
        """Masks of one field by cellpose's own dynamics."""
        dynamics.accept_sparse_default()
        output = state.output
        if output.shape[1:] != state.shape:
            output = tiles.resize(output, *state.shape)
        masks = resize_and_compute_masks(
            output[:2],
            output[2],
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
