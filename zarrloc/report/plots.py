"""Which figures a store's contents give, and what their hover script looks up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.report import ReportConfig
from zarrloc.report import figures
from zarrloc.report.gather import Contents
from zarrloc.report.matrix import matrix_figure
from zarrloc.report.palette import by_single_label, colours
from zarrloc.report.pictures import make_sheets
from zarrloc.report.tallies import confusion, cooccurrence, roc_curves
from zarrloc.store.location import Location


def make_plots(
    location: Location, contents: Contents, config: ReportConfig
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Bokeh figures by name, the hover script's tables, and its sheets of pictures as data URLs."""
    models: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    sheets: list[str] = []
    if contents.points is not None:
        models["map"], tables, sheets = _map(location, contents, config)
    if contents.scores is not None:
        if any(row["f1"] is not None for row in contents.scores["per_label"].values()):
            models["bars"] = figures.bars_figure(contents.scores["per_label"])
        models |= _judged(contents)
    if len(contents.heads) > 1:
        models["folds"] = figures.folds_figure(contents.heads)
    if contents.knn is not None:
        models["knn"] = figures.knn_figure(contents.knn)
    samples, truth = contents.samples, contents.truth
    if samples is not None and truth is not None and truth.positive.any():
        counts = cooccurrence(truth.positive, samples.protein)
        models["cooccurrence"] = matrix_figure(
            counts,
            counts / np.maximum(np.diag(counts), 1)[:, None],
            samples.labels,
            name="cooccurrence",
            rows_are="label",
            columns_are="and label",
        )
    return models, tables, sheets


def _judged(contents: Contents) -> dict[str, Any]:
    samples, truth, calls = contents.samples, contents.truth, contents.calls
    assert samples is not None
    assert truth is not None
    assert calls is not None
    rows = contents.judged
    share = confusion(truth[rows], calls.called[rows])
    models = {
        "confusion": matrix_figure(
            share * 100,
            share,
            samples.labels,
            name="confusion",
            rows_are="reference",
            columns_are="called",
        )
    }
    curves = roc_curves(truth[rows], calls.probability[rows], samples.labels)
    if curves:
        palette = dict(zip(samples.labels, colours(len(samples.labels)), strict=True))
        models["roc"] = figures.roc_figure(curves, palette)
    return models


def _map(
    location: Location, contents: Contents, config: ReportConfig
) -> tuple[Any, dict[str, Any], list[str]]:
    samples, truth, calls = contents.samples, contents.truth, contents.calls
    assert samples is not None
    assert truth is not None
    assert contents.points is not None
    rows = np.flatnonzero(samples.finite)
    sheets = make_sheets(location, samples, rows, int(config.pictures_mb * 1e6))
    named = {
        "protein": samples.protein[rows],
        "fov": samples.fov[rows],
        "reference": joined(truth.positive[rows], samples.labels),
        "predicted": np.full(len(rows), "no head")
        if calls is None
        else joined(calls.called[rows], calls.labels),
    }
    tables: dict[str, Any] = {"level": samples.level}
    columns: dict[str, npt.NDArray[np.integer[Any]]] = {
        "row": rows.astype(np.int32),
        "tile": sheets.tile,
    }
    for name, texts in named.items():
        table, code = np.unique(texts, return_inverse=True)
        tables[name], columns[name] = table.tolist(), code.astype(np.min_scalar_type(len(table)))
    groups = by_single_label(truth.positive[rows], samples.labels)
    return figures.map_figure(contents.points, groups, columns), tables, sheets.urls


def joined(marked: npt.NDArray[np.bool_], labels: Sequence[str]) -> npt.NDArray[np.str_]:
    """The labels of each row of bool `(n, label)` as one text; `none` where there is none."""
    kinds, code = np.unique(marked, axis=0, return_inverse=True)
    texts = [
        ", ".join(label for label, yes in zip(labels, kind, strict=True) if yes) or "none"
        for kind in kinds
    ]
    return np.array(texts, dtype=np.str_)[code.ravel()]
