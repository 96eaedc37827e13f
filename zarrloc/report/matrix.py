"""Square tables of labels, as rows of cells for the page: confusion and co-occurrence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zarrloc.report.tallies import Confusion


class Cell(NamedTuple):
    """One cell: what it says, what it says in full, and its shade from 0 to 1."""

    text: str
    title: str
    shade: float
    note: str = ""


class Matrix(NamedTuple):
    """A square table: `rows` holds each label, how many rows it has, and its cells."""

    labels: tuple[str, ...]
    rows: list[tuple[str, str, list[Cell]]]


def share_matrix(found: Confusion, labels: Sequence[str]) -> Matrix:
    """Shares in per cent with their counts; empty where there is nothing."""
    rows = []
    for label, total, counts in zip(labels, found.rows, found.counts, strict=True):
        cells = []
        for called, count in zip(labels, counts, strict=True):
            share = count / total if total else 0.0
            title = f"{label}, called {called}: {count:,} of {total:,} ({100 * share:.1f} %)"
            cells.append(Cell(_percent(share), title, share, f"{count:,}" if count else ""))
        rows.append((label, f"{total:,}", cells))
    return Matrix(tuple(labels), rows)


def count_matrix(counts: npt.NDArray[np.int64], labels: Sequence[str], unit: str) -> Matrix:
    """Counts, shaded by their share of the row's diagonal."""
    rows = []
    for index, label in enumerate(labels):
        own = int(counts[index, index])
        cells = []
        for other, count in zip(labels, counts[index].tolist(), strict=True):
            both = label if other == label else f"{label} and {other}"
            cells.append(
                Cell(
                    f"{count:,}" if count else "", f"{both}: {count:,} {unit}", count / max(own, 1)
                )
            )
        rows.append((label, f"{own:,}", cells))
    return Matrix(tuple(labels), rows)


def _percent(share: float) -> str:
    if share == 0:
        return ""
    return "<1" if share < 0.005 else f"{100 * share:.0f}"
