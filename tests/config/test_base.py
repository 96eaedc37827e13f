import pytest

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
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
