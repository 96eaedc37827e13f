"""From augmented channels to a network's inputs: the channel map, then one fixed affine.

The affine is the same for every view of every image: a per-view z-score would undo what the
augmentation did to brightness, contrast and the protein's range.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zarrloc.models.channels import ChannelMap
from zarrloc.models.preprocess import IMAGENET_MEAN, IMAGENET_SD
from zarrloc.models.specs import RGB


@dataclass(frozen=True)
class Inputs:
    """`mean` and `sd`, one an input, of intensities in [0, 1]; unused inputs are 0 after it, or
    `absent`."""

    channels: ChannelMap
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    absent: float = 0.0
    """NaN for a backbone of channel tokens."""

    @property
    def replicate(self) -> bool:
        """Whether a sample is one channel, in all inputs."""
        return self.channels.kind == "replicate"

    @property
    def used(self) -> Tensor:
        """Which of the store's channels go into any input, bool `(channel,)`."""
        taken = {channel for inputs in self.channels.passes for channel in inputs}
        return torch.tensor([i in taken for i in range(len(self.channels.store_roles))])

    def __call__(self, views: Tensor) -> Tensor:
        """Training views `(n, channel, y, x)` -> `(n, input, y, x)`; replicated ones hold one."""
        if self.replicate:
            return self._affine(views.expand(-1, len(self.mean), -1, -1))
        return self.passes(views)[0]

    def passes(self, images: Tensor) -> Tensor:
        """All passes over whole images: `(n, channel, y, x)` -> `(pass, n, input, y, x)`."""
        used = torch.tensor(
            [[channel is not None for channel in inputs] for inputs in self.channels.passes],
            device=images.device,
        )
        mapped: Tensor = self._affine(self.channels.apply(images))
        return mapped.where(used[:, None, :, None, None], self.absent)

    def _affine(self, mapped: Tensor) -> Tensor:
        mean, sd = (mapped.new_tensor(v)[:, None, None] for v in (self.mean, self.sd))
        return (mapped - mean) / sd

    def record(self, size: int) -> dict[str, Any]:
        """What the weights' metadata says about the network's input."""
        return {"kind": "unit", "mean": list(self.mean), "sd": list(self.sd), "size": size}


def affine_of(channels: ChannelMap, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and sd of each input: ImageNet's for R, G, B, else those of `images`.

    `images` `(n, channel, y, x)` in [0, 1]. An unused input gets 0 and 1; a replicated one the
    statistics of all channels together.
    """
    if channels.input_roles == RGB:
        return IMAGENET_MEAN, IMAGENET_SD
    means, sds = [], []
    for sources in zip(*channels.passes, strict=True):
        taken = [channel for channel in sources if channel is not None]
        values = images[:, taken].double()
        values = values[~values.isnan()]  # of samples that have the channel
        means.append(float(values.mean()) if taken else 0.0)
        sds.append(max(float(values.std(correction=0)), 1e-3) if taken else 1.0)
    return tuple(means), tuple(sds)
