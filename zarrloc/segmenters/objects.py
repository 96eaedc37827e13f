"""What all segmenters do with masks: `(y, x)` unsigned integers, 0 background, objects 1..n."""

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint32]


def numbered(masks: npt.NDArray[np.integer[Any]]) -> Mask:
    """`masks` with the ids 1..n, in the order of those they had."""
    from skimage.segmentation import relabel_sequential  # slow to import

    renumbered: Mask = relabel_sequential(masks)[0].astype(np.uint32)
    return renumbered


def without_small(
    masks: npt.NDArray[np.integer[Any]], min_px: float | npt.NDArray[np.float64]
) -> Mask:
    """`masks` without objects of fewer than `min_px` pixels (of all, or by id), numbered 1..n."""
    areas = np.bincount(masks.ravel())
    return numbered(np.where((areas < min_px)[masks], 0, masks))
