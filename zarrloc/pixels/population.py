"""What stands out of all cells of a store: objects that cannot be cells, fields unlike the others.

All limits are wide: they are for faults of a segmentation (a whole field taken for one cell, noise
taken for many), not for rare cells. An object or a field must be far from the median both in
robust standard deviations (1.4826 times the median absolute deviation) and by a plain factor.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.number[Any]]

VERSION = 1
"""Version of the limits below, part of a table's settings."""

FEWEST_CELLS, FEWEST_FIELDS = 20, 8
"""With fewer than these, no statistics are taken."""

SDS = 6.0
"""Robust standard deviations from the median."""

LARGER, SMALLER = 8.0, 1 / 20
"""Area of an object that cannot be a cell, in the median of all."""

DIM = 0.02
"""Light of an object that is none, in the median of all, in every channel."""

WHOLE, SOME = 0.9, 4.0
"""Share of a field that no cell fills, where it is so much larger than the median one."""

COUNT_FACTOR, SIZE_FACTOR = 4.0, 2.0
"""Count and median area of a field unlike the others, in their medians."""


def impossible(
    area_px: Numbers, touches_border: Bools, intensity_mean: Numbers, field_px: Numbers
) -> Bools:
    """Which objects cannot be cells, judged by all objects of the store.

    Parameters
    ----------
    area_px, touches_border
        Of each object `(cell,)`; one that is cut off may be as small as it likes.
    intensity_mean
        Mean light above the background, `(cell, channel)`.
    field_px
        Area of the object's field, `(cell,)`.

    Returns
    -------
    numpy.ndarray
        `(cell,)` bool. Far too large or too small, as large as its field, or without light in
        any channel. All false where there are fewer than `FEWEST_CELLS`.
    """
    if len(area_px) < FEWEST_CELLS:
        return np.zeros(len(area_px), bool)
    size = np.log(np.maximum(area_px, 1))
    far = _deviation(size, size[~touches_border] if (~touches_border).any() else size)
    large = (far > SDS) & (size > np.median(size) + np.log(LARGER))
    small = (far < -SDS) & (size < np.median(size) + np.log(SMALLER)) & ~touches_border
    whole = (area_px >= WHOLE * field_px) & (area_px > SOME * np.median(area_px))
    usual = np.median(intensity_mean, axis=0)
    dark = ((intensity_mean < DIM * usual) | (usual <= 0)).all(axis=1) & (usual > 0).any()
    found: Bools = large | small | whole | dark
    return found


class Odd(NamedTuple):
    """Rows of `fovs` that are unlike the others."""

    empty: npt.NDArray[np.intp]
    """Without any object, where most fields have some."""
    number: npt.NDArray[np.intp]
    """With far more or fewer objects."""
    size: npt.NDArray[np.intp]
    """With far larger or smaller objects."""


def odd_fields(counts: Numbers, fov_index: Numbers, area_px: Numbers) -> Odd:
    """Fields unlike the others of a store.

    Parameters
    ----------
    counts
        Objects of each field `(fov,)`; a field that failed is left out by -1.
    fov_index, area_px
        Field and area of each object, `(cell,)`.

    Returns
    -------
    Odd
        Nothing where there are fewer than `FEWEST_FIELDS`.
    """
    done = np.flatnonzero(counts >= 0)
    nothing = np.zeros(0, np.intp)
    if len(done) < FEWEST_FIELDS or np.median(counts[done]) == 0:
        return Odd(nothing, nothing, nothing)
    some = done[counts[done] > 0]
    # Counts scatter as their square root does; of that the sd of a Poisson count is a half.
    root = np.sqrt(counts[some].astype(float))
    sizes = np.array([np.median(area_px[fov_index == fov]) for fov in some])
    size = np.log(np.maximum(sizes, 1))
    return Odd(
        done[counts[done] == 0],
        some[_far(root, 0.5) & _apart(root, np.sqrt(COUNT_FACTOR))],
        some[_far(size, 0.05) & (np.abs(size - np.median(size)) > np.log(SIZE_FACTOR))],
    )


def _far(values: npt.NDArray[np.float64], least_sd: float) -> Bools:
    far: Bools = np.abs(_deviation(values, values, least_sd)) > SDS
    return far


def _apart(values: npt.NDArray[np.float64], factor: float) -> Bools:
    middle = np.median(values)
    apart: Bools = (values > middle * factor) | (values < middle / factor)
    return apart


def _deviation(
    values: npt.NDArray[np.float64], of: npt.NDArray[np.float64], least_sd: float = 0.05
) -> npt.NDArray[np.float64]:
    """`values` in robust standard deviations from the median of `of`."""
    middle = np.median(of)
    sd = max(1.4826 * float(np.median(np.abs(of - middle))), least_sd)
    deviation: npt.NDArray[np.float64] = (values - middle) / sd
    return deviation
