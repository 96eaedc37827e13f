"""`--backbone classic`: measured texture in the place of a network, through the same engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.models.forward import T, gathered
from zarrloc.models.inputs import Size
from zarrloc.models.preprocess import resize
from zarrloc.pixels.classic import classic_features, feature_count


@dataclass(frozen=True)
class Classic:
    """What `Forward` is for a network: from images or cells to features, on the CPU."""

    channels: int
    size: str
    pixel_size_um: float | None
    execution: dict[str, Any] = field(default_factory=dict)
    on_device: bool = False

    @property
    def width(self) -> int:
        """Number of features."""
        return feature_count(self.channels)

    def load(self) -> None:
        """There is nothing to load."""

    def settle(self, height: int, width: int, dtype: str, precision: str) -> dict[str, Any]:
        """Nothing to settle: the features are equal on every worker."""
        return {"device": "cpu", "precision": "fp32", "batch": 16}

    def __call__(self, images: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`(n, channel, y, x)` -> features `(n, feature)` and the largest value `(n,)`, float32.

        `inside` `(n, y, x)` bool says which pixels are the cell's.
        """
        height, width = images.shape[2:]
        plan = Size.parse(self.size).plan(height, width, 1, self.pixel_size_um)
        sized = resize(images, plan.height, plan.width)
        masks = [None] * len(sized) if inside is None else list(inside.numpy())
        found = [
            classic_features(image, mask) for image, mask in zip(sized.numpy(), masks, strict=True)
        ]
        return torch.from_numpy(np.stack(found)), sized.abs().amax((1, 2, 3))

    def fitting(self, work: Callable[[int], T]) -> T:
        """`work(batch)`."""
        return work(self.execution["batch"])

    def upload(self, array: npt.NDArray[Any]) -> Tensor:
        """The array as a tensor."""
        return torch.from_numpy(array)

    def batches(self, images: Tensor, batch: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Features and largest values of `images` `(n, channel, y, x)` as stored."""
        return gathered([self(part) for part in torch.split(images, batch)])
