"""The map: seeded, and near on it is near in the embedding."""

import numpy as np
import pytest

from zarrloc.config.report import ReportConfig
from zarrloc.report.projection import project


@pytest.mark.slow  # umap compiles for a minute; the README's test runs it too
def test_two_clusters_stay_apart_and_the_seed_decides() -> None:
    centre = np.repeat(np.eye(2, 80, dtype=np.float32) * 9, 40, axis=0)
    features = centre + np.random.default_rng(0).normal(size=(80, 80)).astype(np.float32)
    points = project(features, ReportConfig(umap_neighbours=8))
    assert points.shape == (80, 2)
    assert points.dtype == np.float32
    inside = np.linalg.norm(points[:40] - points[:40].mean(0), axis=1).max()
    between = np.linalg.norm(points[:40].mean(0) - points[40:].mean(0))
    assert between > inside
    np.testing.assert_array_equal(points, project(features, ReportConfig(umap_neighbours=8)))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_few_rows_are_placed_too(rows: int) -> None:
    features = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    points = project(features, ReportConfig())
    assert points.shape == (rows, 2)
    assert np.isfinite(points).all()
    assert len(np.unique(points.round(4), axis=0)) == rows
