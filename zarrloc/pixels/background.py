"""The light a channel shows where no cell is: camera offset plus medium."""

import numpy as np
import numpy.typing as npt

BLOCK_PX = 8
PERCENTILE = 2.0

METHOD = (
    f"percentile {PERCENTILE:g} of the means of {BLOCK_PX} x {BLOCK_PX} px blocks "
    "of the field's real pixels"
)
"""The method, as recorded in the store's attributes."""


def measure(field: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Background of each channel of one field: `(channel, y, x)` -> `(channel,)` float32.

    Block means take out the camera noise, a low percentile of them needs only a few per cent of
    the field free of cells. On the six OpenCell samples (60 to 88 % covered) it lies within 26
    grey levels, half the noise's standard deviation, of the background measured by hand.
    Zero padding at the bottom and right does not count. Units are the field's.
    """
    real = _without_padding(field)
    block = min(BLOCK_PX, *real.shape[1:])
    if block == 0:
        return np.zeros(len(field), np.float32)
    rows, columns = real.shape[1] // block, real.shape[2] // block
    whole = real[:, : rows * block, : columns * block]
    # Rows first: sums along whole lines are five times as fast as over blocks at once.
    lines = whole.reshape(-1, rows, block, columns * block).sum(axis=2, dtype=np.float32)
    means = lines.reshape(-1, rows, columns, block).sum(axis=3) / block**2
    level: npt.NDArray[np.float32] = np.percentile(means, PERCENTILE, axis=(1, 2))
    return level.astype(np.float32)


def _without_padding(field: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    # Padding lies at the bottom and right only, and real pixels above a camera offset are not 0.
    if field.size and field[:, -1].any() and field[:, :, -1].any():
        return field
    height, width = (
        int(np.flatnonzero(field.any(axis=axes)).max(initial=-1)) + 1 for axes in ((0, 2), (0, 1))
    )
    return field[:, :height, :width]
