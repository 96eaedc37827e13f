"""Regions of steep outline: edges of any height, on any background, and none in noise."""

import numpy as np
import pytest
from skimage.draw import disk

from zarrloc.segmenters.outlines import View, levelled, noise_sd, steep_regions, without_hot_pixels

SHAPE = (160, 200)


def noisy(image: np.ndarray, sd: float = 10) -> np.ndarray:
    return (image + np.random.default_rng(0).normal(0, sd, image.shape)).astype(np.float32)


def seen(image: np.ndarray) -> View:
    return View.of(image, noise_sd(image), 1.5)


def discs(*where: tuple[int, int, int, float]) -> np.ndarray:
    image = np.zeros(SHAPE)
    for y, x, radius, height in where:
        image[disk((y, x), radius, shape=SHAPE)] += height
    return image


@pytest.mark.parametrize("sd", [3.0, 80.0])
def test_the_noise_is_measured_beside_slopes_and_objects(sd: float) -> None:
    slope = np.linspace(0, 4000, SHAPE[1])[None]
    image = noisy(1000 + slope + discs((50, 50, 20, 900), (110, 140, 25, 3000)), sd)
    assert np.median(noise_sd(image)) == pytest.approx(sd, rel=0.05)


def test_noise_of_few_grey_levels_is_not_none() -> None:
    few = np.float32(np.random.default_rng(0).random(SHAPE) < 0.02)
    assert np.median(noise_sd(few)) == pytest.approx(few.std(), rel=0.6)
    assert (noise_sd(np.zeros(SHAPE, np.float32)) > 0).all()
    assert noise_sd(np.zeros((1, 3), np.float32)).shape == (1, 3)


def test_where_there_is_more_light_there_is_more_noise() -> None:
    light = np.linspace(400, 2500, SHAPE[1])[None] + np.zeros(SHAPE)
    noise = noise_sd(np.random.default_rng(0).poisson(light).astype(np.float32))
    np.testing.assert_allclose(noise, np.sqrt(light), rtol=0.35)


def test_one_hot_pixel_goes_and_a_spot_stays() -> None:
    image = noisy(discs((100, 100, 2, 500)))
    hot = image.copy()
    hot[30, 40] = 9000
    sd = np.full(SHAPE, 10, np.float32)
    np.testing.assert_array_equal(without_hot_pixels(image, sd), image)
    assert without_hot_pixels(hot, sd)[30, 40] < 100


def test_noise_and_slopes_have_no_edges() -> None:
    for image in (np.zeros(SHAPE), np.linspace(0, 3000, SHAPE[1])[None] + np.zeros(SHAPE)):
        assert not steep_regions(seen(noisy(image))).any()


def test_each_object_is_cut_at_half_its_own_height() -> None:
    slope = np.linspace(0, 800, SHAPE[1])[None]
    where = ((40, 40, 20, 200.0), (40, 140, 20, 2500.0), (120, 100, 12, 900.0))
    found = steep_regions(seen(levelled(noisy(slope + discs(*where)))))
    true = discs(*where) > 0
    assert (found & true).sum() / (found | true).sum() > 0.92


def test_what_is_taken_is_left_alone_and_its_neighbour_found() -> None:
    bright, dim = disk((80, 70), 24), disk((80, 112), 20)
    image = np.zeros(SHAPE)
    image[dim], image[bright] = 300, 3000
    view = seen(noisy(image))
    first = steep_regions(view)
    assert first[80, 70]
    assert not first[80, 122]
    taken = np.zeros(SHAPE, bool)
    taken[disk((80, 70), 28)] = True
    more = steep_regions(view, taken=taken)
    assert more[80, 115]
    assert not (more & taken).any()


def test_a_slope_is_taken_off_whatever_lies_on_it() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    flat = noisy(discs((50, 50, 20, 900), (110, 140, 25, 3000)))
    found = levelled((flat + 6 * x - 3 * y).astype(np.float32))
    np.testing.assert_allclose(found - found.mean(), flat - flat.mean(), atol=20)
    assert levelled(flat[:3, :3]) is not None
