"""Nuclei without any weights: a threshold, then a watershed of the distance to the edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_fill_holes,
    binary_opening,
    distance_transform_edt,
    gaussian_filter,
    label,
)
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters.objects import Mask, without_small
from zarrloc.segmenters.seam import Field, select

Image = npt.NDArray[np.float32]

SMOOTH_PX = 2.0
"""Sd that takes out the camera's noise and leaves the edges of nuclei."""

LOCAL_PX = 25.0
"""Sd of the neighbourhood whose nuclei say how bright a nucleus is."""

SHAPE_SMOOTH, DENT = 0.03, 0.01
"""In diameters: what evens out a ragged edge, and how deep a waist parts two nuclei."""

SMALLEST, SMALLEST_CUT = 0.1, 0.02
"""Smallest nucleus, whole and cut by the field's border, in squared diameters."""


@dataclass(frozen=True)
class WatershedSegmenter:
    """`segment_nuclei` as `zarrloc.segmenters.Segmenter`. It has no network: all is in `mask`."""

    config: SegmentConfig

    @property
    def roles(self) -> tuple[str, ...]:
        """The one channel that is segmented."""
        return self.config.segmented[:1]

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Settings; `version` changes with the method."""
        settings = self.config.model_dump(include={"diameter", "min_size"})
        return {"model": "watershed", "version": 1, "channels": list(self.roles), **settings}

    def prepare(self, field: Field, roles: Sequence[str]) -> Image:
        """The channel that is segmented, `(y, x)` float32."""
        image: Image = select(field, roles, self.roles)[0]
        return image

    def network(self, inputs: Sequence[Image]) -> list[Image]:
        """Nothing."""
        return list(inputs)

    def mask(self, state: Image) -> Mask:
        """Nuclei of one field."""
        diameter = None if self.config.diameter == "auto" else self.config.diameter
        return segment_nuclei(state, diameter, self.config.min_size)


def segment_nuclei(image: Image, diameter_px: float | None = None, min_px: float = 0) -> Mask:
    """Masks `(y, x)` of the bright, roundish objects of `image` `(y, x)`, ids 1..n.

    `diameter_px` None is measured in the image. What is below `min_px` pixels goes, and what is
    too small for a nucleus of that diameter.
    """
    bright = _bright(image)
    depth = distance_transform_edt(np.pad(bright, 1, mode="edge"))[1:-1, 1:-1]
    diameter = diameter_px or _typical_diameter_px(depth)
    depth = gaussian_filter(depth, SHAPE_SMOOTH * diameter)
    seeds, _ = label(h_maxima(depth, DENT * diameter), np.ones((3, 3)))
    masks = watershed(-depth, seeds, mask=bright)
    border = np.concatenate((masks[[0, -1]].ravel(), masks[:, [0, -1]].ravel()))
    smallest = np.full(masks.max() + 1, SMALLEST * diameter**2)
    smallest[border] = SMALLEST_CUT * diameter**2
    return without_small(masks, np.maximum(min_px, smallest))


def _bright(image: Image) -> npt.NDArray[np.bool_]:
    """Pixels at least half as far above the background as the nuclei around them."""
    smooth = gaussian_filter(image, SMOOTH_PX)
    background = np.percentile(smooth, 2)
    above = smooth - background
    # The brightest (a mitosis) would draw Otsu's threshold above the dimmest nuclei.
    rough = above > 0.7 * threshold_otsu(np.minimum(above, np.percentile(above, 95)))
    share = gaussian_filter(rough.astype(np.float32), LOCAL_PX)
    level = gaussian_filter(above * rough, LOCAL_PX) / np.maximum(share, 1e-6)
    bright = binary_opening(rough & (above > level / 2), iterations=2)
    filled: npt.NDArray[np.bool_] = binary_fill_holes(bright)
    return filled


def _typical_diameter_px(depth: npt.NDArray[np.float64]) -> float:
    """Twice the median depth of the deepest points of objects, at least 4 px."""
    peaks = depth[tuple(peak_local_max(depth, min_distance=5, exclude_border=False).T)]
    peaks = peaks[peaks > peaks.max(initial=0) / 3]
    return max(4.0, 2 * float(np.median(peaks))) if peaks.size else 4.0
