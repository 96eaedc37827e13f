"""Figures for papers: what is drawn is what was scored, and names stay names."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from tests.labelled_store import make_store
from zarrloc.config.report import ReportConfig
from zarrloc.errors import ConfigError
from zarrloc.report.palette import by_single_label
from zarrloc.report.paper_figures import (
    STYLE,
    draw_folds,
    draw_labels,
    draw_map,
    draw_neighbours,
    embedding_figures,
    save,
    score_figures,
)

LABEL = {"precision": 0.5, "recall": 0.5, "support": 4, "auroc": 0.5, "average_precision": 0.5}
HEAD = {
    "head": "h",
    "siblings": "protein",
    "validation": {"macro_f1": {"each": [0.5, None, 0.7]}},
    "baselines": {"permuted labels": {"validation": {"macro_f1": {"each": [0.1, 0.2, 0.1]}}}},
    "per_label": {
        "er": {**LABEL, "f1": 0.4, "f1_ci": [0.3, 0.5]},
        "cost in $ and $": {**LABEL, "f1": 0.8, "f1_ci": [0.7, 0.9]},
        "empty": {**LABEL, "f1": None, "f1_ci": None},
    },
}
KNN = {
    "embedding": "e",
    "knn": {
        str(k): {"macro_f1_excluding": {"none": 0.9, "protein": 0.5 / k}, "macro_f1": 0.5 / k}
        for k in (1, 3)
    },
    "baselines": {"permuted labels": {"1": {"macro_f1": 0.1}, "3": {"macro_f1": None}}},
}


def test_every_point_is_drawn_once_and_grey_lies_below() -> None:
    positive = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 1]], bool)
    groups = by_single_label(positive, ("a", "b"))
    assert [group.name for group in groups] == ["no label", "several labels", "b", "a"]
    assert sorted(np.concatenate([group.rows for group in groups])) == [0, 1, 2, 3, 4]
    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    (axes,) = draw_map(points, groups).axes
    drawn = np.concatenate([c.get_offsets() for c in axes.collections])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, points))


def test_bars_are_the_scores_best_above_and_without_empty_labels() -> None:
    (axes,) = draw_labels(HEAD["per_label"]).axes  # type: ignore[arg-type]
    assert [bar.get_width() for bar in axes.patches] == [0.4, 0.8]  # type: ignore[attr-defined]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0.3, 0.5], [0.7, 0.9]]  # type: ignore[union-attr]


def test_a_point_a_fold() -> None:
    (axes,) = draw_folds(HEAD).axes
    points = [c.get_offsets()[:, 1].tolist() for c in axes.collections]  # type: ignore[index,call-overload]
    assert points == [[0.5, 0.7], [0.1, 0.2, 0.1]]


def test_lines_over_k_for_each_way_of_leaving_out() -> None:
    (axes,) = draw_neighbours(KNN).axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    np.testing.assert_allclose(lines["other proteins only"], [0.5, 0.5 / 3])
    np.testing.assert_allclose(lines["all neighbours"], [0.9, 0.9])
    np.testing.assert_array_equal(lines["permuted labels"], [0.1, np.nan])


def test_files_are_written_equal_again_and_hold_their_text(tmp_path: Path) -> None:
    first = score_figures(HEAD, tmp_path / "new" / "a")
    assert [path.name for path in first] == [
        "h-labels.png", "h-labels.svg", "h-folds.png", "h-folds.svg",
    ]  # fmt: skip
    assert "cost in $ and $" in first[1].read_text()
    with Image.open(first[0]) as picture:
        assert picture.info["dpi"][0] == pytest.approx(300, abs=0.1)
    second = score_figures(HEAD, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert [path.name for path in score_figures(KNN, tmp_path)] == ["e-knn.png", "e-knn.svg"]


def test_the_map_of_a_stored_embedding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zarrloc.report.paper_figures.project", lambda features, _: features[:, :2])
    store = make_store(tmp_path / "s.zarr", proteins=4, fields=2)
    png, svg = embedding_figures(store, "planted", tmp_path, ReportConfig())
    assert png.stat().st_size > 5000
    assert "golgi" in svg.read_text()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with mpl.rc_context(STYLE), pytest.raises(ConfigError, match="cannot write"):
        save(draw_folds(HEAD), tmp_path / "file" / "x", "f")
