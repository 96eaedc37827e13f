import numpy as np
import pytest
from scipy import ndimage

from zarrloc.pixels.quality import noise_sd, quality, robust_z


def scene(sharp: float, noise: float, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Random blobs of sd `sharp` px on a level field, with white noise."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=(256, 256)), sharp)
    return 2000 + 400 * blobs / blobs.std() + noise * rng.normal(size=blobs.shape)


@pytest.mark.parametrize("noise", [5.0, 20.0, 80.0])
def test_noise_is_measured_beside_structure(noise: float) -> None:
    assert noise_sd(scene(4, noise).astype(np.float32)) == pytest.approx(noise, rel=0.1)


def test_focus_falls_with_blur_and_not_with_noise() -> None:
    focus = [quality(scene(sharp, 20)).focus for sharp in (1.5, 3, 6)]
    assert focus == sorted(focus, reverse=True)
    assert focus[0] > 5 * focus[2]
    quiet, noisy = quality(scene(3, 5)).focus, quality(scene(3, 60)).focus
    assert noisy == pytest.approx(quiet, rel=0.15)


def test_noise_alone_is_empty_and_structure_is_not() -> None:
    rng = np.random.default_rng(0)
    assert quality(rng.poisson(500, (128, 128))).empty
    assert quality(np.full((64, 64), 7)).empty
    assert not quality(scene(4, 20)).empty


def test_saturation_is_the_share_at_the_largest_value() -> None:
    image = np.minimum(scene(4, 20), 2500).astype(np.uint16)
    found = quality(image)
    assert found.largest == 2500
    assert found.at_largest == pytest.approx((image == 2500).mean())


def test_robust_z_is_not_moved_by_the_outlier() -> None:
    values = np.r_[np.random.default_rng(0).normal(10, 2, 2000), 100.0]
    z = robust_z(values)
    assert z[-1] == pytest.approx((100 - 10) / 2, rel=0.1)
    assert np.abs(z[:-1]).max() < 5
    assert robust_z(np.full(5, 3.0)).tolist() == [0.0] * 5
    assert np.isnan(robust_z(np.full(3, np.nan))).all()
