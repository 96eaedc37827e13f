from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from tests.image_files import pixels, write
from zarrloc.errors import SourceError
from zarrloc.images import find, png, read
from zarrloc.images.roles import Channels

ROLES = Channels(("nucleus", "protein"))


def _write(path: Path, values: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(values))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_one_png_a_channel(dtype: str, tmp_path: Path) -> None:
    values = pixels(0, dtype=dtype)
    for colour, plane in zip(("blue", "green"), values, strict=True):
        _write(tmp_path / f"x_{colour}.png", plane)
    (one,) = find.find(tmp_path)
    assert one.channels == ("blue: nucleus", "green: protein")
    about = read.describe(one)
    assert (about.shape, about.axes, about.dtype) == ((2, 24, 32), "CYX", dtype)
    field = read.read_field(one, ROLES)
    assert field.dtype == dtype
    np.testing.assert_array_equal(field, values)


def test_rgb_has_three_channels(tmp_path: Path) -> None:
    values = pixels(0, (24, 32, 3), "uint8")
    path = _write(tmp_path / "a.png", values)
    about = png.header(path)
    assert (about.shape, about.axes) == ((24, 32, 3), "YXC")
    for file in (path, path.read_bytes()):
        np.testing.assert_array_equal(png.read(file).pixels, values)


def test_pictures_beside_images_are_no_images(tmp_path: Path) -> None:
    _write(tmp_path / "plot.png", pixels(0)[0])
    assert [one.fov for one in find.find(tmp_path)] == ["plot"]
    write(tmp_path / "a.tif", pixels(0))
    assert [one.fov for one in find.find(tmp_path)] == ["a"]
    assert [one.fov for one in find.find(f"{tmp_path}/*.png")] == ["plot"]


def test_damage_is_an_error(tmp_path: Path) -> None:
    good = imagecodecs.png_encode(pixels(0)[0])
    alpha = imagecodecs.png_encode(np.zeros((4, 4, 4), np.uint8))
    for content, words in (
        (b"", "is empty"),
        (b"II*\0" * 20, "is not a PNG"),
        (good[:100], "is truncated or damaged"),
        (alpha, "colour type 6, expected 8 or 16 bits, grey or RGB"),
    ):
        with pytest.raises(SourceError, match=words):
            png.read(content)
    with pytest.raises(SourceError, match="cannot be opened"):
        png.header(tmp_path / "absent.png")
    huge = bytearray(good)
    huge[16:24] = b"\x7f\xff\xff\xff" * 2
    with pytest.raises(SourceError, match="declares 9,223,"):
        png.read(bytes(huge))

    def check(about: Any) -> None:
        raise SourceError(f"is {about.size('Y')} px high")

    with pytest.raises(SourceError, match="is 24 px high"):
        png.read(good, check=check)
