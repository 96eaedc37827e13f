"""Which number types images have, which a store has, and the way from one to the other."""

from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import SourceError

STORED = {
    "uint8": "uint8",
    "int8": "uint8",
    "uint16": "uint16",
    "int16": "uint16",
    "uint32": "uint16",
    "int32": "uint16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
}
"""What a file's dtype is stored as. Intensities are seldom negative, and counts seldom above
65,535, whatever type a program wrote them in."""


def check(dtype: npt.DTypeLike) -> None:
    """Raise SourceError for a dtype that no image has, such as complex numbers."""
    name = np.dtype(dtype).name
    if name not in STORED:
        raise SourceError(f"has dtype {name}, expected one of {', '.join(STORED)}")


def convert(pixels: npt.NDArray[Any], dtype: str, *, lossy: bool = False) -> npt.NDArray[Any]:
    """The same values in another dtype.

    Parameters
    ----------
    pixels
        Any shape; one of the dtypes of `STORED`.
    dtype
        `uint8`, `uint16` or `float32`.
    lossy
        Round and clip what the dtype cannot hold.

    Returns
    -------
    ndarray
        `pixels` itself where the dtype is the same.

    Raises
    ------
    SourceError
        Where values do not fit, with what would be lost.

    Examples
    --------
    >>> convert(np.array([0, 65535], np.uint32), "uint16")
    array([    0, 65535], dtype=uint16)
    """
    if pixels.dtype == dtype:
        return pixels
    wanted = np.dtype(dtype)
    made: npt.NDArray[Any] = _clipped(pixels, wanted).astype(wanted)
    if lossy:
        return made
    wrong = made != pixels
    if wrong.any():
        odd = pixels[wrong]
        advice = "--lossy rounds and clips them"
        if wanted.kind == "u" and _fits_float(odd):
            advice = f"--dtype float32 keeps them, {advice}"
        raise SourceError(
            f"has dtype {pixels.dtype.name} and {len(odd):,} pixels (from {odd.min():g} to "
            f"{odd.max():g}) that {dtype} cannot hold exactly; {advice}"
        )
    return made


def _clipped(pixels: npt.NDArray[Any], wanted: np.dtype[Any]) -> Any:
    """The values as near as the dtype holds them."""
    if wanted.kind == "f":
        return pixels
    whole = np.rint(pixels) if pixels.dtype.kind == "f" else pixels
    own = np.finfo(pixels.dtype) if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype)
    most = np.iinfo(wanted).max
    return whole.clip(0, min(most, own.max))


def _fits_float(values: npt.NDArray[Any]) -> bool:
    return bool((values.astype(np.float32) == values).all())
