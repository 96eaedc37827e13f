"""From what is there to what the camera counts: focus, z-slices, noise, maximum."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from zarrloc.simulate.textures import Map, glow

SLICES = 8
_DARK = 350.0  # counts of the camera alone; what the medium adds brings noise
_NOISE = 0.17  # sd of the projected noise for each count of medium, as in the real fields
# Mean and sd of the maximum of SLICES standard normal values.
_MAX_MEAN, _MAX_SD = 1.4236, 0.6107


def expose(
    rng: np.random.Generator,
    density: Map,
    depth: Map,
    *,
    focus_px: float,
    haze: float,
    background: float,
    gain: float,
) -> npt.NDArray[np.uint16]:
    """Counts of a maximum projection, `(y, x)` uint16.

    `density` is the signal in counts when in focus, `depth` its height from 0 to 1; `haze` is the
    share of it that is seen blurred in every slice; `background` is what a cell-free pixel shows.
    Each slice gets its own shot noise (variance `gain` times the signal) and read noise, skewed as
    an electron-multiplying register skews it, before the maximum is taken.
    """
    skew = rng.uniform(1.2, 4.6)
    wanted = _NOISE * (background - _DARK) * rng.lognormal(0, 0.12)
    read_noise = wanted / (_MAX_SD * (1 + skew / 3 * _MAX_MEAN))
    lifted = read_noise * (_MAX_MEAN + skew / 6 * (_MAX_MEAN**2 + _MAX_SD**2 - 1))

    sharp = np.asarray(gaussian_filter(density, focus_px, truncate=3.0), np.float32)
    blurred = np.float32(haze) * glow(density, 25)
    height = depth * np.float32(SLICES - 1)
    projection = np.zeros(density.shape, np.float32)
    for number in range(SLICES):
        in_focus = np.float32(1.35) - np.float32(0.35) * np.abs(height - np.float32(number))
        signal = sharp * np.clip(in_focus, np.float32(0), np.float32(1)) + blurred
        normal = rng.standard_normal(density.shape, dtype=np.float32)
        noise = normal + np.float32(skew / 6) * (normal * normal - 1)
        noise *= np.sqrt(np.float32(read_noise**2) + np.float32(gain) * signal)
        np.maximum(projection, signal + noise, out=projection)
    counts = np.rint(projection + np.float32(background - lifted))
    return np.asarray(np.clip(counts, 0, 65535), np.uint16)
