import doctest
import inspect
import logging
from pathlib import Path

import pandas as pd
import pytest

import zarrloc
from tests.labelled_store import make_store
from zarrloc.api import commands, opened
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.result import Result

ORDER = (
    *("ingest", "annotate", "segment", "embed", "split", "train", "evaluate", "predict"),
    *("pretrain", "label", "verify", "preview", "write_report"),
)


def test_every_command_has_numpydoc_parts() -> None:
    for name in ORDER:
        doc = inspect.getdoc(getattr(zarrloc, name)) or ""
        for part in ("Parameters", "Returns", "Raises", "Examples"):
            assert f"\n{part}\n------" in doc, (name, part)


@pytest.mark.timeout(600)
def test_every_example_of_the_docstrings_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zarrloc.models import weights

    obtain = weights.obtain
    monkeypatch.setattr(
        weights, "obtain", lambda backbone, given: obtain(backbone, given or "random:0")
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(logging.getLogger("zarrloc"), "handlers", [])  # the command line's own
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    said: list[str] = []
    for thing in (*(getattr(commands, name) for name in ORDER), opened.Store, opened.open):
        for test in finder.find(thing, thing.__name__, globs={}):
            assert test.examples, thing
            result = runner.run(test, out=said.append, clear_globs=False)
            assert result.failed == 0, "".join(said)
    captured = capsys.readouterr()
    assert captured.out == captured.err == "", "the library prints nothing"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("s") / "oc.zarr", proteins=8, fields=2)


def test_keywords_and_a_config_say_the_same(store: Path) -> None:
    first = zarrloc.split(store, name="a", folds=2, seed=3)
    config = SplitConfig(folds=2, seed=3)
    again = zarrloc.split(store, config, "a")
    assert (first.done, first.reused) == (16, 0)
    assert (again.done, again.reused) == (0, 16)
    assert (first["fold"] == again["fold"]).all()
    over = zarrloc.split(store, config, "b", folds=3)
    assert set(over["fold"]) == {0, 1, 2}


def test_a_mistyped_keyword_gets_the_nearest(store: Path) -> None:
    with pytest.raises(ConfigError, match=r"fold: unknown; did you mean folds\?"):
        zarrloc.split(store, name="c", fold=2)
    with pytest.raises(ConfigError, match=r"overwite: unknown; did you mean overwrite\?"):
        zarrloc.train(store, embedding="planted", split="a", name="h", overwite=True)
    with pytest.raises(ConfigError, match="name is missing"):
        zarrloc.split(store, folds=2)
    assert zarrloc.open(store).heads == []


def test_scores_are_in_the_result(store: Path) -> None:
    zarrloc.split(store, name="t", folds=2)
    config = TrainConfig(embedding="planted", split="t", epochs=2)
    trained = zarrloc.train(store, config, "head")
    assert trained["test"] is None
    scores = zarrloc.evaluate(store, head="head", bootstrap=0, baselines=False)
    assert scores["validation"]["macro_f1"]["mean"] == pytest.approx(trained["validation"][0])
    assert "macro-F1" in repr(scores)


def test_a_result_shows_itself() -> None:
    result = Result(what="fovs", done=3, reused=2, failures={"a<b": "cut off"}, seconds=1.25)
    assert repr(result) == "fovs: 3 done, 2 there already, 1 failed (`.failed` lists them), 1.2 s"
    assert result.failed.to_dict("records") == [{"item": "a<b", "reason": "cut off"}]
    shown = result._repr_html_()
    assert "a&lt;b" in shown
    assert "cut off" in shown
    assert isinstance(Result().failed, pd.DataFrame)


def test_failed_fields_are_named_with_their_reason(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    some = sorted((folder / "images").iterdir())[:2]
    for file in some:
        (images / file.name).write_bytes(file.read_bytes())
    (images / some[1].name).write_bytes(some[1].read_bytes()[:5000])
    result = zarrloc.ingest(images, tmp_path / "s.zarr", cluster="serial", field_size="96x96")
    assert (result.exit_code, result.done) == (3, 2)
    assert len(result.failed) == 1
    assert result.failed["reason"][0]


def test_a_stopped_call_says_how_it_goes_on(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zarrloc.stages.split.split", stop)
    with pytest.raises(KeyboardInterrupt):
        zarrloc.split(store, name="d")
    assert "the same call continues from here" in caplog.text


def test_an_absent_store_is_refused(tmp_path: Path) -> None:
    for call in (zarrloc.open, zarrloc.verify, lambda s: zarrloc.split(s, name="x")):
        with pytest.raises(StoreError, match="no store at"):
            call(tmp_path / "none.zarr")  # type: ignore[operator]


def test_a_store_is_annotated_with_a_table(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    zarrloc.ingest(folder / "images", store, labels=folder / "labels.csv", cluster="serial")
    fields = zarrloc.open(store).fovs["fov"].values
    table = tmp_path / "drugs.csv"
    table.write_text(
        "fov,drug\n" + "".join(f"{name},d{at % 2}\n" for at, name in enumerate(fields))
    )
    zarrloc.annotate(store, conditions=table)
    assert zarrloc.open(store).fovs["drug"].values.tolist() == ["d0", "d1"] * (len(fields) // 2)
