"""Classic features of one image: texture, patterns and spots, as cell biology measured them before
networks (Haralick 1973; Ojala 2002; Boland and Murphy 2001; Hamilton 2007; Carpenter 2006).

All but `intensity` are taken after a stretch of each channel's own range, so a brighter camera
does not change them.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import cv2
import mahotas.features
import numpy as np
import numpy.typing as npt
from skimage.feature import local_binary_pattern
from skimage.filters import threshold_otsu

VERSION = 1
"""Version of these features, part of an embedding's settings."""

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
LEVELS = 32
"""Grey levels of the co-occurrences."""
TEXTURE_STEPS = (1, 4)
"""Distances of the co-occurrences, px."""
LBP_RADII = (1, 3)
LBP_BINS = 10
ZERNIKE_SIDE, ZERNIKE_DEGREE = 64, 8
RADII = (1, 2, 3, 4, 6, 8)
"""Radii of the openings, px."""

HARALICK = 26
ZERNIKE = 25
ADJACENCY = 54
SPREAD = 5

Image = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Array32 = npt.NDArray[np.float32]

_BLOCKS = (
    *(("intensity", name) for name in ("mean", "sd", *(f"p{p}" for p in PERCENTILES))),
    *(("haralick", f"{step}px_{i}") for step in TEXTURE_STEPS for i in range(HARALICK)),
    *(("lbp", f"{radius}px_{i}") for radius in LBP_RADII for i in range(LBP_BINS)),
    *(("zernike", str(i)) for i in range(ZERNIKE)),
    *(("adjacency", str(i)) for i in range(ADJACENCY)),
    *(("granularity", f"{radius}px") for radius in RADII),
    *(("spread", name) for name in ("skewness", "kurtosis", "entropy", "bright_share", "contrast")),
)
_PAIR = ("pearson", "overlap", "share_of_first", "share_of_second")


def feature_names(channels: Sequence[str]) -> tuple[str, ...]:
    """What each column of `classic_features` is.

    Parameters
    ----------
    channels
        Names of the channels, in the image's order.

    Returns
    -------
    tuple of str
        `<channel>_<kind>_<which>`, then `<channel>_<channel>_<measure>` for each pair.

    Examples
    --------
    >>> feature_names(["nucleus", "protein"])[0]
    'nucleus_intensity_mean'
    """
    alone = [f"{channel}_{kind}_{which}" for channel in channels for kind, which in _BLOCKS]
    pairs = [f"{a}_{b}_{measure}" for a, b in combinations(channels, 2) for measure in _PAIR]
    return (*alone, *pairs)


def feature_count(channels: int) -> int:
    """Number of features of an image of so many channels."""
    return channels * len(_BLOCKS) + channels * (channels - 1) // 2 * len(_PAIR)


def classic_features(image: Image, inside: Bools | None = None) -> Array32:
    """Features of an image, or of the part of it that is one cell.

    Parameters
    ----------
    image : (channel, y, x)
        Intensities, of any unit and dtype.
    inside : (y, x) bool, optional
        The pixels that count; all of them if not given.

    Returns
    -------
    (feature,) float32
        Finite; `feature_names` says what each is. All 0 where nothing is inside.

    Examples
    --------
    >>> image = np.arange(2 * 32 * 32.0).reshape(2, 32, 32)
    >>> classic_features(image).shape == (feature_count(2),)
    True
    """
    whole = np.ones(image.shape[1:], bool) if inside is None else inside
    if not whole.any():
        return np.zeros(feature_count(len(image)), np.float32)
    rows, columns = (np.flatnonzero(whole.any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    whole = np.ascontiguousarray(whole[box])
    channels = [np.ascontiguousarray(channel[box], np.float32) for channel in image]
    parts = [_of_channel(channel, whole) for channel in channels]
    parts += [_of_pair(a[whole], b[whole]) for a, b in combinations(channels, 2)]
    return np.nan_to_num(np.concatenate(parts), posinf=0, neginf=0).astype(np.float32)


def _of_channel(channel: Array32, inside: Bools) -> npt.NDArray[np.float64]:
    values = channel[inside].astype(np.float64)
    grey = _stretched(channel, inside)
    return np.concatenate(
        [
            [values.mean(), values.std(), *np.percentile(values, PERCENTILES)],
            *(_haralick(grey, inside, step) for step in TEXTURE_STEPS),
            *(_lbp(grey, inside, radius) for radius in LBP_RADII),
            _zernike(grey),
            _adjacency(grey),
            _granularity(grey),
            _spread(grey[inside]),
        ]
    )


def _stretched(channel: Array32, inside: Bools) -> Bytes:
    """The channel as 0 to 255 over its own range; 0 outside, and everywhere where it is flat."""
    low, high = np.percentile(channel[inside], (0.1, 99.9))
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    grey = np.clip((channel - low) / (high - low), 0, 1) * 255
    return np.asarray(np.rint(grey) * inside, np.uint8)


def _haralick(grey: Bytes, inside: Bools, step: int) -> npt.NDArray[np.float64]:
    """Mean and range over four directions of the thirteen measures."""
    # Level 0 is what lies outside, of which no pair counts.
    levels = np.where(inside, grey // (256 // LEVELS) + 1, 0).astype(np.uint8)
    try:
        found = mahotas.features.haralick(
            levels, ignore_zeros=True, return_mean_ptp=True, distance=step
        )
    except ValueError:  # in some direction, the object has no two pixels so far apart
        return np.zeros(HARALICK)
    return np.asarray(found, np.float64)


def _lbp(grey: Bytes, inside: Bools, radius: int) -> npt.NDArray[np.float64]:
    """Shares of the uniform, rotation-invariant local binary patterns."""
    codes = local_binary_pattern(grey, 8, radius, "uniform")[inside]
    return np.bincount(codes.astype(int), minlength=LBP_BINS) / len(codes)


def _zernike(grey: Bytes) -> npt.NDArray[np.float64]:
    """Magnitudes of the Zernike moments within the box, at one size for all objects."""
    shrunk = cv2.resize(grey, (ZERNIKE_SIDE, ZERNIKE_SIDE), interpolation=cv2.INTER_AREA)
    if not shrunk.any():
        return np.zeros(ZERNIKE)
    middle = (ZERNIKE_SIDE - 1) / 2
    found = mahotas.features.zernike_moments(
        shrunk, ZERNIKE_SIDE / 2, ZERNIKE_DEGREE, cm=(middle, middle)
    )
    return np.asarray(found, np.float64)


def _adjacency(grey: Bytes) -> npt.NDArray[np.float64]:
    """Parameter-free threshold adjacency statistics: how the bright pixels touch one another."""
    if not grey.any():
        return np.zeros(ADJACENCY)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(mahotas.features.pftas(grey)), np.float64)


def _granularity(grey: Bytes) -> npt.NDArray[np.float64]:
    """Share of the intensity that goes with each opening: spots of what size there are."""
    total = max(float(grey.sum(dtype=np.int64)), 1.0)
    left = [total]
    for radius in RADII:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        opened = cv2.morphologyEx(grey, cv2.MORPH_OPEN, disk, borderType=cv2.BORDER_REFLECT)
        left.append(float(opened.sum(dtype=np.int64)))
    return -np.diff(left) / total


def _spread(grey: Bytes) -> npt.NDArray[np.float64]:
    """Skewness, kurtosis, entropy (bits), share above Otsu's threshold, contrast across it."""
    count = np.bincount(grey, minlength=256)
    share, level = count / len(grey), np.arange(256.0)
    mean = share @ level
    sd = np.sqrt(share @ (level - mean) ** 2)
    if sd == 0:
        return np.zeros(SPREAD)
    z = (level - mean) / sd
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    bright = level > threshold_otsu(hist=count)
    means = [(share @ (level * part)) / (share @ part) for part in (bright, ~bright)]
    return np.array([share @ z**3, share @ z**4, entropy, share @ bright, -np.diff(means)[0] / 255])


def _of_pair(a: Array32, b: Array32) -> npt.NDArray[np.float64]:
    """Pearson's and the overlap coefficient, and each channel's share where the other is bright.

    The last two are Manders' coefficients, with Otsu's thresholds.
    """
    a, b = ((values - values.min()).astype(np.float64) for values in (a, b))
    if a.max() == 0 or b.max() == 0:
        return np.zeros(len(_PAIR))
    overlap = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    shares = [
        one[other > threshold_otsu(other)].sum() / one.sum() for one, other in ((a, b), (b, a))
    ]
    return np.array([np.corrcoef(a, b)[0, 1], overlap, *shares])
