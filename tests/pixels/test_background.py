from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from zarrloc.pixels import background

# Of the six public samples, outside their cells: (Hoechst, protein), each with its noise's
# standard deviation.
BY_HAND = {
    "AAMP": ((823, 113), (1181, 139)),
    "AATF": ((717, 64), (748, 67)),
    "ABCE1": ((728, 70), (885, 87)),
    "ABR": ((702, 65), (981, 94)),
    "ACTB": ((588, 40), (563, 36)),
    "ACTN1": ((672, 60), (949, 90)),
}


def test_real_fields_agree_with_the_measurement_by_hand(shared: Callable[..., Path]) -> None:
    for path in shared("opencell").glob("*.tif"):
        expected = np.array(BY_HAND[path.name.split("_")[1]])
        level = background.measure(tifffile.imread(path))
        assert (np.abs(level - expected[:, 0]) < 0.25 * expected[:, 1]).all(), path.name


@pytest.mark.parametrize("cover", [0.0, 0.5, 0.9])
def test_the_camera_offset_is_found_under_crowded_cells(cover: float) -> None:
    rng = np.random.default_rng(0)
    field = rng.normal(500, 40, (2, 256, 256))
    field[:, : int(cover * 256)] += rng.gamma(2, 1500, (2, int(cover * 256), 256))
    level = background.measure(field.clip(0, 65535).astype(np.uint16))
    assert level.dtype == np.float32
    np.testing.assert_allclose(level, 500, atol=20)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_channels_are_measured_apart_in_their_own_units(dtype: str) -> None:
    field = np.stack([np.full((64, 64), 3), np.full((64, 64), 200)]).astype(dtype)
    assert background.measure(field).tolist() == [3, 200]


def test_padding_does_not_count() -> None:
    field = np.random.default_rng(0).poisson(700, (2, 100, 90)).astype(np.uint16)
    padded = np.pad(field, ((0, 0), (0, 60), (0, 30)))
    np.testing.assert_array_equal(background.measure(padded), background.measure(field))


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 1), (2, 9, 200)])
def test_small_fields_have_a_background_too(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(background.measure(np.full(shape, 7, np.uint16)), 7)


def test_a_black_field_has_none() -> None:
    assert background.measure(np.zeros((2, 64, 64), np.uint16)).tolist() == [0, 0]
