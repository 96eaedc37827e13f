"""Random fields and marks on a pixel grid: smooth noise, points by rate, blurred spots, threads."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.sparse import csr_array

Map = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
Points = tuple[Map, Map]  # y and x of points, px


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Map:
    """Gaussian noise of mean 0, sd 1, blurred by a Gaussian of sd `scale_px`: `(y, x)` float32.

    White noise on a grid of that spacing, spread by sparse kernels: no FFT, and no BLAS, whose
    last bits depend on its threads.
    """
    rows, columns = (_kernel(length, scale_px) for length in shape)
    coarse = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    noise: Map = rows @ np.ascontiguousarray((columns @ coarse.T).T)
    return noise


def _kernel(length: int, scale_px: float) -> csr_array:
    """`(length, grid)`: Gaussian weights of the grid points around each pixel, squares sum to 1."""
    taps = np.arange(-4, 5)
    nearest = np.rint(np.arange(length) / scale_px).astype(np.intp)
    grid = nearest[:, None] + taps
    weight = np.exp(-((np.arange(length)[:, None] / scale_px - grid) ** 2) / 2)
    weight /= np.sqrt(np.sum(weight**2, axis=1, keepdims=True))
    start = np.arange(0, grid.size + 1, len(taps))
    columns = (grid - taps[0]).ravel()
    shape = (length, int(columns.max()) + 1)
    return csr_array((weight.astype(np.float32).ravel(), columns, start), shape=shape)


def bell(distance: Map, width: float) -> Map:
    """`exp(-d²/2w²)`."""
    return _exp(distance * distance * np.float32(-0.5 / width**2))


def decay(distance: Map, length: float) -> Map:
    """`exp(-d/l)`, 1 where the distance is negative."""
    return _exp(np.maximum(distance, np.float32(0)) * np.float32(-1 / length))


def rough(rng: np.random.Generator, shape: tuple[int, int], amount: float, scale_px: float) -> Map:
    """A factor about 1 whose logarithm is smooth noise of sd `amount`."""
    return _exp(np.float32(amount) * smooth_noise(rng, shape, scale_px))


def _exp(value: Map) -> Map:
    return np.asarray(np.exp(value), np.float32)


def ramp(value: npt.NDArray[np.floating]) -> Map:
    """Clipped to 0..1."""
    return np.asarray(np.clip(value, 0, 1), np.float32)


def glow(value: Map, reach_px: int) -> Map:
    """A wide blur at a cost that does not grow with its reach: two box means."""
    blurred: Map = uniform_filter(uniform_filter(value, reach_px), reach_px)
    return blurred


def sprinkle(rng: np.random.Generator, rate: Map) -> Points:
    """Points of an inhomogeneous Poisson process; `rate` is the expected count a pixel (< 1)."""
    y, x = np.nonzero(rng.random(rate.shape, dtype=np.float32) < rate)
    return y.astype(np.float32), x.astype(np.float32)


def stamp(shape: tuple[int, int], points: Points, weight: npt.ArrayLike, sigma_px: float) -> Map:
    """Gaussian spots at `points`, each of height `weight` where it stands alone: `(y, x)`."""
    y, x = (np.rint(axis).astype(np.intp) for axis in points)
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    weights = np.broadcast_to(np.asarray(weight, np.float64), y.shape)[inside]
    marks = np.bincount(
        y[inside] * shape[1] + x[inside], weights=weights, minlength=shape[0] * shape[1]
    )
    spots: Map = gaussian_filter(
        marks.reshape(shape).astype(np.float32), sigma_px, truncate=3.0, mode="constant"
    )
    return spots * np.float32(2 * np.pi * sigma_px**2)


def threads(
    rng: np.random.Generator, starts: Points, angle: Map, length_px: int, bend: float
) -> tuple[Points, Index]:
    """Walks of `length_px` steps of one pixel from `starts`, turning by `bend` radians a step.

    Returns all points of all walks and, for each, the number of the walk it belongs to.
    """
    count = len(angle)
    turns = bend * rng.standard_normal((length_px, count), dtype=np.float32)
    headings = angle + np.cumsum(turns, axis=0)
    y = starts[0] + np.cumsum(np.sin(headings), axis=0)
    x = starts[1] + np.cumsum(np.cos(headings), axis=0)
    owner = np.broadcast_to(np.arange(count), (length_px, count))
    return (y.ravel(), x.ravel()), owner.ravel()
