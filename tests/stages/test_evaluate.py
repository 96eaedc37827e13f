"""Split, train, evaluate, predict on small stores of known truth."""

import csv
import importlib
import json
import shutil
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from safetensors.numpy import load_file

from tests.labelled_store import LABELS, add_cells, make_store, write_embedding
from tests.written import put, revise
from zarrloc.config.evaluate import EvaluateConfig, PredictConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.heads import read_head
from zarrloc.scoring.scorecard import lines
from zarrloc.stages.evaluate import evaluate
from zarrloc.stages.predict import predict
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import stage_attrs

QUICK = {"hidden": (64,), "epochs": 60, "lr": 1e-2, "batch": 64}
GROUPED = SplitConfig()
PAPER = SplitConfig(test=0.1, group="image")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with both splits and a head on each of both embeddings."""
    path = make_store(tmp_path_factory.mktemp("oc") / "oc.zarr")
    split(path, GROUPED, "grouped")
    split(path, PAPER, "paper")
    for name in ("planted", "noise"):
        train(path, TrainConfig(embedding=name, split="grouped", **QUICK), name)
    train(path, TrainConfig(embedding="planted", split="paper", **QUICK), "paper")
    return path


def test_every_group_opens_with_xarray_without_a_warning(store):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(store, group="splits/paper").load()
        assert found.fold.dims == ("fov",)
        assert found.fold.dtype == np.int8
        assert set(found.fold.values) == {-1, 0, 1, 2, 3, 4}
        head = xr.open_zarr(store, group="heads/planted").load()
        assert head.probability.dims == ("fov", "label")
        assert tuple(head.label.values) == LABELS
        weights = xr.open_zarr(store, group="heads/planted/weights").load()
        assert dict(weights.sizes) == {"fold": 5, "feature": 4, "unit_1": 64, "label": 4}


def test_stored_probabilities_are_out_of_fold(store):
    head = read_head(Location.of(store), "planted")
    features = zarr.open_array(store / "embeddings/planted/embedding")[:]
    every = head.heads.probability(features)
    stored = zarr.open_array(store / "heads/planted/probability")[:]
    np.testing.assert_allclose(stored, every[head.row_fold, np.arange(len(stored))], rtol=1e-5)


def test_split_says_what_leaks_and_is_kept(store):
    again = split(store, PAPER, "paper")
    assert not again.made
    text = "\n".join(again.lines())
    assert "test: " in text
    assert "leakage: 100.0%" in text
    kept = dict(zarr.open_group(store / "splits/paper").attrs)["leakage"]
    assert kept["parts"][0]["fold"] == -1
    assert kept["parts"][0]["shared_proteins"] > 0
    with pytest.raises(ConfigError, match=r"seed: 0 -> 1.*--overwrite"):
        split(store, SplitConfig(seed=1), "grouped")
    with pytest.raises(ConfigError, match=r"no coordinate 'donor'.*plate"):
        split(store, SplitConfig(group="donor"), "donor")
    assert split(store, SplitConfig(group="plate", folds=2), "plates").leakage.sibling_share == 0


def test_planted_truth_scores_one_and_noise_does_not(store):
    config = EvaluateConfig(head="planted", bootstrap=50, probe=True)
    got = evaluate(store, config)
    assert got["pooled"]["macro_f1"] == 1
    assert got["probe"]["pooled"]["macro_f1"] == 1
    assert got["weak"] == "ignore"
    assert got["sibling_share"] == 0
    baselines = {name: one["pooled"]["macro_f1"] for name, one in got["baselines"].items()}
    assert set(baselines) == {
        "permuted labels",
        "sibling look-up",
        "intensity statistics",
        "nucleus channel only, intensity",
    }
    assert baselines["sibling look-up"] == 0  # grouped by protein: nothing to look up
    assert all(value < 0.6 for value in baselines.values())
    noise = evaluate(store, EvaluateConfig(head="noise", bootstrap=0, baselines=False))
    assert noise["pooled"]["macro_auroc"] == pytest.approx(0.5, abs=0.1)
    json.dumps(got, allow_nan=False)
    text = "\n".join(lines(got))
    assert "linear probe, out of fold" in text
    assert "sibling look-up" in text


def test_image_split_shows_what_leakage_alone_scores(store):
    got = evaluate(store, EvaluateConfig(head="paper", bootstrap=20, threshold="tuned"))
    assert got["test"]["rows_are"] == "test set"
    assert got["sibling_share"] == 1
    assert set(got["test"]["macro_f1"]) == {"mean", "sd", "each", "ci"}
    assert got["baselines"]["sibling look-up"]["test"]["macro_f1"]["mean"] == 1
    assert "head, test set" in "\n".join(lines(got))


def test_neighbours_with_and_without_siblings(store):
    got = evaluate(store, EvaluateConfig(embedding="planted", knn=(1, 3), bootstrap=20))
    assert got["knn"]["1"]["macro_f1"] == 1
    assert got["knn"]["1"]["macro_f1_excluding"]["none"] == 1
    assert got["baselines"]["sibling look-up"]["3"]["macro_f1"] == 1
    assert got["baselines"]["permuted labels"]["1"]["macro_f1"] < 0.6
    config = EvaluateConfig(embedding="planted", knn=(1,), exclude_same="protein", baselines=False)
    excluded = evaluate(store, config)
    assert excluded["knn"]["1"]["macro_f1"] == got["knn"]["1"]["macro_f1_excluding"]["protein"]
    assert "excl. protein" in "\n".join(lines(got))


def test_more_neighbours_than_rows_is_a_note(store):
    got = evaluate(store, EvaluateConfig(embedding="planted", knn=(500,), baselines=False))
    assert any("fewer than" in note for note in got["notes"])


def test_same_training_is_not_done_twice_and_other_settings_are_refused(store):
    config = TrainConfig(embedding="planted", split="grouped", **QUICK)
    assert "nothing to do" in "\n".join(train(store, config, "planted").lines())
    other = config.model_copy(update={"epochs": 3})
    with pytest.raises(ConfigError, match="epochs: 60 -> 3"):
        train(store, other, "planted")


def test_failed_rows_are_left_out_and_counted(tmp_path):
    store = make_store(tmp_path / "oc.zarr")
    put(Location.of(store), "embeddings/planted", "embedding", slice(7), np.nan)
    put(Location.of(store), "fovs", "grade", slice(10, 15), 0)
    split(store, GROUPED, "g")
    summary = train(store, TrainConfig(embedding="planted", split="g", **QUICK), "head")
    assert summary.notes == [
        "7 of 200 rows left out: no embedding",
        "5 of 200 rows left out: no label",
    ]
    stored = zarr.open_array(store / "heads/head/probability")[:]
    assert np.isnan(stored[:7]).all()
    assert np.isfinite(stored[7:]).all()
    got = evaluate(store, EvaluateConfig(head="head", bootstrap=0, baselines=False))
    assert got["pooled"]["rows"] == 188


def test_a_store_without_labels_is_refused(tmp_path):
    store = make_store(tmp_path / "oc.zarr", labelled=False)
    split(store, GROUPED, "g")
    with pytest.raises(ConfigError, match=r"the store has no labels.*--labels"):
        train(store, TrainConfig(embedding="planted", split="g"), "head")


def test_an_absent_split_is_refused_with_those_there_are(store):
    with pytest.raises(StoreError, match=r"no 'splits/h'.*splits/grouped, splits/paper"):
        train(store, TrainConfig(embedding="planted", split="h"), "x")


def test_labels_of_other_proteins_are_refused(tmp_path):
    store = make_store(tmp_path / "oc.zarr")
    put(Location.of(store), "fovs", "grade", slice(None), 0)
    split(store, GROUPED, "g")
    with pytest.raises(ConfigError, match="no row of 'embeddings/planted' has both"):
        evaluate(store, EvaluateConfig(embedding="planted", knn=(1,)))


def test_a_replaced_split_does_not_leak_into_an_older_head(store, tmp_path):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    before = evaluate(copy, EvaluateConfig(head="noise", bootstrap=0, baselines=False))
    split(copy, SplitConfig(seed=9), "grouped", overwrite=True)
    after = evaluate(copy, EvaluateConfig(head="noise", bootstrap=0, baselines=False))
    assert before == after


def test_saved_weights_say_what_they_are(store, tmp_path):
    head = read_head(Location.of(store), "planted")
    head.save(tmp_path / "head.safetensors")
    arrays = load_file(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(arrays["weight_0"], head.heads.weights[0])
    assert set(arrays) == {"mean", "scale", "weight_0", "weight_1", "bias_0", "bias_1"}


def test_predict_new_images(store, tmp_path):
    new = make_store(tmp_path / "new.zarr", seed=3, proteins=8, labelled=False)
    put(Location.of(new), "embeddings/planted", "embedding", 2, np.nan)
    config = PredictConfig(head=f"{store}/heads/planted", embedding="planted")
    summary = predict(new, config, out=tmp_path / "calls.csv")
    assert (summary.rows, summary.failed, summary.exit_code) == (40, 1, 3)
    found = xr.open_zarr(new, group="heads/planted").load()
    assert found.probability.dims == found.called.dims == ("fov", "label")
    with (tmp_path / "calls.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[2]["er"] == ""
    assert rows[0]["fov"] == "FID00000"
    names = [label for label in LABELS if found.called.sel(label=label).values[0]]
    assert rows[0]["called"].split(";") == names
    truth = zarr.open_array(new / "embeddings/planted/embedding")[:] > 0.5
    np.testing.assert_array_equal(found.called.values[3:], truth[3:])


def test_predict_refuses_another_embedding_with_the_difference(store, tmp_path):
    other = make_store(tmp_path / "new.zarr", size="224", weights="elsewhere.pth")
    config = PredictConfig(head=f"{store}/heads/planted", embedding="planted")
    with pytest.raises(ConfigError, match=r"\(size: native -> 224\)"):
        predict(other, config)
    with pytest.raises(ConfigError, match="is a trained head; pass another --name"):
        predict(store, config, overwrite=True)
    with pytest.raises(ConfigError, match="STORE/heads/NAME"):
        predict(store, PredictConfig(head="planted", embedding="planted"))


def test_evaluate_refuses_what_is_unclear(store):
    for config in ({"head": "planted", "knn": (1,)}, {"embedding": "planted"}, {}):
        with pytest.raises(ConfigError, match="give either --head"):
            evaluate(store, EvaluateConfig(**config))
    with pytest.raises(ConfigError, match="is of whole fields"):
        evaluate(store, EvaluateConfig(embedding="planted", knn=(1,), labels="expert"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["split", "--name", "grouped"], "leakage: 0.0%"),
        (["evaluate", "--head", "planted", "--no-baselines", "--bootstrap", "0"], "macro-F1"),
        (["evaluate", "--embedding", "planted", "--knn", "1,3", "--no-baselines"], "excl. none"),
    ],
)
def test_commands_print_a_table(store, arguments, expected):
    command = importlib.import_module(f"zarrloc_cli.{arguments[0]}").command
    result = CliRunner().invoke(command, [str(store), *arguments[1:]], catch_exceptions=False)
    assert result.exit_code == 0
    assert expected in result.output


def test_json_is_one_object(store):
    command = importlib.import_module("zarrloc_cli.evaluate").command
    arguments = [str(store), "--embedding", "planted", "--knn", "1,3", "--json", "--no-baselines"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert json.loads(result.output)["knn"]["3"]["macro_f1"] == 1


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A store with cells that look like their neighbours in the field."""
    path = make_store(tmp_path_factory.mktemp("cells") / "oc.zarr")
    add_cells(path)
    split(path, GROUPED, "g")
    return path


def test_cells_follow_their_field(cells):
    config = TrainConfig(embedding="cells", split="g", **{**QUICK, "batch": 512})
    train(cells, config, "head")
    head = xr.open_zarr(cells, group="heads/head").load()
    fold = xr.open_zarr(cells, group="splits/g").fold.values
    assert head.probability.dims == ("cell", "label")
    np.testing.assert_array_equal(head.row_fold, fold[head.fov_index])
    assert np.isnan(head.probability.values[0]).all()  # not kept
    got = evaluate(cells, EvaluateConfig(head="head", bootstrap=0))
    assert got["pooled"]["macro_f1"] > 0.7
    assert got["baselines"]["intensity statistics"]["pooled"]["macro_f1"] < 0.6


def test_leaving_out_the_own_field_shows_what_siblings_gave_away(cells):
    config = EvaluateConfig(embedding="cells", knn=(1,), exclude_same="fov", bootstrap=0)
    got = evaluate(cells, config)
    by = got["knn"]["1"]["macro_f1_excluding"]
    assert by["none"] == 1
    assert by["fov"] < 0.99
    assert by["protein"] <= by["fov"]
    assert got["knn"]["1"]["macro_f1"] == by["fov"]


def test_expert_and_weak_labels_are_separate_columns(cells):
    config = EvaluateConfig(embedding="cells", knn=(1,), labels="expert", bootstrap=0)
    got = evaluate(cells, config)
    ticked = xr.open_zarr(cells, group="cells/cp").expert_confirmed.values.sum()
    assert got["rows"] == ticked
    assert got["notes"][0].startswith(f"{ticked} cells that an expert ticked")
    # The expert's labels are the field's, shifted by one: as learnable, and not the same.
    assert got["knn"]["1"]["macro_f1"] > 0.8
    assert got["knn"]["1"]["macro_f1_weak_labels"] > 0.8
    assert "field's labels" in "\n".join(lines(got))


def test_labels_of_one_field_are_named(tmp_path):
    store = make_store(tmp_path / "oc.zarr", proteins=8)
    location = Location.of(store)
    only = np.where(np.arange(40) == 3, 3, 0)
    put(location, "fovs", "grade", (slice(None), 2), only)
    add_cells(store, expert=False)
    config = EvaluateConfig(embedding="cells", knn=(1,), exclude_same="fov", baselines=False)
    assert any("one fov" in note and "golgi" in note for note in evaluate(store, config)["notes"])
    with pytest.raises(ConfigError, match=r"no expert labels.*zarrloc label"):
        evaluate(store, config.model_copy(update={"labels": "expert"}))


# --- stores whose fields name no protein --------------------------------------------------------


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """The same store without a protein's name; `well` says which fields are of one protein."""
    path = make_store(tmp_path_factory.mktemp("nameless") / "s.zarr")
    location = Location.of(path)
    protein = zarr.open_array(path / "fovs/protein")[:]
    blank = np.array([""] * len(protein))
    revise(location, "fovs", protein=(("fov",), blank))
    return path, np.array([str(name) for name in protein])


def test_without_names_leakage_is_not_said_to_be_none(nameless):
    store, _ = nameless
    made = split(store, SplitConfig(), "alone")
    assert (made.group, made.leakage.sibling_share) == ("field", None)
    text = "\n".join(made.lines())
    assert "leakage: not measured" in text
    assert "%" not in text
    assert "protein" not in text.replace("names a protein", "").replace("(protein,", "")
    train(store, TrainConfig(embedding="planted", split="alone", **QUICK), "alone")
    got = evaluate(store, EvaluateConfig(head="alone", bootstrap=20))
    assert got["sibling_share"] is None
    assert "sibling look-up" not in got["baselines"]
    text = "\n".join(lines(got))
    assert "leakage: not measured" in text
    assert "fields resampled" in text
    assert got["pooled"]["macro_f1"] > 0.9


def test_any_coordinate_keeps_rows_apart(nameless):
    store, _ = nameless
    with pytest.raises(ConfigError, match="no field says its protein"):
        evaluate(store, EvaluateConfig(embedding="planted", knn=(1,), exclude_same="protein"))
    with pytest.raises(ConfigError, match=r"no coordinate 'donor'.*field, plate"):
        evaluate(store, EvaluateConfig(embedding="planted", knn=(1,), exclude_same="donor"))
    assert split(store, SplitConfig(group="plate", folds=2), "plates").group == "plate"
    config = EvaluateConfig(embedding="planted", knn=(1,), exclude_same="plate", bootstrap=20)
    got = evaluate(store, config)
    assert set(got["knn"]["1"]["macro_f1_excluding"]) == {"none", "plate"}
    assert got["knn"]["1"]["macro_f1"] == got["knn"]["1"]["macro_f1_excluding"]["plate"]
    assert any("was not measured" in note for note in got["notes"])
    assert "excl. plate" in "\n".join(lines(got))
    auto = evaluate(store, EvaluateConfig(embedding="planted", knn=(1,), exclude_same="auto"))
    assert auto["exclude_same"] == "none"


def test_the_fields_of_a_plate_give_nothing_away_to_one_another(nameless):
    """Features that tell only the plate: neighbours know all, unless the plate may not vote."""
    store, _ = nameless
    location = Location.of(store)
    fovs = location.group("fovs", mode="r")
    plate = np.unique(read_column(fovs, "plate").tolist(), return_inverse=True)[1]
    revealing = np.eye(plate.max() + 1)[plate] + 0.01 * np.random.default_rng(0).random(
        (len(plate), 1)
    )
    fov, blank = read_column(fovs, "fov"), np.array([""] * len(plate))
    write_embedding(location, "plates", revealing, fov, blank, stage_attrs(fovs))
    grade = zarr.open_array(store / "fovs/grade")[:]
    grade[:] = 0
    grade[np.arange(len(plate)), plate % grade.shape[1]] = 3
    other = store.parent / "revealing.zarr"
    shutil.copytree(store, other)
    revise(Location.of(other), "fovs", grade=(("fov", "label"), grade))
    config = EvaluateConfig(
        embedding="plates", knn=(3,), exclude_same="plate", probe=True, baselines=False
    )
    apart = evaluate(other, config)
    assert apart["knn"]["3"]["macro_f1_excluding"]["none"] == 1
    assert apart["knn"]["3"]["macro_f1"] < 0.6
    alone = evaluate(other, config.model_copy(update={"exclude_same": "none"}))
    assert alone["probe"]["pooled"]["macro_f1"] == 1
    assert apart["probe"]["pooled"]["macro_f1"] < 0.6
    assert (alone["grouped_by"], apart["grouped_by"]) == ("field", "plate")


def test_wells_stand_for_proteins_that_nobody_names(nameless, tmp_path):
    store, protein = nameless
    wells = tmp_path / "wells.zarr"
    shutil.copytree(store, wells)
    revise(Location.of(wells), "fovs", well=(("fov",), np.char.add("W", protein)))
    made = split(wells, SplitConfig(), "wells")
    assert made.group == "well"
    assert made.leakage.sibling_share == 0
    assert "leakage: 0.0% of the fields have one of the same well" in "\n".join(made.lines())
    for name in np.unique(protein):
        assert len(set(made.fold[protein == name])) == 1
    images = split(wells, SplitConfig(group="image"), "images")
    assert images.leakage.sibling_share == 1
    auto = evaluate(wells, EvaluateConfig(embedding="planted", knn=(1,), exclude_same="auto"))
    assert auto["exclude_same"] == "well"
    assert auto["baselines"]["sibling look-up"]["1"]["macro_f1"] == 1


def test_a_probe_of_an_embedding_is_never_silently_left_out(store, tmp_path):
    alone = evaluate(store, EvaluateConfig(embedding="planted", probe=True, bootstrap=20))
    assert alone["probe"]["pooled"]["macro_f1"] == 1
    assert alone["grouped_by"] == "protein"
    assert "knn" not in alone
    assert "linear probe, out of fold" in "\n".join(lines(alone))
    both = evaluate(store, EvaluateConfig(embedding="planted", probe=True, knn=(1,), bootstrap=20))
    assert both["probe"] == alone["probe"]
    text = "\n".join(lines(both))
    assert "linear probe, out of fold" in text
    assert "leave-one-out neighbours" in text
    noise = evaluate(store, EvaluateConfig(embedding="noise", probe=True, bootstrap=0))
    assert noise["probe"]["pooled"]["macro_auroc"] == pytest.approx(0.5, abs=0.1)
    json.dumps(both, allow_nan=False)
    with pytest.raises(ConfigError, match="--probe, or both"):
        evaluate(store, EvaluateConfig(embedding="planted"))
    from zarrloc.report.paper_figures import score_figures

    assert score_figures(alone, tmp_path)


# --- small data ---------------------------------------------------------------------------------


def test_few_fields_go_through_as_many_steps_as_the_papers():
    config = TrainConfig(embedding="e", split="s")
    assert [config.epochs_of(steps) for steps in (1, 3, 10, 11)] == [3000, 1000, 300, 300]
    assert config.model_copy(update={"epochs": 7}).epochs_of(1) == 7


@pytest.mark.slow
def test_the_defaults_learn_three_plain_classes_of_forty_fields(tmp_path):
    """With one step an epoch, the paper's 300 epochs taught a head nothing."""
    store = make_store(tmp_path / "few.zarr", proteins=8, fields=5)
    location = Location.of(store)
    fovs = location.group("fovs", mode="r")
    rows = np.arange(40)
    grade = np.zeros((40, len(LABELS)), np.uint8)
    grade[rows, rows // 5 % 3] = 3
    revise(location, "fovs", grade=(("fov", "label"), grade))
    rng = np.random.default_rng(0)
    features = np.concatenate([grade / 3 + 0.2 * rng.normal(size=grade.shape),
                               rng.normal(size=(40, 8))], axis=1)  # fmt: skip
    blank = np.array([""] * 40)
    write_embedding(location, "few", features, read_column(fovs, "fov"), blank, stage_attrs(fovs))
    made = split(store, SplitConfig(folds=2), "s")
    assert made.exit_code == 0
    config = TrainConfig(embedding="few", split="s")
    summary = train(store, config, "head")
    assert summary.validation[0] > 0.9
    assert not any("PREDICTS NOTHING" in note for note in summary.notes)


def test_a_head_that_predicts_nothing_says_so(store, tmp_path):
    config = TrainConfig(embedding="noise", split="grouped", epochs=60)
    summary = train(store, config, "silent")
    assert summary.validation[0] == 0
    assert any("THE HEAD PREDICTS NOTHING" in note for note in summary.notes)
    again = train(store, config, "silent")
    assert any("THE HEAD PREDICTS NOTHING" in note for note in again.notes)
    got = evaluate(store, EvaluateConfig(head="silent", baselines=False, bootstrap=0))
    assert any("THE HEAD PREDICTS NOTHING" in note for note in got["notes"])


def test_what_is_too_little_is_said(nameless):
    store, _ = nameless
    with pytest.raises(ConfigError, match=r"10 groups do not fill 50 folds.*at most 10 folds"):
        split(store, SplitConfig(group="plate", folds=50), "many")


# --- conditions ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditions(tmp_path_factory):
    """Forty fields of twelve wells and three conditions, no label, no protein's name."""
    path = make_store(
        tmp_path_factory.mktemp("plate") / "s.zarr", proteins=8, fields=5, labelled=False
    )
    location = Location.of(path)
    well = np.arange(40) % 12
    drug = np.array(["DMSO", "nocodazole", "taxol"])[well % 3]
    drug[39] = ""  # a field that nobody says anything of
    revise(
        location, "fovs",
        protein=(("fov",), np.array([""] * 40)),
        well=(("fov",), np.array([f"{'AB'[w // 6]}{w % 6 + 1:02}" for w in well])),
        plate=(("fov",), np.array(["p1"] * 40)),
        condition=(("fov",), drug),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    features = np.concatenate(
        [np.eye(3)[well % 3] + 0.25 * rng.normal(size=(40, 3)), rng.normal(size=(40, 5))], axis=1
    )
    fovs = location.group("fovs", mode="r")
    blank = np.array([""] * 40)
    write_embedding(location, "cond", features, read_column(fovs, "fov"), blank, stage_attrs(fovs))
    made = split(path, SplitConfig(target="condition"), "cond")
    train(path, TrainConfig(embedding="cond", split="cond", target="condition", **QUICK), "cond")
    return path, drug, made


def test_conditions_are_spread_over_folds_and_wells_stay_whole(conditions):
    store, drug, made = conditions
    assert (made.group, made.leakage.sibling_share, made.unlabelled) == ("well", 0, 1)
    assert set(made.fold) == {0, 1, 2, 3}  # five would part them worse: a class has four wells
    five = split(store, SplitConfig(target="condition", folds=5), "five")
    assert set(five.fold) == {0, 1, 2, 3, 4}
    assert set(five.leakage.thin_labels.values()) == {0}
    for name in ("DMSO", "nocodazole", "taxol"):
        assert all(((made.fold == f) & (drug == name)).sum() >= 2 for f in range(4))
    with pytest.raises(ConfigError, match="no coordinate 'dose'"):
        split(store, SplitConfig(target="dose"), "dose")
    split(store, SplitConfig(folds=4), "labels")
    with pytest.raises(ConfigError, match=r"target: \(none\) -> condition"):
        split(store, SplitConfig(folds=4, target="condition"), "labels")


def test_a_head_of_classes_gives_each_row_one(conditions):
    store, drug, _ = conditions
    stored = read_head(Location.of(store), "cond")
    assert stored.labels == ("DMSO", "nocodazole", "taxol")
    features = zarr.open_array(store / "embeddings/cond/embedding")[:]
    every = stored.heads.probability(features)
    np.testing.assert_allclose(every.sum(axis=2), 1, rtol=1e-5)
    own = zarr.open_array(store / "heads/cond/probability")[:]
    right = np.array(stored.labels)[own.argmax(axis=1)] == drug
    got = evaluate(store, EvaluateConfig(head="cond", probe=True, bootstrap=50))
    assert got["target"] == "condition"
    assert got["pooled"]["micro_f1"] == pytest.approx(right[:39].mean())
    assert got["pooled"]["micro_f1"] > 0.9
    assert got["pooled"]["rows"] == 39
    assert got["probe"]["pooled"]["micro_f1"] > 0.9
    assert got["baselines"]["permuted labels"]["pooled"]["micro_f1"] < 0.7
    assert got["baselines"]["sibling look-up"]["pooled"]["micro_f1"] == 0  # wells are whole
    text = "\n".join(lines(got))
    assert "classes of condition, each row in the most probable one" in text
    assert "wells resampled" in text
    with pytest.raises(ConfigError, match="was trained on condition, not on well"):
        evaluate(store, EvaluateConfig(head="cond", target="well"))
    with pytest.raises(ConfigError, match="the store has no labels"):
        train(store, TrainConfig(embedding="cond", split="cond"), "labels")


def test_a_probe_of_classes_is_multinomial_regression(conditions):
    from sklearn.linear_model import LogisticRegression

    from zarrloc.scoring.metrics import Truth
    from zarrloc.scoring.probe import train_probe

    store, drug, _ = conditions
    features = zarr.open_array(store / "embeddings/cond/embedding")[:].astype(np.float32)[:39]
    names = np.array(["DMSO", "nocodazole", "taxol"])
    positive = drug[:39, None] == names
    truth = Truth(positive, np.ones_like(positive), exclusive=True)
    got = train_probe(features, truth, np.ones((1, 39), bool)).probability(features)[0]
    scaled = (features - features.mean(0)) / features.std(0)
    weight = 1 / positive.sum(0)[positive.argmax(1)]
    expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=10_000).fit(
        scaled, positive.argmax(1), sample_weight=weight * 39 / weight.sum()
    )
    np.testing.assert_allclose(got, expected.predict_proba(scaled), atol=2e-3)


def test_neighbours_and_probe_of_classes(conditions):
    store, _, _ = conditions
    config = EvaluateConfig(
        embedding="cond", knn=(1, 5), probe=True, target="condition", exclude_same="auto",
        bootstrap=20,
    )  # fmt: skip
    got = evaluate(store, config)
    assert (got["exclude_same"], got["rows"], got["target"]) == ("well", 39, "condition")
    assert got["knn"]["5"]["micro_f1"] > 0.7
    assert got["probe"]["pooled"]["micro_f1"] > 0.9
    # every row is called once: false positives are false negatives of another class
    for row in got["knn"].values():
        assert sum(label["support"] for label in row["per_label"].values()) == 39
    assert "classes of condition" in "\n".join(lines(got))
    with pytest.raises(ConfigError, match="leave --target out"):
        evaluate(store, config.model_copy(update={"labels": "expert"}))


def test_classes_are_predicted_one_a_row(conditions, tmp_path):
    store, drug, _ = conditions
    new = tmp_path / "new.zarr"
    shutil.copytree(store, new)
    shutil.rmtree(new / "heads")
    config = PredictConfig(head=f"{store}/heads/cond", embedding="cond")
    predict(store, config, "again", out=tmp_path / "calls.csv")
    rows = list(csv.DictReader((tmp_path / "calls.csv").open()))
    assert all(row["called"] in ("DMSO", "nocodazole", "taxol") for row in rows)
    right = [row["called"] == name for row, name in zip(rows, drug, strict=True)]
    assert np.mean(right[:39]) > 0.9
