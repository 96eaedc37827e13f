from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from zarrloc.pixels.project import project


def _stack(sharp: int, seed: int = 0, noise: float = 5) -> Any:
    """Three blurred planes and one sharp one `(z, channel, y, x)` of spots, with camera noise."""
    rng = np.random.default_rng(seed)
    spots = np.zeros((2, 64, 64))
    spots[:, rng.integers(5, 59, 30), rng.integers(5, 59, 30)] = 40_000
    planes = [gaussian_filter(spots, (0, s, s)) for s in (2 if z == sharp else 6 for z in range(4))]
    return (500 + np.stack(planes) + rng.normal(0, noise, (4, 2, 64, 64))).astype(np.uint16)


@pytest.mark.parametrize("sharp", range(4))
def test_focus_is_the_sharpest_plane_of_all_channels(sharp: int) -> None:
    stack = _stack(sharp, seed=sharp)
    np.testing.assert_array_equal(project(stack, "focus"), stack[sharp])


def test_an_empty_channel_has_no_say() -> None:
    stack = _stack(2)
    stack[:, 1] = 500
    np.testing.assert_array_equal(project(stack, "focus"), stack[2])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_max_and_mean_keep_the_dtype(dtype: str) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (3, 2, 8, 8)).astype(dtype)
    for how, plain in (("max", stack.max(0)), ("mean", stack.astype(float).mean(0))):
        found = project(stack, how)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, plain, atol=0.5 if dtype != "float32" else 1e-4)
