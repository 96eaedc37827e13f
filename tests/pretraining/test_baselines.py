"""What the guard's figure is held against."""

import numpy as np

from zarrloc.pretraining.baselines import brightness_of, dealt, standardised
from zarrloc.pretraining.data import Arrays
from zarrloc.scoring.baselines import intensity_statistics


def test_brightness_is_of_the_real_pixels_in_the_order_asked_for() -> None:
    random = np.random.default_rng(0)
    images = random.integers(1, 900, (5, 2, 8, 8)).astype(np.uint16)
    extents = np.array([[8, 8], [6, 4], [8, 8], [4, 8], [8, 8]])
    source = Arrays(images, ("nucleus", "protein"), np.array([0, 1, 0, 1, 2]), extents)
    rows = np.array([1, 2, 3, 4])
    found = brightness_of(source, rows)
    for each, row in zip(found, rows, strict=True):
        height, width = extents[row]
        real = images[row, :, :height, :width]
        np.testing.assert_array_equal(each, intensity_statistics(real).ravel())


def test_labels_are_dealt_to_other_samples() -> None:
    grade = np.eye(7, dtype=np.uint8)
    other = dealt(grade, 3)
    assert (other != grade).any()
    np.testing.assert_array_equal(np.sort(other.argmax(1)), np.arange(7))
    np.testing.assert_array_equal(other, dealt(grade, 3))
    assert (dealt(grade, 4) != other).any()


def test_features_of_any_unit_count_alike() -> None:
    features = np.array([[1, 100, 5], [3, 500, 5]], np.float32)
    np.testing.assert_allclose(standardised(features), [[-1, -1, 0], [1, 1, 0]])
