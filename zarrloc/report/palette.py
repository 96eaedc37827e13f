"""Which colour and shape says what, on the page and in papers' figures.

Six colours of Okabe and Ito (2008, "Color Universal Design"), which people with any colour vision
tell apart on white; black is text, and their yellow is too faint here. From the seventh label on
the shape differs instead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
SHAPES = ("circle", "square", "triangle", "diamond")
MOST_MARKS = len(COLOURS) * len(SHAPES)
DASHES = {"circle": "solid", "square": "dashed", "triangle": "dotted", "diamond": "dotdash"}
"""What a line has instead of a shape."""
SEVERAL = "#a4abb3"
NONE = "#d3d8dd"
ACCENT = "#0b6e6e"
SECOND = "#d98c1f"
THIRD = "#7a6fb0"
INK = "#1d2733"
FAINT = "#5c6773"
RULE = "#e3e7eb"


def neighbour_ways(ways: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A title and a colour for each way of leaving neighbours out, the strictest first.

    Only that is free of siblings that share the answer.
    """
    fixed = {"fov": ("other fields only", THIRD), "none": ("all neighbours", SECOND)}
    free = [way for way in ways if way not in fixed]
    colours = [ACCENT, INK, *COLOURS][: len(free)]
    named = {w: (f"other {w}s only", colour) for w, colour in zip(free, colours, strict=True)}
    return named | {way: fixed[way] for way in fixed if way in ways}


class Mark(NamedTuple):
    """How a group is drawn."""

    colour: str
    shape: str = "circle"


class Group(NamedTuple):
    """Rows that share a mark."""

    name: str
    mark: Mark
    rows: npt.NDArray[np.int64]


def marks(count: int) -> list[Mark]:
    """One mark a label; after twenty-four they come round again."""
    return [
        Mark(COLOURS[index % len(COLOURS)], SHAPES[index // len(COLOURS) % len(SHAPES)])
        for index in range(count)
    ]


def by_single_label(positive: npt.NDArray[np.bool_], labels: Sequence[str]) -> list[Group]:
    """Rows of bool `(n, label)` with one label under its mark, the others grey (paper, Figure 5).

    In the order of drawing: grey first, then the labels from the last to the first.
    """
    count = positive.sum(axis=1)
    single = [
        Group(label, mark, np.flatnonzero((count == 1) & positive[:, index]))
        for index, (label, mark) in enumerate(zip(labels, marks(len(labels)), strict=True))
    ]
    grey = [
        Group("no label", Mark(NONE), np.flatnonzero(count == 0)),
        Group("several labels", Mark(SEVERAL), np.flatnonzero(count > 1)),
    ]
    return [group for group in [*grey, *single[::-1]] if len(group.rows)]


def by_value(values: npt.NDArray[np.str_]) -> list[Group]:
    """Rows of one text each, such as their plate, in the order of drawing; nothing is grey."""
    names, code = np.unique(values, return_inverse=True)
    found = [
        Group(str(name) or "not named", mark, np.flatnonzero(code == index))
        for index, (name, mark) in enumerate(zip(names, marks(len(names)), strict=True))
    ]
    return found[::-1]
