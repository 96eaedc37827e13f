"""From images as stored to what goes into a backbone: resize, normalise, map channels, pad.

In that order, on whatever device the images are on. Statistics are those of the pixels that go
into the network: of the field's real pixels, at the network's resolution, before the padding.
So did Dino4Cells, whose images lay resized on disk. It makes the input's mean 0 and sd 1 at any
size, where a z-score taken before the resize loses contrast with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from zarrloc.errors import ConfigError
from zarrloc.models.channels import ChannelMap
from zarrloc.models.inputs import Affine, Norm, Size, refuse_norm

MINMAX_EPS = 1e-8  # as CellProfiling/SubCellPortable
ZSCORE_EPS = 1e-7  # added to the sd, as Dino4Cells does
PERCENTILES = (0.1, 99.9)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


def prepare(
    images: Tensor,
    channel_map: ChannelMap,
    size: Size,
    norm: Norm,
    patch: int,
    pixel_size_um: float | None,
    trained: Affine | None = None,
) -> tuple[Tensor, Tensor]:
    """Make `images` (n, channel, y, x) of any dtype a backbone's input.

    Returns (passes, n, inputs, Y, X) float32, Y and X multiples of `patch`, and the largest
    absolute value of each image in it, (n,). Unused inputs and padding are 0. `trained` is the
    affine that a backbone of `zarrloc pretrain` recorded, for the norm of that name.

    Raises `ConfigError` for `imagenet` on inputs other than R, G, B, for `trained` without an
    affine, and as `Size.plan` does.
    """
    refuse_norm(norm, channel_map.input_roles, trained)
    plan = size.plan(images.shape[2], images.shape[3], patch, pixel_size_um)
    mapped = channel_map.apply(normalise(resize(images, plan.height, plan.width), norm))
    if norm == "minmax":
        mapped = _minmax(mapped, channel_map)
    affine = {"imagenet": (IMAGENET_MEAN, IMAGENET_SD), "trained": trained}.get(norm)
    if affine is not None:
        mapped = _standardised(mapped, channel_map, *affine)
    inside = (0, 2, 3, 4)
    largest = torch.maximum(mapped.amax(inside), -mapped.amin(inside))
    return pad_to_patch(mapped, patch), largest


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """`images` (n, channel, y, x) of any dtype as float32 (n, channel, height, width).

    Bicubic with antialiasing, as facebookresearch's evaluation. Exact where nothing changes.
    """
    values = _float_copy(images)
    if values.shape[2:] == (height, width):
        return values
    # Rounding in the weights would turn a blank channel at 500 into noise that a z-score blows
    # up: the lowest value is taken off first, so that blank is 0 and stays exactly that.
    lowest = _subtract_lowest(values)
    resized = interpolate(values, (height, width), mode="bicubic", antialias=True)
    return resized.add_(lowest)


def _float_copy(images: Tensor) -> Tensor:
    """A float32 copy, ours to change in place: fresh memory costs more than the arithmetic."""
    if images.device.type == "cpu":  # numpy takes huge pages: a quarter of torch's time
        return torch.from_numpy(images.numpy().astype("float32"))
    return images.to(torch.float32, copy=True)


def _subtract_lowest(values: Tensor) -> Tensor:
    """Take each image and channel's lowest value off, in place; gives what was taken."""
    lowest = values.amin((2, 3), keepdim=True)
    values -= lowest
    return lowest


def normalise(images: Tensor, norm: Norm) -> Tensor:
    """`images` (n, channel, y, x) of any dtype as float32, each image and channel by itself.

    `zscore`: minus the mean, over the population sd + 1e-7; a blank channel is 0.
    `imagenet`: the range from percentile 0.1 to 99.9 becomes 0 to 1 (`prepare` then applies
    ImageNet's mean and sd, which belong to inputs); a blank channel is 0. `trained`: the whole
    range becomes 0 to 1, as `zarrloc pretrain` brings it (its affine comes after). `none`, and
    `minmax`, which `prepare` applies to the inputs of a pass together: as stored.
    """
    if norm not in get_args(Norm):
        raise ConfigError(f"norm {norm!r}: expected one of {', '.join(get_args(Norm))}")
    values = _float_copy(images)
    if norm == "imagenet":
        return _percentile_range(values)
    if norm == "trained":
        low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
        return ((values - low) / (high - low)).where(high > low, 0)
    if norm == "zscore":
        _subtract_lowest(values)  # changes no z-score, and makes the sums of a blank exactly 0
        # Rows in float32, their sums in float64: 360,000 values lose digits in float32 alone.
        values -= values.mean(3).double().mean(2)[..., None, None].float()
        rows = torch.linalg.vector_norm(values, dim=3).double()
        sd = torch.linalg.vector_norm(rows, dim=2) / values[0, 0].numel() ** 0.5
        values /= (sd + ZSCORE_EPS)[..., None, None].float()
    return values


def _percentile_range(images: Tensor) -> Tensor:
    values = images.flatten(2).sort(-1).values  # torch.quantile refuses 16 million values
    low, high = (_percentile(values, q)[..., None, None] for q in PERCENTILES)
    scaled = ((images - low) / (high - low)).clamp(0, 1)
    return scaled.where(high > low, 0)


def _percentile(values: Tensor, q: float) -> Tensor:
    """The q-th percentile of sorted `values` along the last axis, linear between neighbours."""
    place = q / 100 * (values.shape[-1] - 1)
    below = int(place)
    above = min(below + 1, values.shape[-1] - 1)
    return torch.lerp(values[..., below], values[..., above], place - below)


def _standardised(
    mapped: Tensor, channel_map: ChannelMap, means: Sequence[float], sds: Sequence[float]
) -> Tensor:
    """One fixed affine on each used input of (passes, n, inputs, y, x); the unused stay 0."""
    mean, sd = (mapped.new_tensor(values).view(-1, 1, 1) for values in (means, sds))
    used = [[channel is not None for channel in inputs] for inputs in channel_map.passes]
    mask = torch.tensor(used, device=mapped.device)[:, None, :, None, None]
    return ((mapped - mean) / sd).where(mask, 0)


def _minmax(mapped: Tensor, channel_map: ChannelMap) -> Tensor:
    """The range of the used inputs of (passes, n, inputs, y, x) together to 0..1, as SubCell's.

    A blank image is 0, and so are unused inputs.
    """
    scaled = torch.zeros_like(mapped)
    for at, inputs in enumerate(channel_map.passes):
        used = [place for place, channel in enumerate(inputs) if channel is not None]
        values = mapped[at][:, used]
        low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
        scaled[at][:, used] = (values - low) / (high - low + MINMAX_EPS)
    return scaled


def pad_to_patch(images: Tensor, patch: int) -> Tensor:
    """Append zeros below and to the right until y and x are multiples of `patch`."""
    height, width = images.shape[-2:]
    return pad(images, (0, -width % patch, 0, -height % patch))
