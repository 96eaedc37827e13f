"""What `map.js` draws: the points of an embedding, packed, with their names and colourings."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zarrloc.config.report import ReportConfig
from zarrloc.report.gather import Contents
from zarrloc.report.palette import MOST_MARKS, Group, by_single_label, by_value
from zarrloc.report.pictures import make_sheets
from zarrloc.store.location import Location

STEPS = 65535
"""Places along the longer side of the map: more than any screen has pixels."""


class EmbeddingMap(NamedTuple):
    """The map's data, ready for JSON, and its sheets of pictures as data URLs."""

    data: dict[str, Any]
    sheets: list[str]


def embedding_map(location: Location, contents: Contents, config: ReportConfig) -> EmbeddingMap:
    """The rows that have an embedding, at their `contents.points`."""
    samples, truth, calls = contents.samples, contents.truth, contents.calls
    assert samples is not None
    assert truth is not None
    assert contents.points is not None
    rows = np.flatnonzero(samples.finite)
    pictures = make_sheets(location, samples, rows, int(config.pictures_mb * 1e6))
    named = {
        "protein": samples.protein[rows],
        "field": samples.fov[rows],
        "reference": joined(truth.positive[rows], samples.labels),
    }
    if calls is not None:
        named["predicted"] = joined(calls.called[rows], calls.labels)
    coords = {name: values[rows] for name, values in contents.coords.items()}
    learned = samples.target or "reference label"
    colourings = {learned: by_single_label(truth.positive[rows], samples.labels)}
    colourings |= {
        name: by_value(values)
        for name, values in coords.items()
        if name != samples.target and 2 <= len(np.unique(values)) <= MOST_MARKS
    }
    data = {
        "level": samples.level,
        "count": len(rows),
        "points": packed(placed(contents.points)),
        "row": packed(rows.astype(np.uint32)),
        "tile": packed(pictures.tile),
        "columns": {name: coded(values) for name, values in (named | coords).items()},
        "colourings": [
            {"name": name, **grouped(groups, len(rows))} for name, groups in colourings.items()
        ],
    }
    return EmbeddingMap(data, pictures.urls)


def placed(points: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Points `(n, 2)` in whole steps, one scale for both axes, y downwards as on a screen."""
    low, high = points.min(axis=0), points.max(axis=0)
    step = max(float((high - low).max()), 1e-12) / STEPS
    x, y = points[:, 0] - low[0], high[1] - points[:, 1]
    return np.asarray(np.stack([x, y], axis=1) / step).round().astype(np.uint16)


def packed(values: npt.NDArray[Any]) -> dict[str, str]:
    """Integers as base64 of their little-endian bytes, with the name of their type."""
    little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))
    return {"type": values.dtype.name, "bytes": base64.b64encode(little.tobytes()).decode()}


def coded(texts: npt.NDArray[np.str_]) -> dict[str, Any]:
    """A column of text as a table and one code a row."""
    table, code = np.unique(texts, return_inverse=True)
    return {"table": table.tolist(), "code": packed(_narrow(code, len(table)))}


def grouped(groups: Sequence[Group], count: int) -> dict[str, Any]:
    """Groups in their order of drawing, and the group of each of `count` rows."""
    code = np.zeros(count, np.uint8)
    for index, group in enumerate(groups):
        code[group.rows] = index
    listed: list[Mapping[str, Any]] = [
        {"name": group.name, **group.mark._asdict(), "count": len(group.rows)} for group in groups
    ]
    return {"groups": listed, "code": packed(code)}


def joined(marked: npt.NDArray[np.bool_], labels: Sequence[str]) -> npt.NDArray[np.str_]:
    """The labels of each row of bool `(n, label)` as one text; `none` where there is none."""
    kinds, code = np.unique(marked, axis=0, return_inverse=True)
    texts = [
        ", ".join(label for label, yes in zip(labels, kind, strict=True) if yes) or "none"
        for kind in kinds
    ]
    return np.array(texts, dtype=np.str_)[code.ravel()]


def _narrow(code: npt.NDArray[np.integer[Any]], kinds: int) -> npt.NDArray[Any]:
    return code.astype(np.min_scalar_type(max(kinds - 1, 0)))
