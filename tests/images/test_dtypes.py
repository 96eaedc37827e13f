from typing import Any

import numpy as np
import pytest

from zarrloc.errors import SourceError
from zarrloc.images.dtypes import STORED, check, convert


@pytest.mark.parametrize("dtype", list(STORED))
def test_values_that_fit_are_kept(dtype: str) -> None:
    pixels = np.array([[0, 1, 7], [100, 127, 3]], dtype)
    check(dtype)
    made = convert(pixels, STORED[dtype])
    assert made.dtype == STORED[dtype]
    np.testing.assert_array_equal(made, pixels)


@pytest.mark.parametrize(
    ("values", "dtype", "stored", "words", "clipped"),
    [
        ([-5, 3], "int16", "uint16", r"1 pixels \(from -5 to -5\) that uint16.*--dtype float32", 0),
        ([70_000, 3], "uint32", "uint16", r"70000.*--dtype float32 keeps them, --lossy", 65_535),
        ([0.1, 3], "float64", "float32", r"float32 cannot hold exactly; --lossy", np.float32(0.1)),
        ([2**31 - 1, 3], "int32", "float32", "cannot hold exactly", 2**31),
        ([0.5, 3], "float32", "uint8", "cannot hold exactly", 0),
        ([300.0, 3], "float32", "uint8", "cannot hold exactly", 255),
    ],
)
def test_values_that_do_not_fit_are_refused_or_clipped(
    values: list[float], dtype: str, stored: str, words: str, clipped: Any
) -> None:
    pixels = np.array(values, dtype)
    with pytest.raises(SourceError, match=words):
        convert(pixels, stored)
    made = convert(pixels, stored, lossy=True)
    np.testing.assert_array_equal(made, np.array([clipped, 3], stored))


def test_what_is_no_image() -> None:
    with pytest.raises(SourceError, match="has dtype complex128, expected one of uint8"):
        check(complex)
