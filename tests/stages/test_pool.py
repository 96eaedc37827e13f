"""`train --pool`: heads of cells from labels of fields, through the store."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from zarrloc_cli.main import zarrloc as cli

from tests.labelled_store import LABELS, add_cells, make_store
from zarrloc.config.evaluate import EvaluateConfig, PredictConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import fields_of, fold_of_fields, mean_of, read_samples
from zarrloc.groups.heads import read_head
from zarrloc.stages.evaluate import evaluate
from zarrloc.stages.predict import predict
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.location import Location

LEARN: dict[str, Any] = {"embedding": "cells", "split": "grouped", "hidden": (), "lr": 0.05}


def learn(store: Path, name: str, **settings: Any) -> Any:
    config = TrainConfig(**{**LEARN, "epochs": 40, "pool": "attention", **settings})
    return train(store, config, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 fields of 20 proteins, 3 cells each (the first is not kept), head `mil`."""
    path = make_store(tmp_path_factory.mktemp("pool") / "t.zarr", proteins=20)
    add_cells(path, expert=False)
    split(path, SplitConfig(), "grouped")
    learn(path, "mil")
    return path


def test_fields_and_cells_are_both_called(store: Path) -> None:
    head = xr.open_zarr(store, group="heads/mil")
    assert head.probability.dims == ("cell", "label")
    assert head.field_probability.dims == ("field", "label")
    assert head.sizes == {**head.sizes, "cell": 300, "field": 100}
    np.testing.assert_array_equal(head.field_index, np.arange(100))
    assert np.isnan(head.probability[0]).all()  # not kept
    assert np.isfinite(head.field_probability).all()  # of its other cells
    stored = read_head(Location.of(store), "mil")
    assert stored.heads.pool == "attention"
    assert len(stored.heads.gates) == 7
    assert stored.validation[0] > 0.6


def test_a_field_is_called_out_of_its_fold(store: Path) -> None:
    """By the head that saw neither it nor a sibling, from its own cells alone."""
    samples = read_samples(Location.of(store), "cells")
    head = read_head(Location.of(store), "mil")
    head_group = xr.open_zarr(store, group="heads/mil")
    for row in (0, 7, 50, 99):
        own = np.flatnonzero((samples.fov_index == row) & samples.finite)
        fold = int(head.row_fold[own[0]])
        alone = head.heads.field_probability(samples.features[own], np.zeros(len(own), int), 1)
        expected = alone[fold, 0] if fold >= 0 else alone[:, 0].mean(0)
        np.testing.assert_allclose(head_group.field_probability[row], expected, rtol=1e-5)


def test_evaluate_scores_fields(store: Path) -> None:
    """As training did; baselines are pooled the same way."""
    found = evaluate(store, EvaluateConfig(head="mil", probe=True, bootstrap=0))
    assert found["pool"] == "attention"
    stored = read_head(Location.of(store), "mil")
    assert found["validation"]["macro_f1"]["mean"] == pytest.approx(stored.validation[0])
    assert found["validation"]["rows"] <= 100
    assert found["probe"]["validation"]["macro_f1"]["mean"] > 0.6
    chance = found["baselines"]["permuted labels"]["validation"]["macro_f1"]["mean"]
    assert chance < stored.validation[0] - 0.2


def test_predict_says_both(store: Path) -> None:
    predict(store, PredictConfig(head=f"{store}/heads/mil", embedding="cells"), "new")
    found = xr.open_zarr(store, group="heads/new")
    head = read_head(Location.of(store), "mil")
    samples = read_samples(Location.of(store), "cells")
    fields, field = fields_of(samples)
    own = field >= 0
    expected = head.heads.field_probability(samples.features[own], field[own], 100).mean(0)
    np.testing.assert_allclose(found.field_probability, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.field_called, expected >= 0.5)
    np.testing.assert_array_equal(found.field_index, fields.fov_index)
    assert found.called.dims == ("cell", "label")


def test_pools_are_settings_like_others(store: Path, tmp_path: Path) -> None:
    """Recorded, refused when they differ; weights travel as safetensors."""
    assert "fields by the attention of their cells" in learn(store, "mil").lines()[0]
    with pytest.raises(ConfigError, match="pool: attention -> mean"):
        learn(store, "mil", pool="mean")
    assert learn(store, "mean", pool="mean").validation[0] > 0.6
    read_head(Location.of(store), "mil").save(tmp_path / "mil.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "mil.safetensors", "numpy") as file:
        assert file.metadata()["pool"] == "attention"
        assert {"attention_v", "attention_u_bias", "attention_w"} <= set(file.keys())


def test_cells_are_needed(store: Path) -> None:
    """Said before any work, at the command line too."""
    refused = CliRunner().invoke(
        cli,
        ["train", str(store), "--embedding", "planted", "--split", "grouped", "--name", "x",
         "--pool", "attention"],
    )  # fmt: skip
    assert isinstance(refused.exception, ConfigError)
    assert "--pool attention calls a field by its cells" in str(refused.exception)
    assert "/heads/x" not in xr.open_datatree(store, engine="zarr", consolidated=True).groups


def test_fields_are_the_mean_of_their_cells(store: Path) -> None:
    samples = read_samples(Location.of(store), "cells")
    fields, field = fields_of(samples)
    assert field[0] == -1
    for row in (0, 42):
        own = (samples.fov_index == row) & samples.finite
        np.testing.assert_allclose(
            fields.features[row], samples.features[own].mean(0), rtol=1e-5, atol=1e-6
        )
        assert fields.protein[row] == samples.protein[own][0]
        assert fields.siblings.group[row] == samples.siblings.group[own][0]
        np.testing.assert_array_equal(fields.grade[row], samples.grade[own][0])
    assert fields.labels == LABELS
    np.testing.assert_array_equal(
        fold_of_fields(np.array([9, 2, 2, -1], np.int8), np.array([-1, 0, 0, 1])), [2, -1]
    )
    np.testing.assert_array_equal(
        mean_of(np.array([[9], [2], [4], [1]], np.float32), np.array([-1, 1, 1, 0]), 2), [[1], [3]]
    )
