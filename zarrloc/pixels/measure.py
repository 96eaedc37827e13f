"""The cell table: one row per mask, measured with scikit-image on background-subtracted pixels.

`blank_fraction` and `keep` are the paper's filter (Appendix B). "Unusually high black pixel
fractions" at its "99.7 percent cutoff" dropped 0.79 % of its cells. An absolute limit of 0.997
fits that best, and lets a row never change when fields are added; a 99.7th percentile would drop
0.30 % of any data whatever.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ConfigError

BLANK_LIMIT = 0.997

_ABOVE_BACKGROUND = "counts above the field's background"


@dataclass(frozen=True)
class Column:
    """One array of `cells/<name>`: its dims, dtype and attributes."""

    dims: tuple[str, ...]
    dtype: str
    attrs: dict[str, str] = field(default_factory=dict)


def _column(dtype: str, meaning: str, units: str = "", dims: tuple[str, ...] = ("cell",)) -> Column:
    attrs = {"long_name": meaning, **({"units": units} if units else {})}
    return Column(dims, dtype, attrs)


def _intensity(statistic: str) -> Column:
    meaning = f"{statistic} within the mask"
    return _column("float32", meaning, _ABOVE_BACKGROUND, ("cell", "channel"))


COLUMNS: dict[str, Column] = {
    "fov_index": _column("int64", "row of the cell's field in `fovs`"),
    "mask_label": _column("uint32", "the cell's id in its field's mask"),
    "centroid_y": _column("float64", "mask centroid; 0 is the centre of the first row", "pixel"),
    "centroid_x": _column("float64", "mask centroid; 0 is the centre of the first column", "pixel"),
    "bbox_y0": _column("int32", "first row of the mask", "pixel"),
    "bbox_x0": _column("int32", "first column of the mask", "pixel"),
    "bbox_y1": _column("int32", "one past the last row of the mask", "pixel"),
    "bbox_x1": _column("int32", "one past the last column of the mask", "pixel"),
    "area_px": _column("int32", "area of the mask", "pixel"),
    "touches_border": _column("bool", "the mask reaches the edge of its field"),
    "blank_fraction": _column("float32", "share of the masked crop window that is black", "1"),
    "keep": _column("bool", "the crop is not blank, and the object can be a cell"),
    "intensity_mean": _intensity("mean"),
    "intensity_sd": _intensity("population standard deviation"),
    "intensity_p5": _intensity("5th percentile"),
    "intensity_p50": _intensity("median"),
    "intensity_p95": _intensity("95th percentile"),
}
"""The table in order. `cells` gives all but `fov_index` and `keep`, which are the stage's."""


def cells(
    image: npt.NDArray[Any],
    mask: npt.NDArray[np.unsignedinteger[Any]],
    background: npt.NDArray[Any],
    window_px: int,
) -> dict[str, npt.NDArray[Any]]:
    """Measure the masks of one field.

    `image` (channel, y, x) and `mask` (y, x, ids 1..n) of the real field, its padding cut off;
    `background` (channel,) in counts; `window_px` the side of the crop window. Returns the
    columns of `COLUMNS`, each with n rows in the order of the ids: none for an empty mask.
    Intensities are above the background and may fall below 0; with it added they are raw.
    """
    from skimage.measure import regionprops_table  # slow to import

    above = image.astype(np.float32) - background.astype(np.float32)[:, None, None]
    table = regionprops_table(
        mask.astype(np.int32),  # scikit-image refuses uint64 and slows down on uint32
        np.moveaxis(above, 0, -1),
        properties=("label", "centroid", "bbox", "area", "intensity_mean", "intensity_std"),
        extra_properties=(percentiles,),
    )
    y0, x0, y1, x1 = (table[f"bbox-{side}"] for side in range(4))
    height, width = mask.shape
    found = {
        "mask_label": table["label"],
        "centroid_y": table["centroid-0"],
        "centroid_x": table["centroid-1"],
        "bbox_y0": y0,
        "bbox_x0": x0,
        "bbox_y1": y1,
        "bbox_x1": x1,
        "area_px": table["area"],
        "touches_border": (y0 == 0) | (x0 == 0) | (y1 == height) | (x1 == width),
        "blank_fraction": blank_fractions(above, mask, table, window_px),
    }
    of = {
        "intensity_mean": "intensity_mean-{}",
        "intensity_sd": "intensity_std-{}",
        "intensity_p5": "percentiles-0-{}",
        "intensity_p50": "percentiles-1-{}",
        "intensity_p95": "percentiles-2-{}",
    }
    for name, key in of.items():
        found[name] = np.stack([table[key.format(c)] for c in range(len(image))], axis=1)
    return {name: values.astype(COLUMNS[name].dtype) for name, values in found.items()}


def percentiles(inside: npt.NDArray[np.bool_], image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """5th, 50th and 95th percentile of one region: an extra property for regionprops."""
    return np.asarray(np.percentile(image[inside], (5, 50, 95)))


def blank_fractions(
    above: npt.NDArray[np.float32],
    mask: npt.NDArray[np.unsignedinteger[Any]],
    table: dict[str, npt.NDArray[Any]],
    window_px: int,
) -> npt.NDArray[np.float64]:
    """Share of each cell's masked window that is black: the zeros of its crop, all channels dark.

    A pixel is black outside the mask, outside the field, or where no channel of `above`
    (channel, y, x) is above the background.
    """
    lit = np.where((above > 0).any(axis=0), mask, 0)
    half = window_px // 2
    centres = np.rint(np.stack([table["centroid-0"], table["centroid-1"]], axis=1)).astype(int)
    counts = [
        np.count_nonzero(lit[max(0, y - half) : y + half, max(0, x - half) : x + half] == label)
        for (y, x), label in zip(centres, table["label"], strict=True)
    ]
    return 1 - np.asarray(counts, dtype=np.float64) / window_px**2


def keep(blank_fraction: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """The paper's filter as an absolute limit: a row never depends on the others."""
    kept: npt.NDArray[np.bool_] = blank_fraction <= np.float32(BLANK_LIMIT)
    return kept


def keep_percentile(
    blank_fraction: npt.NDArray[np.floating[Any]], percentile: float
) -> npt.NDArray[np.bool_]:
    """The paper's filter read as a percentile (0..100) over all cells: 99.7 drops 0.3 %."""
    if not 0 <= percentile <= 100:
        why = f"got {percentile}, expected 0 to 100, such as 99.7"
        raise ConfigError(f"keep_percentile: {why}", {"keep_percentile": why})
    if len(blank_fraction) == 0:
        return np.zeros(0, dtype=bool)
    kept: npt.NDArray[np.bool_] = blank_fraction <= np.percentile(blank_fraction, percentile)
    return kept
