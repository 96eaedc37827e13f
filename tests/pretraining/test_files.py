"""The log of a run, and its settings."""

import importlib.util
import json
from pathlib import Path

import pytest

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.log import Log


def log_of(tmp_path: Path, step: int, said: list[str], **settings: object) -> Log:
    config = PretrainConfig.of({"arch": "x", "batch": 10, "steps": 100, **settings})
    return Log(tmp_path, config, Plan.of(config, 50, 1, "cpu"), step, said.append)


def test_the_log_forgets_steps_that_are_taken_again(tmp_path: Path) -> None:
    """Also a line cut off by a crash; the time left is told."""
    said: list[str] = []
    log = log_of(tmp_path, 0, said)
    for step in (1, 2, 3):
        log({"step": step, "loss": 2.0, "learning_rate": 1e-3, "images_per_s": 10.0})
    assert said[1] == "step 2/100  loss 2.0000  lr 1.00e-03  10.0 images/s  00:01:38 left"
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
