"""Nuclei without any weights: regions with a steep outline, parted at their waists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    gaussian_filter,
    label,
    maximum_filter,
    minimum_filter,
)
from skimage.morphology import h_maxima, remove_small_holes
from skimage.segmentation import expand_labels, watershed

from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters.objects import Mask, numbered
from zarrloc.segmenters.outlines import (
    TINY,
    Image,
    Pixels,
    View,
    levelled,
    noise_sd,
    steep_regions,
    without_hot_pixels,
)
from zarrloc.segmenters.seam import Field, select

PerObject = npt.NDArray[np.float64]

SMOOTH, SMOOTH_PX = 0.06, (0.7, 2.5)
"""Sd that takes out the noise and leaves the edges of nuclei: in diameters, and its limits."""

FIRST_SMOOTH_PX, FIRST_LEVELS, FIRST_HOLE_PX = 1.5, 12, 30
"""For the first look, which finds the diameter."""

DIM = 0.2
"""What is dimmer than this share of the light of objects counts for less in their diameter."""

HOLE = 0.02
"""Largest hole in a nucleus, in squared diameters."""

BESIDE_PX = 10.0
"""Smallest diameter at which dim nuclei are looked for against brighter ones."""

GLARE, CORE = 2.5, 0.2
"""How far a nucleus's edge reaches, in sds of the smoothing, and how wide at least is half of what
lies beside it, in diameters."""

SHAPE_SMOOTH, DENT = (0.6, 0.04), (0.35, 0.01)
"""What evens out a ragged edge, and how deep a waist parts two nuclei: at least in px, and in
diameters."""

SMALLEST, SMALLEST_CUT = 0.1, 0.02
"""Smallest nucleus, whole and cut by the field's border, in squared diameters."""

FAINTEST = 0.15
"""Smallest height above the surroundings, in the field's median: below it lie cytoplasm and the
remains of dead cells."""

FLATTEST, FLAT, FAINT = 0.5, 0.8, 0.5
"""What is out of focus among nuclei in focus: an outline so little steep for its height, in the
median of the field; or less steep than `FLAT` and fainter than `FAINT`."""


FOOT, REACH, AROUND = 0.6, 0.2, 2.0
"""Nuclei end where their light falls to this share of its mean in them, above the darkest nearby;
how far outside the steepest outline at most, and how wide "nearby" is, in diameters. Grains, haze
and brighter neighbours draw the steepest outline too tight."""


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
        return {"model": "watershed", "version": 4, "channels": list(self.roles), **settings}

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

    Parameters
    ----------
    image
        Counts on any background, `(y, x)` float32.
    diameter_px
        Diameter of a typical nucleus; None measures it in the image.
    min_px
        Area below which an object goes, beside those too small for a nucleus of that diameter.
    """
    noise = noise_sd(image)
    image = levelled(without_hot_pixels(image, noise))
    diameter = diameter_px or _first_px(image, noise)
    view = View.of(image, noise, float(np.clip(SMOOTH * diameter, *SMOOTH_PX)))
    bright = _filled(steep_regions(view), HOLE * diameter**2)
    if diameter >= BESIDE_PX and bright.any():
        bright |= _beside(view, bright, diameter)
    depth = _depth(bright)
    diameter = diameter_px or _typical_px(depth, view.smooth)
    masks = _parted(bright, depth, diameter)
    masks = np.where(_nuclei(view, masks, diameter, min_px)[masks], masks, 0)
    return numbered(_to_the_foot(masks, view.smooth, diameter))


def _first_px(image: Image, noise: Image) -> float:
    """The diameter that a first look finds."""
    view = View.of(image, noise, FIRST_SMOOTH_PX)
    bright = _filled(steep_regions(view, FIRST_LEVELS), FIRST_HOLE_PX)
    return _typical_px(_depth(bright), view.smooth)


def _filled(bright: Pixels, largest_px: float) -> Pixels:
    """Without the holes of nuclei; a larger one lies between nuclei that stand in a ring."""
    filled: Pixels = remove_small_holes(bright, max_size=int(largest_px))
    return filled


def _depth(bright: Pixels) -> npt.NDArray[np.float64]:
    """Distance to the nearest pixel that is not bright; the field's border is none."""
    depth: npt.NDArray[np.float64] = distance_transform_edt(np.pad(bright, 1, mode="edge"))
    return depth[1:-1, 1:-1]


def _typical_px(depth: npt.NDArray[np.float64], smooth: Image) -> float:
    """Twice the depth of the deepest points of objects, the median by area; at least 4 px.

    The fainter of them count for less: the noise of compressed images makes thousands of specks.
    """
    at = (depth == maximum_filter(depth, 5)) & (depth > 0)
    if not at.any():
        return 4.0
    dark = smooth[depth == 0]
    ground = float(np.median(dark) if dark.size else smooth.min())
    peaks, height = depth[at], smooth[at] - ground
    usual = DIM * (float(np.quantile(smooth[depth > 0], 0.9)) - ground)
    counts = np.clip(height / max(usual, TINY), TINY, 1) ** 2
    order = np.argsort(peaks)
    area = np.cumsum((peaks**2 * counts)[order])
    return max(4.0, 2 * float(peaks[order][np.searchsorted(area, area[-1] / 2)]))


def _beside(view: View, bright: Pixels, diameter: float) -> Pixels:
    """Objects on the shoulders of brighter ones, where no threshold parts the two."""
    sigma = float(np.clip(SMOOTH * diameter, *SMOOTH_PX))
    glare = distance_transform_edt(~bright) <= GLARE * sigma
    more = steep_regions(view, taken=glare)
    width = max(1.5, CORE * diameter)
    wide: Pixels = more & (distance_transform_edt(_depth(more) <= width) <= width)
    return _filled(wide, HOLE * diameter**2)


def _parted(
    bright: Pixels, depth: npt.NDArray[np.float64], diameter: float
) -> npt.NDArray[np.int32]:
    """Ids of the objects, those that touch cut at their waists."""
    least, share = SHAPE_SMOOTH
    depth = gaussian_filter(depth, max(least, share * diameter))
    least, share = DENT
    seeds, _ = label(h_maxima(depth, max(least, share * diameter)), np.ones((3, 3)))
    parted: npt.NDArray[np.int32] = watershed(-depth, seeds, mask=bright)
    return parted


def _nuclei(
    view: View, masks: npt.NDArray[np.int32], diameter: float, min_px: float
) -> npt.NDArray[np.bool_]:
    """Which ids are nuclei, not debris, haze or what lies far out of focus."""
    border = np.concatenate((masks[[0, -1]].ravel(), masks[:, [0, -1]].ravel()))
    smallest = np.full(masks.max() + 1, SMALLEST * diameter**2)
    smallest[border] = SMALLEST_CUT * diameter**2
    large = np.bincount(masks.ravel(), minlength=len(smallest)) >= np.maximum(min_px, smallest)
    large[0] = False
    height, steep = _seen(view, masks, diameter)
    usual = large & np.isfinite(height + steep)
    if usual.sum() < 2:
        return large
    height, steep = (v / max(float(np.median(v[usual])), 1e-6) for v in (height, steep))
    # Comparisons are false where an object has no surroundings, amid a crowd: it stays.
    flat = (steep < FLATTEST) | ((steep < FLAT) & (height < FAINT))
    return large & ~flat & ~(height < FAINTEST)


def _seen(view: View, masks: npt.NDArray[np.int32], diameter: float) -> tuple[PerObject, PerObject]:
    """Height of each object above its surroundings, and its outline's slope for that height."""
    away = distance_transform_edt(masks == 0)
    near = np.where(away > max(1, diameter / 12), expand_labels(masks, max(2, diameter / 6)), 0)
    edge = np.where(binary_dilation(masks == 0), masks, 0)
    count = int(masks.max()) + 1

    def mean(values: Image, ids: npt.NDArray[np.int32]) -> PerObject:
        pixels = np.bincount(ids.ravel(), minlength=count).astype(float)
        total = np.bincount(ids.ravel(), values.ravel(), count).astype(float)
        found: PerObject = total / np.where(pixels, pixels, np.nan)
        return found

    height = mean(view.smooth, masks) - mean(view.smooth, near)
    return height, mean(view.slope, edge) / np.maximum(height, 1e-6)


def _to_the_foot(
    masks: npt.NDArray[np.int32], smooth: Image, diameter: float
) -> npt.NDArray[np.int32]:
    """`masks` with the rest of their light, as far as it is connected to them."""
    height = smooth - _ground(smooth, diameter)
    pixels = np.bincount(masks.ravel())
    foot = FOOT * np.bincount(masks.ravel(), height.ravel()) / np.maximum(pixels, 1)
    near = expand_labels(masks, REACH * diameter)
    theirs = (masks > 0) | ((near > 0) & (height > foot[near]))
    grown: npt.NDArray[np.int32] = watershed(-smooth, masks, mask=theirs)
    return grown


def _ground(smooth: Image, diameter: float) -> Image:
    """The darkest that lies within `AROUND` diameters, from block to block."""
    step = max(1, round(diameter / 8))
    padded = np.pad(smooth, [(0, -length % step) for length in smooth.shape], mode="edge")
    rows, columns = (length // step for length in padded.shape)
    blocks = padded.reshape(rows, step, columns, step).min((1, 3))
    wide = round(AROUND * diameter / step) | 1
    blocks = gaussian_filter(minimum_filter(blocks, wide), wide / 3)
    ground: Image = blocks.repeat(step, 0).repeat(step, 1)
    return ground[: smooth.shape[0], : smooth.shape[1]]
