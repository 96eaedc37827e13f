"""What the page finds in a store, and how it says what isn't there."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.labelled_store import make_store
from tests.report.conftest import CONFIG, flat
from tests.written import drop, put, revise
from zarrloc.config.evaluate import PredictConfig
from zarrloc.config.report import ReportConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.report.gather import chosen, gather
from zarrloc.report.page import render
from zarrloc.stages.predict import predict
from zarrloc.stages.train import train
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location


def attrs(stage: str, *inputs: str) -> StageAttrs:
    return StageAttrs.of(stage, {}, dict.fromkeys(inputs, "f"))


STAGES = {
    "fovs": attrs("ingest"),
    "embeddings/a": attrs("embed", "fovs"),
    "embeddings/b": attrs("embed", "fovs"),
    "heads/h": attrs("train", "embeddings/b"),
    "heads/i": attrs("train", "embeddings/a"),
}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ("b", "h")),
        ({"embedding": "a"}, ("a", "i")),
        ({"head": "i"}, ("a", "i")),
        ({"embedding": "b", "head": "h"}, ("b", "h")),
    ],
)
def test_what_is_shown(wanted: dict[str, str], found: tuple[str, str]) -> None:
    assert chosen(STAGES, ReportConfig.of(wanted)) == found


def test_a_trained_head_is_shown_before_one_that_only_predicted() -> None:
    stages = {**STAGES, "heads/a": attrs("predict", "embeddings/b")}
    assert chosen(stages, ReportConfig()) == ("b", "h")
    assert chosen(stages, ReportConfig(head="a")) == ("b", "a")


def test_what_is_shown_of_less() -> None:
    assert chosen({"fovs": attrs("ingest")}, ReportConfig()) == (None, None)
    some = {path: STAGES[path] for path in ("fovs", "embeddings/a")}
    assert chosen(some, ReportConfig()) == ("a", None)


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"embedding": "x"}, "no embedding 'x'; the store has a, b"),
        ({"head": "x"}, "no head 'x'; the store has h, i"),
        ({"embedding": "a", "head": "h"}, "stands on 'embeddings/b', not on 'embeddings/a'"),
    ],
)
def test_names_that_do_not_fit_are_refused(wanted: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        chosen(STAGES, ReportConfig.of(wanted))


def test_everything_of_a_trained_store(trained: Path) -> None:
    contents = gather(Location.of(trained), CONFIG, flat)
    assert contents.absent == {}
    assert contents.facts.fields == 100
    assert contents.facts.proteins == 20
    assert contents.points is not None
    assert contents.points.shape == (100, 2)
    assert contents.scores is not None
    assert contents.scores["head"] == "head"
    assert contents.knn is not None
    assert contents.knn["exclude_same"] == "protein"
    (split,) = contents.splits
    assert split.shown
    assert split.leakage.sibling_share == 0
    (failure,) = contents.failures
    assert failure.group == "fovs"
    assert failure.error.startswith("torn file")
    assert contents.judged.sum() == 100


def test_a_store_without_heads_or_embeddings_says_which_command_makes_them(
    tmp_path: Path,
) -> None:
    location = bare(tmp_path)
    contents = gather(location, CONFIG, flat)
    assert "zarrloc train" in contents.absent["scores"]
    assert contents.points is not None
    for name in ("planted", "noise"):
        drop(location, f"embeddings/{name}")
    contents = gather(location, CONFIG, flat)
    assert "zarrloc embed" in contents.absent["map"]
    assert contents.points is None


def test_outliers_are_looked_for_where_it_takes_a_minute(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = Location.of(trained)
    asked = gather(location, CONFIG, flat).odd
    assert asked is not None
    assert asked.embedding == "planted"
    assert len(asked.measured) == 99, "all but the field without an image"
    monkeypatch.setattr("zarrloc.report.gather.AUTO_OUTLIERS", 99)
    contents = gather(location, CONFIG, flat)
    assert contents.odd is None
    assert (
        "among more than 99 fields; `zarrloc report --outliers yes`"
        in (contents.absent["outliers"])
    )
    assert gather(location, CONFIG.model_copy(update={"outliers": "yes"}), flat).odd is not None
    without = gather(location, CONFIG.model_copy(update={"outliers": "no"}), flat)
    assert "Left out of this page" in without.absent["outliers"]


def test_a_damaged_image_costs_the_section_alone(tmp_path: Path) -> None:
    location = bare(tmp_path)
    put(location, "fovs", "row_digest", 3, 7)
    contents = gather(location, CONFIG, flat)
    assert contents.odd is None
    assert "row 3 of 'fovs' is damaged" in contents.absent["outliers"]
    assert contents.points is not None


def bare(tmp_path: Path, **embedding: Any) -> Location:
    made = make_store(tmp_path / "b.zarr", proteins=8, labelled=False, **embedding)
    location = Location.of(made)
    revise(location, "fovs", block_bytes=(("block",), np.zeros(1, np.uint64)))
    return location


def test_no_labels_no_scores_but_a_reason(tmp_path: Path) -> None:
    contents = gather(bare(tmp_path), CONFIG, flat)
    assert "the store has no labels" in contents.absent["knn"]
    assert contents.truth is not None
    assert contents.truth.positive.shape == (40, 0)


def test_labels_are_called_from_the_heads_own_thresholds_where_asked(trained: Path) -> None:
    plain, tuned = (
        gather(Location.of(trained), CONFIG.model_copy(update={"threshold": asked}), flat)
        for asked in ("0.5", "tuned")
    )
    assert plain.calls is not None
    assert tuned.calls is not None
    assert tuned.scores is not None
    own = read_column(Location.of(trained).group("heads/head"), "threshold")
    np.testing.assert_array_equal(plain.calls.called, plain.calls.probability >= 0.5)
    np.testing.assert_array_equal(tuned.calls.called, tuned.calls.probability >= own)
    assert tuned.scores["threshold"] == "tuned"


def test_a_row_without_embedding_is_left_off_the_map(tmp_path: Path) -> None:
    location = bare(tmp_path)
    put(location, "embeddings/noise", "embedding", 3, np.nan)
    contents = gather(location, CONFIG, flat)
    assert contents.points is not None
    assert len(contents.points) == 39


def test_a_head_of_another_store_is_shown_but_not_scored(trained: Path, tmp_path: Path) -> None:
    location = bare(tmp_path)
    predict(location, PredictConfig(head=f"{trained}/heads/head", embedding="planted"), "calls")
    contents = gather(location, CONFIG, flat)
    assert contents.calls is not None
    assert contents.calls.called.shape == (40, 4)
    assert "it is scored where it was trained" in contents.absent["scores"]
    assert contents.scores is None


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        gather(Location.of(tmp_path / "x.zarr"), CONFIG, flat)


def test_a_coordinate_in_place_of_the_labels(trained: Path) -> None:
    config = CONFIG.model_copy(update={"target": "plate"})
    contents = gather(Location.of(trained), config, flat)
    assert contents.samples is not None
    assert contents.truth is not None
    assert contents.samples.labels == tuple(f"plate{i}" for i in range(10))
    assert contents.truth.exclusive
    assert (contents.truth.positive.sum(axis=1) == 1).all()
    assert contents.knn is not None
    assert contents.knn["target"] == "plate"
    assert "zarrloc train --target plate" in contents.absent["scores"]
    with pytest.raises(ConfigError, match="was trained on labels, not on plate"):
        gather(Location.of(trained), config.model_copy(update={"head": "head"}), flat)


def test_a_head_of_classes_brings_its_own_target(trained: Path, tmp_path: Path) -> None:
    store = tmp_path / "t.zarr"
    shutil.copytree(trained, store)
    learn = TrainConfig(
        embedding="planted", split="grouped", target="plate", hidden=(), epochs=3, lr=0.05
    )
    train(store, learn, "plates")
    contents = gather(Location.of(store), CONFIG.model_copy(update={"head": "plates"}), flat)
    assert contents.calls is not None
    assert contents.scores is not None
    assert contents.samples is not None
    assert contents.samples.target == "plate"
    assert (contents.calls.called.sum(axis=1) == 1).all()
    page = render(Location.of(store), contents, CONFIG)
    assert "Classes of plate" in page
    assert "What occurs together" not in page
    assert "What occurs together" in render(
        Location.of(store), gather(Location.of(store), CONFIG, flat), CONFIG
    )
