"""The rows of an embedding that a block hands back."""

from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.engine.block import Output


def embedded(
    features: npt.NDArray[np.float32],
    largest: npt.NDArray[np.float32],
    error: npt.NDArray[Any],
    left_out: npt.NDArray[np.bool_],
) -> Output:
    """A block's rows; one that is not finite gets an error, one `left_out` is NaN."""
    broken = ~left_out & ~np.isfinite(features).all(1)
    error[broken] = "its embedding is not finite; try --precision fp32"
    without = broken | left_out
    features[without], largest[without] = np.nan, 0
    return Output(features, {"error": error, "largest_input": largest})
