"""From what is there to what the camera counts: focus, z-slices, noise, maximum."""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from zarrloc.simulate.fields import Map, glow

SLICES = 8
_SKEW = 1.3  # of one slice's noise: an electron-multiplying camera's register


def expose(
    rng: np.random.Generator,
    density: Map,
    depth: Map,
    *,
    focus_px: float,
    haze: float,
    offset: float,
    read_noise: float,
    gain: float,
) -> npt.NDArray[np.uint16]:
    """Counts of a maximum projection, `(y, x)` uint16.

    `density` is the signal in counts when in focus, `depth` its height from 0 to 1; `haze` is the
    share of it that is seen blurred in every slice. Each slice gets its own shot noise (variance
    `gain` times the signal) and read noise before the maximum is taken.
    """
    sharp = np.asarray(gaussian_filter(density, focus_px, truncate=3.0), np.float32)
    blurred = np.float32(haze) * glow(density, 25)
    height = depth * np.float32(SLICES - 1)
    projection = np.zeros(density.shape, np.float32)
    for number in range(SLICES):
        in_focus = np.float32(1.35) - np.float32(0.35) * np.abs(height - np.float32(number))
        signal = sharp * np.clip(in_focus, np.float32(0), np.float32(1)) + blurred
        normal = rng.standard_normal(density.shape, dtype=np.float32)
        noise = normal + np.float32(_SKEW / 6) * (normal * normal - 1)
        noise *= np.sqrt(np.float32(read_noise**2) + np.float32(gain) * signal)
        np.maximum(projection, signal + noise, out=projection)
    return np.clip(np.rint(projection + np.float32(offset)), 0, 65535).astype(np.uint16)
