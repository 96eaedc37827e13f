"""The window around a cell: 53 um at any pixel size, 256 px where that is not known."""

import pytest

from zarrloc.errors import ConfigError
from zarrloc.pixels.window import window_px


@pytest.mark.parametrize(
    ("crop_um", "pixel_size_um", "expected"),
    [
        (None, 0.2063, 256),
        (None, 0.206, 258),
        (None, 0.1, 530),
        (None, 0.65, 82),
        (None, None, 256),
        (20.0, 0.65, 30),
    ],
)
def test_the_window_follows_from_the_pixel_size(
    crop_um: float | None, pixel_size_um: float | None, expected: int
) -> None:
    assert window_px(crop_um, pixel_size_um) == expected


@pytest.mark.parametrize("pixel_size_um", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_pixel_size_that_is_none_is_refused(pixel_size_um: float) -> None:
    with pytest.raises(ConfigError, match="--pixel-size-um"):
        window_px(53, pixel_size_um)


@pytest.mark.parametrize(
    ("crop_um", "pixel_size_um", "why"),
    [
        (53.0, None, "no pixel size.*annotate STORE --pixel-size-um"),
        (0.1, 0.2063, "under two pixels"),
        (-3.0, 0.2063, "expected a positive number"),
        (float("nan"), 0.2063, "expected a positive number"),
    ],
)
def test_a_side_that_cannot_be_had_is_refused(
    crop_um: float, pixel_size_um: float | None, why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        window_px(crop_um, pixel_size_um)
    assert set(caught.value.problems) == {"crop_um"}
