"""Which colour says what, on the page and in papers' figures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Eighteen colours that stay apart on white, in the order of the labels.
PALETTE = (
    "#1f77b4", "#e6550d", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf",
    "#bcbd22", "#393b79", "#fdae4b", "#74c476", "#ff6f91", "#6b4ea0", "#006d5b", "#b5651d",
    "#4ba3c7", "#7f0000",
)  # fmt: skip
SEVERAL = "#b4bac1"
NONE = "#dfe3e7"
ACCENT = "#0b6e6e"
SECOND = "#d98c1f"
THIRD = "#7a6fb0"
INK = "#1d2733"
FAINT = "#6b7683"
RULE = "#e3e7eb"

# Only the first way is free of siblings that share the answer.
NEIGHBOURS = {
    "protein": ("other proteins only", ACCENT),
    "fov": ("other fields only", THIRD),
    "none": ("all neighbours", SECOND),
}


class Group(NamedTuple):
    """Rows that share a colour."""

    name: str
    colour: str
    rows: npt.NDArray[np.int64]


def colours(count: int) -> list[str]:
    """One colour a label; after eighteen they come round again."""
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def by_single_label(positive: npt.NDArray[np.bool_], labels: Sequence[str]) -> list[Group]:
    """Rows of bool `(n, label)` with one label in its colour, the others grey (paper, Figure 5).

    In the order of drawing: grey first, then the labels from the last to the first.
    """
    count = positive.sum(axis=1)
    single = [
        Group(label, colour, np.flatnonzero((count == 1) & positive[:, index]))
        for index, (label, colour) in enumerate(zip(labels, colours(len(labels)), strict=True))
    ]
    grey = [
        Group("no label", NONE, np.flatnonzero(count == 0)),
        Group("several labels", SEVERAL, np.flatnonzero(count > 1)),
    ]
    return [group for group in [*grey, *single[::-1]] if len(group.rows)]
