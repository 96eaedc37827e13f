"""The log of a run, and its settings."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.pretraining import log as log_module
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.log import Curves, Log, read_curves, write_baselines, write_checks


def log_of(tmp_path: Path, step: int, said: list[str], **settings: object) -> Log:
    config = PretrainConfig.of({"arch": "x", "batch": 10, "steps": 100, **settings})
    return Log(tmp_path, config, Plan.of(config, 50, 1, "cpu"), step, said.append)


def test_the_log_forgets_steps_that_are_taken_again(tmp_path: Path) -> None:
    """Also a line cut off by a crash; the time left is shown."""
    said: list[str] = []
    log = log_of(tmp_path, 0, said)
    for step in (1, 2, 3):
        log({"step": step, "loss": 2.0, "learning_rate": 1e-3, "images_per_s": 10.0})
    assert said[1] == "step 2/100  loss 2.0000  lr 1.00e-03  10.0 images/s  00:01:38 left"
    log({"step": 4, "loss": 2.0, "learning_rate": 1e-3, "images_per_s": 960 / 90_061})
    assert said[-1].endswith("25:01:01 left")
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo\n}\nnull\n{"step": 2, "lo')
    log_of(tmp_path, 2, said)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed here"
)
def test_tensorboard_is_asked_for_only_where_it_is(tmp_path: Path) -> None:
    """Refused with what to do."""
    with pytest.raises(ConfigError, match="--tensorboard needs the package tensorboard"):
        log_of(tmp_path, 0, [], tensorboard=True)


def test_checks_and_baselines_go_to_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scalar a figure, at its step; what was not measurable is left out."""
    sent: list[tuple[str, float, int]] = []

    class Board:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            sent.append((name, value, step))

        def flush(self) -> None:
            sent.append(("flushed", 0, 0))

    monkeypatch.setattr(log_module, "_summary_writer", lambda out: Board())
    log = log_of(tmp_path, 0, [], tensorboard=True)
    rows = [{"step": 4, "knn_macro_f1": 0.5, "teacher_entropy": None}]
    log.checked(rows, {"classic features": 0.25, "permuted labels": None})
    assert sent == [
        ("guard/knn_macro_f1", 0.5, 4), ("baseline/classic features", 0.25, 0), ("flushed", 0, 0),
    ]  # fmt: skip
    log_of(tmp_path, 0, []).checked(rows)  # without TensorBoard nothing happens
    assert len(sent) == 3
    log({"step": 7, "loss": 2.0, "learning_rate": 1e-3, "images_per_s": 10.0})
    rows_sent = [("step", 7, 7), ("loss", 2.0, 7), ("learning_rate", 1e-3, 7)]
    assert sent[3:] == [*rows_sent, ("images_per_s", 10.0, 7)]


def test_tensorboard_writes_into_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an overwrite finds it."""
    there = ModuleType("torch.utils.tensorboard")
    there.SummaryWriter = lambda folder: folder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, there.__name__, there)
    assert log_module._summary_writer(tmp_path) == str(tmp_path / "tensorboard")


def test_the_first_check_stands_alone(tmp_path: Path) -> None:
    write_checks(tmp_path / "checks.csv", [{"step": 0, "spread": 0.25, "knn_macro_f1": None}])
    assert (tmp_path / "checks.csv").read_text() == "step,spread,knn_macro_f1\n0,0.25,\n"


def test_a_run_is_read_again(tmp_path: Path) -> None:
    """Loss, checks and baselines; what is absent is empty, what is damaged or no run is refused."""
    with pytest.raises(ConfigError, match="holds no run of `zarrloc pretrain`"):
        read_curves(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert read_curves(tmp_path) == Curves(tmp_path.name, [], [], {})
    log = log_of(tmp_path, 0, [])
    for step in (1, 2):
        log({"step": step, "loss": 3.0 - step, "learning_rate": 1e-3, "images_per_s": 10.0})
    write_checks(tmp_path / "checks.csv", [{"step": 0, "f1": None}, {"step": 2, "f1": 0.5}])
    write_baselines(tmp_path / "baselines.json", {"chance": 0.1, "classic": None})
    assert read_curves(tmp_path) == Curves(
        tmp_path.name,
        [(1.0, 2.0), (2.0, 1.0)],
        [{"step": 0.0, "f1": None}, {"step": 2.0, "f1": 0.5}],
        {"chance": 0.1, "classic": None},
    )
    assert not list(tmp_path.glob("*.partial"))
    for name, damage in (
        ("log.jsonl", "null\n"), ("checks.csv", "step\nx\n"), ("baselines.json", "[1]"),
    ):  # fmt: skip
        before = (tmp_path / name).read_text()
        (tmp_path / name).write_text(damage)
        with pytest.raises(ConfigError, match="is damaged"):
            read_curves(tmp_path)
        (tmp_path / name).write_text(before)


def test_settings() -> None:
    """`from` and `start` are one; what only says how to run is no part of the result."""
    one = PretrainConfig.of({"from": "dino-vits8", "cache": "ram", "keep": 9})
    other = PretrainConfig.of({"start": "dino-vits8", "device": "cuda", "log_steps": 1})
    assert one.result() == other.result()
    assert one.result() != PretrainConfig.of({"from": "dino-vits8", "seed": 1}).result()
    assert set(PretrainConfig.RUN_ONLY) < set(PretrainConfig.model_fields)
    with pytest.raises(ConfigError, match="--from scratch needs --arch"):
        PretrainConfig.of({})
    with pytest.raises(ConfigError, match=r"local_scale is 0\.4,0\.2"):
        PretrainConfig.of({"arch": "x", "local_scale": (0.4, 0.2)})
    with pytest.raises(ConfigError, match=r"epochs: .*; .*ar: Extra inputs"):
        PretrainConfig.of({"epochs": 0, "ar": "x"})
