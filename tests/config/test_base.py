from collections.abc import Callable
from typing import Any

import pytest

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.split import SplitConfig
from zarrloc.errors import ConfigError


def test_every_problem_of_a_config_comes_as_one_error_by_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        EmbedConfig(backbone="x", crop_um=-1, level="plate", colour=1)  # type: ignore[arg-type,call-arg]
    assert set(caught.value.problems) == {"crop_um", "level", "colour"}
    assert all(path in str(caught.value) for path in caught.value.problems)


def test_what_was_got_is_shortened() -> None:
    with pytest.raises(ConfigError) as caught:
        IngestConfig.of({"shard_fovs": "9" * 10_000})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "make",
    [
        lambda: SplitConfig.model_validate({"folds": 1}),
        lambda: SplitConfig.model_validate_json('{"folds": 1}'),
        lambda: SplitConfig.model_validate_strings({"folds": "1"}),
        lambda: SplitConfig().model_copy(update={"folds": 1}),
        lambda: setattr(SplitConfig(), "folds", 1),
        lambda: delattr(SplitConfig(), "folds"),
    ],
)
def test_every_way_to_a_wrong_config_is_a_config_error(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert set(caught.value.problems) == {"folds"}


def test_what_is_no_config_at_all_is_a_config_error() -> None:
    for make in (SplitConfig.model_validate, SplitConfig.model_validate_json):
        with pytest.raises(ConfigError, match="SplitConfig: settings"):
            make("{")


def test_a_copy_keeps_what_was_set_and_a_valid_config_passes() -> None:
    config = PretrainConfig.of({"from": "dino-vits8"}).model_copy(update={"epochs": 3})
    assert (config.start, config.epochs) == ("dino-vits8", 3)
    assert SplitConfig.model_validate_json('{"folds": 4}') == SplitConfig(folds=4)
