"""Nuclei grown into cells: by a distance, or along the light of another channel."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.morphology import remove_small_holes
from skimage.segmentation import expand_labels, watershed

from zarrloc.background import measure
from zarrloc.segmenters.masks import Mask

Image = npt.NDArray[np.float32]

RIM, REACH = 0.4, 2.0
"""How far a cell goes beyond its nucleus, in radii of the median nucleus: at least, at most.

In OpenCell's fields a cell has 2 to 3 times the area of its nucleus."""

SMOOTH = 0.06
"""Sd of the smoothing of the light, in the same radii."""

NOISE_SDS = 4.0
"""Light this many standard deviations of the background above it is a cell's."""


def by_distance(seeds: Mask, distance_px: float) -> Mask:
    """`seeds` `(y, x)` grown by up to `distance_px`, meeting halfway; the ids stay."""
    grown: Mask = expand_labels(seeds, distance_px)
    return grown


def along_light(seeds: Mask, light: Image) -> Mask:
    """`seeds` `(y, x)` grown over what `light` `(y, x)` shows of their cells; the ids stay.

    Every cell gets a rim around its nucleus, whatever the light: a protein that fills little of
    the cell neither splits nor shrinks it. Beyond that a cell reaches as far as there is light
    above the background, up to a limit; cells meet halfway between their nuclei.
    """
    if not seeds.any():
        return seeds
    radius = float(np.sqrt(np.median(np.bincount(seeds.ravel())[1:]) / np.pi))
    distance = distance_transform_edt(seeds == 0)
    lit = _lit(light, SMOOTH * radius)
    cells = (distance <= RIM * radius) | (lit & (distance <= REACH * radius))
    cells = remove_small_holes(cells, max_size=int(radius**2))
    grown: Mask = watershed(distance, seeds, mask=cells).astype(np.uint32)
    return grown


def _lit(light: Image, sigma_px: float) -> npt.NDArray[np.bool_]:
    """Where smoothed `light` is above the background by more than its noise."""
    smooth = gaussian_filter(light, sigma_px)
    background = float(measure(light[None])[0])
    below = smooth[smooth < background]
    noise = float(np.sqrt(np.mean((below - background) ** 2))) if below.size else 0.0
    lit: npt.NDArray[np.bool_] = smooth > background + NOISE_SDS * noise
    return lit
