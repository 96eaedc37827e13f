"""Features that must not do well."""

from pathlib import Path

import numpy as np

from tests.labelled_store import make_store
from zarrloc.groups.embeddings import read_samples
from zarrloc.scoring.baseline_features import baseline_features
from zarrloc.scoring.baselines import intensity_statistics
from zarrloc.store.location import Location


def test_the_nucleus_has_its_own_part_of_a_channel_wise_embedding(tmp_path: Path) -> None:
    location = Location.of(make_store(tmp_path / "a.zarr", proteins=3, channels="replicate"))
    samples = read_samples(location, "planted")
    found = baseline_features(location, samples)
    image = np.asarray(location.group("fovs")["image"][4])  # type: ignore[index]
    statistics = intensity_statistics(image)
    np.testing.assert_allclose(found["intensity statistics"][4], statistics.ravel())
    np.testing.assert_allclose(found["nucleus channel only, intensity"][4], statistics[0])
    half = samples.features.shape[1] // 2  # the store's channels are nucleus, protein
    np.testing.assert_array_equal(
        found["nucleus channel only, embedded"], samples.features[:, :half]
    )


def test_channels_embedded_together_have_no_part_of_the_nucleus(tmp_path: Path) -> None:
    location = Location.of(make_store(tmp_path / "a.zarr", proteins=3, channels="natural"))
    found = baseline_features(location, read_samples(location, "planted"))
    assert "nucleus channel only, embedded" not in found
