"""Random fields and marks on a pixel grid: smooth noise, points by rate, blurred spots, threads."""

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.ndimage import gaussian_filter

Map = npt.NDArray[np.float32]
Points = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale_px: float) -> Map:
    """Gaussian noise of mean 0, sd 1 and a Gaussian correlation of `scale_px`: `(y, x)` float32."""
    height, width = (scipy.fft.next_fast_len(n + int(3 * scale_px), real=True) for n in shape)
    spectrum = scipy.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    gain = np.exp(-2 * (np.pi * scale_px) ** 2 * fy**2) * np.exp(
        -2 * (np.pi * scale_px) ** 2 * fx**2
    )
    noise = scipy.fft.irfft2(spectrum * gain.astype(np.float32), s=(height, width))
    unit = np.float32(np.sqrt(np.mean(gain**2)))  # the expected sd, so small fields keep theirs
    return np.asarray(noise[: shape[0], : shape[1]] / unit, np.float32)


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
    rng: np.random.Generator,
    starts: Points,
    angle: npt.NDArray[np.float32],
    length_px: int,
    bend: float,
) -> tuple[Points, npt.NDArray[np.intp]]:
    """Walks of `length_px` steps of one pixel from `starts`, turning by `bend` radians a step.

    Returns all points of all walks and, for each, the number of the walk it belongs to.
    """
    count = len(angle)
    turns = rng.normal(0, bend, (length_px, count)).astype(np.float32)
    headings = angle[None] + np.cumsum(turns, axis=0)
    y = starts[0][None] + np.cumsum(np.sin(headings), axis=0)
    x = starts[1][None] + np.cumsum(np.cos(headings), axis=0)
    owner = np.broadcast_to(np.arange(count), (length_px, count))
    return (y.ravel(), x.ravel()), owner.ravel()
