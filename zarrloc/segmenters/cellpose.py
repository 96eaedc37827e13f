"""Cellpose 1 to 3 on whole blocks: the masks of version 3.1's own `eval`, tiles pooled.

Settings are those of its defaults: percentiles 1 and 99 to 0 and 1, resized to the diameter of
the training, tiles of 224 px overlapping by a tenth, flows brought back to the field's pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from zarrloc.config.segment import SegmentConfig
from zarrloc.models.device import let_go
from zarrloc.models.weights import hash_state
from zarrloc.segmenters import cpnet, download, dynamics, size, tiles
from zarrloc.segmenters.objects import Mask
from zarrloc.segmenters.seam import Field, select

STEPS = 200
"""Steps along the flow at the diameter of the training."""

Image = npt.NDArray[np.float32]


class Published(NamedTuple):
    """A published model: its files, and the diameter in px its objects were resized to."""

    weights: str
    size: str
    diam_mean: float


PUBLISHED = {
    "cyto3": Published("cyto3", "size_cyto3.npy", 30.0),
    "cyto2": Published("cyto2torch_0", "size_cyto2torch_0.npy", 30.0),
    "nuclei": Published("nucleitorch_0", "size_nucleitorch_0.npy", 17.0),
}


class Flows(NamedTuple):
    """What the network says of one field."""

    output: Image
    """(3, y, x): flow along y and x, logit, at the size the network saw."""
    shape: tuple[int, ...]
    rescale: float


@dataclass(frozen=True)
class CellposeSegmenter:
    """A CPnet as `zarrloc.segmenters.Segmenter`."""

    net: cpnet.CPnet
    diam_mean: float
    """What objects are resized to before the network sees them, in px."""
    sizes: size.SizeModel | None
    """Finds each field's diameter; None where the settings give one."""
    config: SegmentConfig
    device: torch.device

    @property
    def roles(self) -> tuple[str, ...]:
        """The channel that is segmented, and the second one if there is one."""
        return self.config.segmented

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Weights and settings. Which batch the tiles went in is not among them."""
        recorded = ("diameter", "flow_threshold", "cellprob_threshold", "min_size")
        return {
            "model": "cpnet",
            "weights": hash_state(self.net.state_dict()),
            "diam_mean": self.diam_mean,
            "size_model": self.sizes and self.sizes.hash(),
            "channels": list(self.roles),
            **self.config.model_dump(include=set(recorded)),
        }

    def prepare(self, field: Field, roles: Sequence[str]) -> Image:
        """The two input channels, normalised; a second one that is not there is zeros."""
        chosen = select(field, roles, self.roles)
        image = np.zeros((cpnet.INPUTS, *chosen.shape[1:]), np.float32)
        image[: len(chosen)] = chosen
        return tiles.normalise(image)

    def network(self, inputs: Sequence[Image]) -> list[Flows]:
        """Flows of all `inputs`; with `--diameter auto`, after two looks at their sizes."""
        diameter = self.config.diameter
        diameters = self.diameters_px(inputs) if diameter == "auto" else [diameter] * len(inputs)
        flows, _ = self._flows(inputs, [self.diam_mean / diameter for diameter in diameters])
        return flows

    def mask(self, state: Flows) -> Mask:
        """Masks at the field's own pixels."""
        output = state.output
        if state.rescale != 1:
            output = tiles.resize(output, *state.shape)
        masks = dynamics.masks_from_flows(
            output[:2],
            output[2],
            int(1 / state.rescale * STEPS),
            flow_threshold=self.config.flow_threshold,
            cellprob_threshold=self.config.cellprob_threshold,
        )
        return dynamics.clean(masks, self.config.min_size)

    def diameters_px(self, inputs: Sequence[Image]) -> list[float]:
        """Diameter of the objects in each of `inputs`, as Cellpose's `SizeModel` finds it.

        The style of the image at the training's mean size gives a guess, the masks at that guess
        the answer: the median diameter of discs of their area.
        """
        assert self.sizes is not None
        labels = float(self.net.diam_labels)
        _, styles = self._flows(inputs, [self.diam_mean / labels] * len(inputs))
        guesses = [self.sizes.diameter_px(style) for style in styles]
        flows, _ = self._flows(inputs, [self.sizes.diam_mean / guess for guess in guesses])
        with let_go():
            return [_median_diameter_px(state) or self.sizes.diam_mean for state in flows]

    def _flows(
        self, images: Sequence[Image], rescales: Sequence[float]
    ) -> tuple[list[Flows], list[npt.NDArray[np.float32]]]:
        """Flows and style of each image."""

        def work(batch: int) -> list[tuple[Image, npt.NDArray[np.float32]]]:
            resized = map(tiles.rescaled, images, rescales)
            return tiles.forward(self.net, resized, batch, self.device)

        results = tiles.fitting(work, self.config.tile_batch, self.device)
        flows = [
            Flows(output, image.shape[1:], rescale)
            for (output, _), image, rescale in zip(results, images, rescales, strict=True)
        ]
        return flows, [style for _, style in results]


def _median_diameter_px(state: Flows) -> float:
    """0 where there is nothing. Cellpose's own defaults: this look is not the final masks."""
    masks = dynamics.masks_from_flows(
        state.output[:2],
        state.output[2],
        STEPS,
        interpolate=False,
        flow_threshold=0.4,
        cellprob_threshold=0.0,
    )
    masks = dynamics.clean(tiles.resize_labels(masks, *state.shape), min_size=15)
    areas = np.bincount(masks.ravel())[1:]
    return float(np.median(np.sqrt(areas)) * 2 / np.sqrt(np.pi)) if len(areas) else 0.0


def load(config: SegmentConfig, device: torch.device) -> CellposeSegmenter:
    """The Cellpose 1 to 3 model that `config` names, or whose weights it points to.

    The config has passed `refuse_unknown`. Raises `WeightsError`.
    """
    published = PUBLISHED.get(config.model)
    if published:
        weights = download.obtain(published.weights, download.CELLPOSE_3_URL)
    else:
        weights = Path(config.model)
    net = cpnet.load(weights, device)
    diam_mean = published.diam_mean if published else float(net.diam_mean)
    return CellposeSegmenter(net, diam_mean, _size_model(config, published), config, device)


def _size_model(config: SegmentConfig, published: Published | None) -> size.SizeModel | None:
    if config.diameter != "auto":
        return None
    if config.size_model:
        return size.load(Path(config.size_model))
    assert published is not None, "weights of one's own come with a size model or a diameter"
    return size.load(download.obtain(published.size, download.CELLPOSE_3_URL))
