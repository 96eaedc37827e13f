"""Regions with a steep outline, on any background: what a threshold of its own cuts out best.

A threshold cuts an image into connected regions; those of a higher one lie inside those of a lower
one, so that all of them are a tree. A nucleus is the region whose outline runs where its edge is
steepest, half its own height above its own surroundings. Each branch of the tree has its own such
threshold: slopes, haze and neighbours ten times as bright don't matter, and an empty field has no
edges at all.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_erosion,
    gaussian_filter,
    label,
    maximum_filter,
    median_filter,
)

Image = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.bool_]

LEVELS = 32
"""Thresholds: as many for each part of the brightness that has edges."""

EDGE, OUTLINE = 4.0, 2.5
"""Slope of a pixel on an edge, and the mean slope of an outline, in those of the noise."""

FREE = 0.75
"""Share of its outline that a region must have to itself, not with what is already found."""

ONE_WAY = 0.93
"""Share of an outline's slope that may point one way: all of it does where a slope is cut."""

GRAIN, LESS_STEEP = 3.0, 3.0
"""An outline may be less steep than those inside it where it is so many times as large, and at most
so much less: grains of chromatin have steeper edges than the nuclei that they lie in. Without a
bound, a cloud would win over the nuclei in it."""

SMALLEST_PX = 9

CLASSES, BRIGHTNESS_PX, LOUDEST = 8, 2.0, 3.0
"""Classes of brightness whose noise is measured, the smoothing that tells them apart, and how much
noise a class may have, in that of the darkest: the rest is the texture of objects."""

TINY = 1e-6

LEVELLED_PX = 4
"""Grid on which the slope of the whole field is measured."""

AXES = ((1, 0), (0, 1))


def noise_sd(image: npt.NDArray[np.floating]) -> Image:
    """Sd of the noise at each pixel of `image` `(y, x)`, in its units; never 0, `(y, x)`.

    It is that of mixed second differences, to which slopes and straight edges add nothing. Light
    brings noise, so each of a few classes of brightness has its own. Within a class the median
    decides: the few pixels on the edges of objects don't count. Where so few grey levels are left
    that most differences are 0, it is their root mean square.
    """
    mixed = np.zeros(image.shape, np.float32)
    mixed[1:, 1:] = np.abs(image[1:, 1:] - image[:-1, 1:] - image[1:, :-1] + image[:-1, :-1])
    bright = gaussian_filter(image, BRIGHTNESS_PX)
    limits = np.quantile(bright, np.linspace(0, 1, CLASSES + 1))
    centres = (limits[1:] + limits[:-1]) / 2
    of = np.clip(np.searchsorted(limits, bright, side="right") - 1, 0, CLASSES - 1)
    # No class is calmer than half the field's: with few grey levels it may show no noise at all.
    least = _spread(mixed) / 2
    spread = [max(least, _spread(mixed[of == number])) for number in range(CLASSES)]
    rising = np.minimum(np.maximum.accumulate(spread), LOUDEST * spread[0])
    noise: Image = np.interp(bright, centres, rising).astype(np.float32)
    return noise


def _spread(mixed: Image) -> float:
    if not mixed.size:
        return TINY
    median = 1.4826 * float(np.median(mixed))
    return max((median or float(np.sqrt(np.mean(mixed**2)))) / 2, TINY)


def without_hot_pixels(image: Image, noise: Image) -> Image:
    """`image` with the median of its neighbourhood where one pixel stands out alone."""
    around = np.ones((3, 3), bool)
    around[1, 1] = False
    hot = image > maximum_filter(image, footprint=around) + 8 * noise
    return np.where(hot, median_filter(image, 3), image) if hot.any() else image


def levelled(image: Image) -> Image:
    """`image` without the slope that half of its pixels lie below and half above, by axis."""
    coarse = gaussian_filter(image, 2 * LEVELLED_PX)[::LEVELLED_PX, ::LEVELLED_PX]
    if min(coarse.shape) < 2:
        return image
    down, right = (float(np.median(part)) / LEVELLED_PX for part in np.gradient(coarse))
    y, x = (np.arange(length, dtype=np.float32) for length in image.shape)
    flat: Image = image - np.float32(down) * y[:, None] - np.float32(right) * x
    return flat


class View(NamedTuple):
    """An image smoothed so far that edges stand out of the noise, all `(y, x)`."""

    smooth: Image
    gradient: Image
    """`(2, y, x)`, in counts a pixel."""
    slope: Image
    """Its magnitude."""
    clear: Image
    """The slope in the root mean square of that of the noise."""

    @classmethod
    def of(cls, image: Image, noise: Image, sigma_px: float) -> "View":
        """`image` smoothed by a Gaussian of sd `sigma_px`; `noise` is the sd of each pixel's."""
        gradient = np.stack([gaussian_filter(image, sigma_px, order) for order in AXES])
        slope = np.hypot(*gradient)
        clear = slope / noise * np.float32(np.sqrt(4 * np.pi) * sigma_px**2)
        return cls(gaussian_filter(image, sigma_px), gradient, slope, clear)


class _Regions(NamedTuple):
    """The regions above one threshold; arrays are by id, 0 for the rest."""

    ids: npt.NDArray[np.integer[Any]]
    slope: npt.NDArray[np.float64]
    """Mean along the outline; 0 for what can be no object."""
    length: npt.NDArray[np.float64]
    area: npt.NDArray[np.intp]
    pixel: npt.NDArray[np.intp]
    """One pixel of each, as a flat index."""


def steep_regions(view: View, levels: int = LEVELS, taken: Pixels | None = None) -> Pixels:
    """Pixels `(y, x)` of the regions with the steepest outlines, which don't touch each other.

    Of a region and those inside it, it is the steeper that is chosen, where those are no grains
    of it. `taken` pixels belong to
    none, and an outline along them does not count.
    """
    free = np.ones(view.smooth.shape, bool) if taken is None else ~taken
    edge = view.smooth[free & (view.clear > EDGE)]
    if edge.size < SMALLEST_PX:
        return np.zeros(free.shape, bool)
    thresholds = np.unique(np.quantile(edge, np.linspace(0.01, 0.99, levels)))
    own = free if taken is None else binary_erosion(free, border_value=1)
    return _chosen([_regions(view, free & (view.smooth > at), own) for at in thresholds])


def _regions(view: View, above: Pixels, own: Pixels) -> _Regions:
    ids, count = label(above)
    rim = np.flatnonzero(_rim(above))
    of = ids.ravel()[rim]
    pixel = np.zeros(count + 1, np.intp)
    pixel[of] = rim
    length = np.bincount(of, minlength=count + 1).astype(float)
    counts = own.ravel()[rim]
    rim, of = rim[counts], of[counts]
    free = np.bincount(of, minlength=count + 1).astype(float)
    total, clear, down, right = (
        np.bincount(of, part.ravel()[rim], count + 1)
        for part in (view.slope, view.clear, *view.gradient)
    )
    slope = total / np.maximum(free, 1)
    area = np.bincount(ids.ravel(), minlength=count + 1)
    around = np.hypot(down, right) <= ONE_WAY * total
    fits = (area >= SMALLEST_PX) & around & (clear > OUTLINE * free) & (free >= FREE * length)
    if count < np.iinfo(np.uint16).max:
        ids = ids.astype(np.uint16)  # all levels are held at once
    return _Regions(ids, np.where(fits, slope, 0), free, area, pixel)


def _rim(above: Pixels) -> Pixels:
    """Pixels with a neighbour that is not `above`; the field's border is none."""
    # Several times as fast as scipy's binary_dilation, and most of the time was spent there.
    inner = above.copy()
    inner[1:] &= above[:-1]
    inner[:-1] &= above[1:]
    inner[:, 1:] &= above[:, :-1]
    inner[:, :-1] &= above[:, 1:]
    rim: Pixels = above & ~inner
    return rim


def _chosen(levels: list[_Regions]) -> Pixels:
    """The steepest of each branch; `levels` from the lowest threshold to the highest."""
    best: list[Pixels] = []
    slope, length, area, pixel = np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1, np.intp)
    for at in reversed(levels):
        within, count = at.ids.ravel()[pixel], len(at.slope)
        inner_length = np.bincount(within, length, count)
        inner = np.bincount(within, slope * length, count) / np.maximum(inner_length, 1e-9)
        inner_area = np.bincount(within, area, count)
        larger = np.clip(at.area / np.maximum(inner_area, 1) / GRAIN, 1, LESS_STEEP)
        steeper = (at.slope > 0) & (at.slope * larger >= inner)
        best.append(steeper)
        slope = np.where(steeper, at.slope, inner)
        length = np.where(steeper, at.length, inner_length)
        area = np.where(steeper, at.area, inner_area)
        slope[0] = length[0] = area[0] = 0
        pixel = at.pixel
    chosen = np.zeros(levels[0].ids.shape, bool)
    for at, steeper in zip(levels, reversed(best), strict=True):
        chosen |= (steeper & ~chosen.ravel()[at.pixel])[at.ids]
    return chosen
