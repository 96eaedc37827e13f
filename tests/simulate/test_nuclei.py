"""Simulated fields of nuclei: what they are asked to hold, they hold."""

from dataclasses import replace

import numpy as np
import pytest

from zarrloc.simulate import SCENES, Nuclei, simulate_nuclei

SMALL = Nuclei(shape=(256, 200), count=12, diameter_px=24, touching=0)


def test_nuclei_are_where_the_truth_says() -> None:
    image, masks = simulate_nuclei(SMALL, seed=3)
    assert (image.dtype, masks.dtype) == (np.uint16, np.uint16)
    assert image.shape == masks.shape == SMALL.shape
    areas = np.bincount(masks.ravel())[1:]
    assert len(areas) == 12
    assert np.pi * 8**2 < np.median(areas) < np.pi * 14**2
    inside, outside = image[masks > 0].mean(), np.median(image[masks == 0])
    assert outside == pytest.approx(SMALL.background, rel=0.3)
    assert 0.6 * SMALL.signal < inside - outside < 1.4 * SMALL.signal


def test_the_seed_decides_everything() -> None:
    (one, truth), (again, _), (other, _) = (simulate_nuclei(SMALL, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert truth.any()


def test_how_a_field_was_taken_leaves_its_truth() -> None:
    plain, truth = simulate_nuclei(SMALL)
    for change in ({"slope": 900.0}, {"cloud": 800.0}, {"vignette": 0.6}, {"blur_px": 4.0}):
        image, same = simulate_nuclei(replace(SMALL, **change))
        np.testing.assert_array_equal(same, truth)
        assert (image != plain).mean() > 0.3
    assert simulate_nuclei(replace(SMALL, levels=16))[0].max() == 15


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_every_scene_has_a_truth(scene: Nuclei) -> None:
    smaller = replace(scene, shape=(160, 160), count=min(scene.count, 3), touching=0)
    image, masks = simulate_nuclei(smaller)
    assert np.isfinite(image).all()
    assert (masks.max() > 0) == (scene.count > 0)
