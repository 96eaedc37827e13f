"""What a run will do: the batch that fits few samples."""

import pytest

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.pretraining.estimate import fitted


@pytest.mark.parametrize(
    ("samples", "batch"), [(2, 2), (7, 2), (15, 2), (16, 4), (40, 8), (127, 16), (128, 32)]
)
def test_a_batch_nobody_set_is_a_quarter_of_few_samples(samples: int, batch: int) -> None:
    """The largest power of two that is no more; what somebody set stays as it is."""
    config = PretrainConfig(arch="x")
    assert fitted(config, samples).batch == batch
    own = PretrainConfig(arch="x", batch=48)
    assert fitted(own, samples) is own


def test_a_batch_that_fits_stays() -> None:
    config = PretrainConfig(arch="x")
    assert fitted(config, 4 * config.batch) is config
    assert fitted(config, 4 * config.batch - 1).batch == config.batch // 2
