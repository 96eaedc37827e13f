"""From a stack of z planes to one plane."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_laplace

BLUR_PX = 1.5
"""Structures finer than this are mostly noise, which is as sharp in every plane."""


def project(stack: npt.NDArray[Any], how: str) -> npt.NDArray[Any]:
    """One plane of a stack, all channels at once.

    Parameters
    ----------
    stack
        `(z, channel, y, x)`, any real dtype.
    how
        `max` and `mean` over z, whole numbers rounded; `focus` is the plane that is sharpest, the
        same for all channels.

    Returns
    -------
    ndarray
        `(channel, y, x)`, dtype of the stack.

    Examples
    --------
    >>> project(np.array([[[[1]]], [[[4]]]], np.uint16), "mean")
    array([[[2]]], dtype=uint16)
    """
    plane: npt.NDArray[Any] = PROJECTIONS[how](stack)
    return plane


def _mean(stack: npt.NDArray[Any]) -> Any:
    mean = stack.mean(axis=0, dtype=np.float64)
    return (np.rint(mean) if stack.dtype.kind in "iu" else mean).astype(stack.dtype)


def _focus(stack: npt.NDArray[Any]) -> Any:
    return stack[int(np.argmax(sharpness(stack).sum(axis=1)))]


def sharpness(stack: npt.NDArray[Any]) -> Any:
    """How sharp each plane `(z, channel)` is, beside the sharpest of its channel: 0 to 1."""
    edges = np.array(
        [[_edges(plane).var(dtype=np.float64) for plane in planes] for planes in stack]
    )
    most = edges.max(axis=0)
    return np.divide(edges, most, out=np.zeros_like(edges), where=most > 0)


def _edges(plane: npt.NDArray[Any]) -> Any:
    return gaussian_laplace(plane.astype(np.float32), BLUR_PX)


PROJECTIONS: dict[str, Callable[[npt.NDArray[Any]], Any]] = {
    "max": lambda stack: stack.max(axis=0),
    "mean": _mean,
    "focus": _focus,
}
