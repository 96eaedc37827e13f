"""Multi-crop views of microscopy images, drawn for each sample and computed in batches.

Geometry is one homography a sample (crop, flips, turn, corner warp), so that every view is
resampled exactly once. Parameters are drawn on the CPU from a seed, apart from the pixels: a view
depends neither on the device nor on how a batch is spread over processes.

kornia was left out: it resamples once for every operation and would add a dependency for what is
one `grid_sample` here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

ASPECT = 4 / 3  # the crop's width over its height lies between 1 / ASPECT and ASPECT


@dataclass(frozen=True)
class View:
    """How one kind of view is made; `scale` is a share of the image's area."""

    size: int
    scale: tuple[float, float]
    warp: float  # the furthest a corner moves inward, as a share of the side
    flip: float
    jitter: float  # sd of the brightness and contrast factors around 1
    remove_channel: float
    rescale_protein: float
    noise: float = 0.0  # largest sd at full brightness
    blur: float = 0.0  # largest sd of the optics' blur, px
    turn: float = 0.0  # probability that x and y are swapped

    def averaged(self, side: int) -> int:
        """Pixels along each axis that are averaged into one before the view is cut.

        As many as leave its smallest crop of an image with `side` pixels as fine as the view.
        """
        return max(1, int(side * math.sqrt(self.scale[0]) / self.size))

    @property
    def span(self) -> float:
        """Side of its largest crop, as a share of the image's."""
        return min(1.0, math.sqrt(self.scale[1] * ASPECT))


@dataclass(frozen=True)
class Draw:
    """The random choices of one view for `n` samples with `c` channels."""

    matrix: Tensor  # (n, 3, 3) from the view's unit square to the image's
    brightness: Tensor  # (n, c)
    contrast: Tensor  # (n, c)
    keep: Tensor  # (n, c) 0 removes a channel
    peak: Tensor  # (n,) the protein channel's new maximum; NaN leaves it alone
    blur: Tensor | None = None  # (n,) sd in pixels
    noise: Tensor | None = None  # (n, c, size, size), at full brightness

    def rows(self, which: slice) -> "Draw":
        """The same draws for some of the samples."""
        return self._each(lambda part: part[which])

    def to(self, device: torch.device) -> "Draw":
        """The same draws on a device."""
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Draw":
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        parts.update({k: change(part) for k, part in parts.items() if part is not None})
        return Draw(**parts)


def draw(view: View, protein: Tensor, aspect: Tensor, generator: Generator) -> Draw:
    """Draw one view's parameters.

    `protein` `(n, c)` bool marks each sample's protein channel; `aspect` `(n,)` is the images'
    width over height. Ranges after Doron et al. (2023) and Caron et al. (2021).
    """
    n, c = protein.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def happens(probability: float) -> Tensor:
        return uniform(n) < probability

    def factor() -> Tensor:
        return (1 + view.jitter * torch.randn(n, c, generator=generator)).clamp(min=0.5)

    matrix = corner_warp(view.warp * uniform(n, 2), uniform(n, 2) < 0.5) @ crop(
        view.scale, uniform(n, 4), uniform(n, 2) < view.flip, aspect
    )
    removable = ~protein if c > 1 else torch.zeros_like(protein)
    # The largest of c random numbers picks one removable channel evenly.
    chosen = F.one_hot((uniform(n, c) + removable).argmax(1), c).bool() & removable
    removed = chosen & happens(view.remove_channel)[:, None]
    peak = torch.where(happens(view.rescale_protein), 2 * uniform(n), torch.nan)
    drawn = Draw(matrix, factor(), factor(), (~removed).float(), peak)
    # Last, and only if wanted: without them nothing else is drawn otherwise.
    blur = view.blur * uniform(n) if view.blur else None
    noise = None
    if view.noise:
        noise = torch.randn(n, c, view.size, view.size, generator=generator)
        noise *= view.noise * uniform(n)[:, None, None, None]
    if view.turn:
        swapped = matrix[:, :, [1, 0, 2]]
        matrix = torch.where(happens(view.turn)[:, None, None], swapped, matrix)
    return replace(drawn, matrix=matrix, blur=blur, noise=noise)


def crop(scale: tuple[float, float], random: Tensor, flip: Tensor, aspect: Tensor) -> Tensor:
    """Homographies `(n, 3, 3)` of a random resized crop with flips.

    `random` `(n, 4)` in [0, 1) gives area, aspect, left and top; `flip` `(n, 2)` mirrors x and y.
    The crop always has its drawn area and lies inside: the range of aspects shrinks instead of
    a draw being rejected.
    """
    area = scale[0] + (scale[1] - scale[0]) * random[:, 0]
    most = (aspect / area).clamp(max=ASPECT)
    least = (aspect * area).clamp(min=1 / ASPECT)
    fits = least <= most
    least, most = torch.where(fits, least, aspect), torch.where(fits, most, aspect)
    ratio = least * (most / least) ** random[:, 1] / aspect  # in units of the image's own aspect
    side = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)
    start = random[:, 2:] * (1 - side).clamp(min=0)
    return _axes(torch.where(flip, -side, side), torch.where(flip, start + side, start))


def corner_warp(inward: Tensor, mirror: Tensor) -> Tensor:
    """Homographies `(n, 3, 3)` that sample an image one of whose corners was moved inward.

    `inward` `(n, 2)` is the move along x and y as a share of the side, `mirror` `(n, 2)` chooses
    the corner. The warp that takes (1, 1) to (1-a, 1-b) and leaves the other corners is
    x' = (1+g)x / (1+gx+hy), y' = (1+h)y / (1+gx+hy) with g = b/(1-a-b), h = a/(1-a-b)
    (Heckbert 1989, section 2.2.2, for this quadrilateral); this is its inverse.
    """
    a, b = inward.unbind(1)
    inverse = _axes((1 - a - b)[:, None] / (1 - inward), torch.zeros_like(inward))
    inverse[:, 2, 0] = -b / (1 - a)
    inverse[:, 2, 1] = -a / (1 - b)
    sign = torch.where(mirror, -1.0, 1.0)
    reflect = _axes(sign, (1 - sign) / 2)
    return reflect @ inverse @ reflect


def _axes(scale: Tensor, shift: Tensor) -> Tensor:
    """Matrices `(n, 3, 3)` of x -> scale * x + shift on each axis, from `(n, 2)` and `(n, 2)`."""
    matrix = torch.diag_embed(F.pad(scale, (0, 1), value=1.0))
    matrix[:, :2, 2] = shift
    return matrix


def resample(
    images: Tensor, extents: Tensor, matrix: Tensor, size: int, span: float = 1.0
) -> Tensor:
    """Views `(n, c, size, size)` of `images` `(n, c, y, x)` through `matrix` `(n, 3, 3)`.

    `extents` `(n, 2)` says how many rows and columns of each image are real; the rest is padding
    and is never seen. What lies outside the image becomes 0. Where a view shrinks its image, it
    is sampled finer and averaged: samples at most two pixels apart leave no pixel unread. `span` is
    the largest share of a side that any view covers.
    """
    finer = max(1, math.ceil(max(images.shape[2:]) * span / (2 * size)))
    along = (torch.arange(size * finer, device=images.device) + 0.5) / (size * finer)
    y, x = torch.meshgrid(along, along, indexing="ij")
    x, y, depth = (matrix @ torch.stack([x, y, torch.ones_like(x)]).flatten(1)).unbind(1)
    point = torch.stack([x, y], 2) / depth[..., None]  # (n, size², 2) in the image's unit square
    inside = ((point >= 0) & (point <= 1)).all(2)
    real = extents.flip(1)[:, None].to(point)
    pixel = torch.minimum((point * real - 0.5).clamp(min=0), real - 1)
    whole = torch.tensor(images.shape[:1:-1], device=images.device)
    grid = 2 * pixel / (whole - 1).clamp(min=1) - 1
    n, edge = len(images), size * finer
    view = F.grid_sample(images, grid.view(n, edge, edge, 2), align_corners=True)
    return F.avg_pool2d(view * inside.view(n, 1, edge, edge), finer)


def recolour(views: Tensor, drawn: Draw, protein: Tensor) -> Tensor:
    """Brightness, contrast, channel removal and protein rescaling of `views` in [0, 1].

    `protein` `(n, c)` bool. Contrast turns around the view's own mean. Only a rescaled protein
    may leave [0, 1], up to 2, and what the camera's noise adds.
    """
    views = (views * drawn.brightness[..., None, None]).clamp(0, 1)
    mean = views.mean((2, 3), keepdim=True)
    views = (mean + drawn.contrast[..., None, None] * (views - mean)).clamp(0, 1)
    gain = drawn.peak[:, None] / views.amax((2, 3)).clamp(min=1e-6)
    gain = torch.where(protein & gain.isfinite(), gain, 1.0) * drawn.keep
    views = views * gain[..., None, None]
    # Photons are counted: the noise's variance grows with the brightness.
    return views + drawn.noise * views.sqrt() if drawn.noise is not None else views


def blurred(views: Tensor, sd: Tensor, largest: float) -> Tensor:
    """Views `(n, c, y, x)` through a Gaussian of `sd` `(n,)` pixels, as optics out of focus do.

    No sd is above `largest`, which says how far the Gaussian is followed, in any part of a batch.
    """
    n, c, height, width = views.shape
    reach = min(int(3 * largest) + 1, height - 1, width - 1)
    at = torch.arange(-reach, reach + 1, device=views.device)
    kernel = (-0.5 * (at / sd.clamp(min=1e-3)[:, None]).square()).softmax(1)
    kernel = kernel.repeat_interleave(c, 0)[:, None, None]  # (n * c, 1, 1, k)
    flat = F.pad(views.reshape(1, n * c, height, width), [reach] * 4, mode="reflect")
    flat = F.conv2d(F.conv2d(flat, kernel, groups=n * c), kernel.mT, groups=n * c)
    return flat.view(views.shape)


def multi_crop(
    images: Tensor,
    extents: Tensor,
    protein: Tensor,
    views: Sequence[View],
    draws: Sequence[Draw],
    least: int = 0,
) -> list[Tensor]:
    """All views of `images` `(n, c, y, x)` in [0, 1]: a list of `(n, c, size, size)`.

    Where even images with `least` real pixels along a side are far finer than a view, pixels are
    averaged first: that is cheaper than to sample all of them.
    """
    averaged = {1: images}
    found = []
    for view, drawn in zip(views, draws, strict=True):
        by = view.averaged(least)
        if by not in averaged:
            averaged[by] = F.avg_pool2d(images, by)
        shown = resample(averaged[by], extents // by, drawn.matrix, view.size, view.span)
        if drawn.blur is not None:
            shown = blurred(shown, drawn.blur, view.blur)
        found.append(recolour(shown, drawn, protein))
    return found
