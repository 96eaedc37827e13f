"""Fields and their masks, smaller and smaller: what a viewer shows from afar."""

from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST = 256
"""The last level's longer side is at most this, px."""


def levels(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of every level, the full size first; each half the one before."""
    found = [(height, width)]
    while max(found[-1]) > SMALLEST:
        found.append((max(1, found[-1][0] // 2), max(1, found[-1][1] // 2)))
    return found


def halved(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Means of 2 x 2 pixels of `image` `(channel, y, x)`, in its dtype; an odd edge is left out."""
    channels, height, width = image.shape
    down = 2 if height > 1 else 1
    across = 2 if width > 1 else 1
    cut = image[:, : height // down * down, : width // across * across]
    parts = cut.reshape(channels, height // down, down, width // across, across)
    mean = parts.mean(axis=(2, 4), dtype=np.float64)
    if image.dtype.kind in "iu":
        mean = np.rint(mean)
    return np.asarray(mean, image.dtype)


def halved_mask(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every second pixel of `mask` `(y, x)`: ids are never mixed."""
    height, width = mask.shape
    return mask[: max(1, height // 2 * 2) : 2, : max(1, width // 2 * 2) : 2]
