"""Is a field usable? How sharp it is, how much light it has, how much of it is saturated."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

EMPTY_SD = 6.0
"""A channel is empty where its bright pixels rise less than this many noise sd above the rest."""

SATURATED_SHARE = 1e-3
"""A channel is saturated where more of its pixels than this have the store's largest value."""


@dataclass(frozen=True)
class Quality:
    """One channel of one field."""

    focus: float
    """Fine detail as a share of all contrast, 0 to 1: falls when the field is out of focus."""
    light: float
    """How far the bright pixels (99.5th percentile) rise above the median, in noise sd."""
    largest: float
    """The largest value, in counts."""
    at_largest: float
    """Share of the pixels that have it: more than a few, where the camera could not count on."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing but noise."""
        return self.light < EMPTY_SD


def quality(channel: npt.NDArray[Any]) -> Quality:
    """Measure one channel `(y, x)`, in counts.

    Noise is estimated as by Immerkaer (1996, Computer Vision and Image Understanding 64, 300): the
    mean absolute value of a mask that no plane or edge answers. Focus is the variance between
    Gaussians of sd 1 and 2 px over that between 1 and 8 px, each less what noise gives.
    """
    image = channel.astype(np.float32)
    noise = noise_sd(image)
    low, high = np.percentile(image, [50, 99.5])
    smooth = ndimage.gaussian_filter(image, 1)
    fine = smooth - ndimage.gaussian_filter(image, 2)
    broad = smooth - ndimage.gaussian_filter(image, 8)
    # White noise of sd 1 leaves these variances behind the two filters.
    detail = max(float(fine.var()) - 0.0358 * noise**2, 0.0)
    contrast = max(float(broad.var()) - 0.0762 * noise**2, 0.0)
    return Quality(
        focus=detail / contrast if contrast > 0 else 0.0,
        light=float(high - low) / max(noise, 1e-6),
        largest=float(channel.max()),
        at_largest=float((channel == channel.max()).mean()),
    )


def noise_sd(image: npt.NDArray[np.float32]) -> float:
    """The sd of white noise in `image` `(y, x)`."""
    if min(image.shape) < 3:
        return 0.0
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    answer = ndimage.convolve(image, mask)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(answer).mean() / 6)


def robust_z(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """How many robust sd (1.4826 x the median absolute deviation) each value lies off the median.

    NaN stays NaN. The sd is at least 5 % of the median, so that fields that are all alike have no
    outliers.
    """
    x = np.asarray(values, np.float64)
    if not np.isfinite(x).any():
        return np.full(x.shape, np.nan)
    middle = np.nanmedian(x)
    spread = 1.4826 * np.nanmedian(np.abs(x - middle))
    return np.asarray((x - middle) / max(spread, 0.05 * abs(middle), 1e-12))
