"""Classic features: against their definitions, and what they must and must not notice."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from zarrloc.pixels import classic
from zarrloc.pixels.classic import classic_features, feature_count, feature_names

NAMES = feature_names(["nucleus", "protein"])


def textured(seed: int = 0, side: int = 48, sigma: float = 1.5) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((2, side, side)), (0, sigma, sigma))
    return (1000 * image / image.max()).astype(np.float32)


def disk(side: int = 48, radius: float = 15) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.hypot(y, x) < radius)


def of(image: npt.NDArray[np.float32], name: str, inside: npt.NDArray[np.bool_] | None = None):
    return classic_features(image, inside)[NAMES.index(name)]


def test_every_feature_has_a_name_of_its_own() -> None:
    for channels in (1, 2, 3):
        names = feature_names([f"c{i}" for i in range(channels)])
        assert len(set(names)) == len(names) == feature_count(channels)
        image = np.random.default_rng(0).random((channels, 20, 20))
        found = classic_features(image)
        assert found.shape == (len(names),)
        assert found.dtype == np.float32


def test_what_lies_outside_the_cell_changes_nothing() -> None:
    image, inside = textured(), disk()
    noisy = np.where(inside, image, 5e4 * np.random.default_rng(1).random(image.shape))
    np.testing.assert_array_equal(
        classic_features(noisy, inside), classic_features(image * inside, inside)
    )


def test_a_cell_is_the_same_wherever_it_lies_in_its_window() -> None:
    image, inside = textured(), disk(radius=12)
    moved = np.roll(image * inside, (7, -5), (1, 2))
    np.testing.assert_allclose(
        classic_features(moved, np.roll(inside, (7, -5), (0, 1))),
        classic_features(image, inside),
        rtol=1e-5,
    )


def test_gain_and_offset_are_seen_by_intensity_alone() -> None:
    image = textured()
    changed = classic_features(3 * image + 700) - classic_features(image)
    differs = {name for name, by in zip(NAMES, changed, strict=True) if abs(by) > 2e-2}
    assert {name.split("_")[1] for name in differs} == {"intensity"}


def test_texture_tells_fine_from_coarse() -> None:
    fine, coarse = textured(sigma=0.7), textured(sigma=4)
    assert of(fine, "protein_granularity_1px") > 3 * of(coarse, "protein_granularity_1px")
    # The second of Haralick's measures is contrast between neighbours.
    assert of(fine, "protein_haralick_1px_1") > 3 * of(coarse, "protein_haralick_1px_1")


def test_haralick_is_that_of_a_plain_count_of_pairs() -> None:
    grey = np.random.default_rng(3).integers(0, 256, (20, 17)).astype(np.uint8)
    inside = disk(20, 8)[:, 1:18]
    levels = np.where(inside, grey // 8 + 1, 0)
    energy = []
    for dy, dx in ((0, 1), (1, 1), (1, 0), (1, -1)):
        pairs = np.zeros((33, 33))
        for y, x in np.argwhere(inside):
            if 0 <= y + dy < 20 and 0 <= x + dx < 17 and inside[y + dy, x + dx]:
                a, b = levels[y, x], levels[y + dy, x + dx]
                pairs[a, b] += 1
                pairs[b, a] += 1
        energy.append(((pairs / pairs.sum()) ** 2).sum())
    found = classic._haralick(grey, inside, 1)
    assert found[0] == pytest.approx(np.mean(energy))
    assert found[13] == pytest.approx(np.ptp(energy))


def test_granularity_is_what_openings_take_away() -> None:
    grey = np.zeros((60, 60), np.uint8)
    y, x = np.mgrid[:60, :60]
    for centre, radius in ((10, 2), (40, 7)):
        grey[np.hypot(y - centre, x - centre) <= radius] = 200
    lost = classic._granularity(grey)
    small, large = (grey[:25, :25] > 0).sum(), (grey[25:, 25:] > 0).sum()
    assert lost[:3].sum() == pytest.approx(small / (small + large), abs=0.05)
    assert lost.sum() == pytest.approx(1, abs=0.02)


def test_zernike_moments_do_not_turn_with_the_cell() -> None:
    image = np.where(disk(), textured(sigma=4), 0)
    a, b = (classic._zernike(classic._stretched(one, disk())) for one in (image[1], image[1].T))
    np.testing.assert_allclose(a, b, atol=2e-3)
    assert np.abs(a).max() > 0.1


def test_spread_is_that_of_the_pixels() -> None:
    from scipy import stats

    grey = np.random.default_rng(4).integers(0, 200, 4000).astype(np.uint8)
    skewness, kurtosis, entropy, bright, contrast = classic._spread(grey)
    assert skewness == pytest.approx(stats.skew(grey))
    assert kurtosis == pytest.approx(stats.kurtosis(grey, fisher=False))
    assert entropy == pytest.approx(stats.entropy(np.bincount(grey), base=2))
    assert bright == pytest.approx(0.5, abs=0.05)
    assert contrast == pytest.approx(100 / 255, rel=0.05)


def test_channels_are_compared() -> None:
    a = textured()[0]
    same, apart = np.stack([a, 2 * a]), np.stack([a, a.max() - a])
    assert of(same, "nucleus_protein_pearson") == pytest.approx(1, abs=1e-5)
    assert of(apart, "nucleus_protein_pearson") == pytest.approx(-1, abs=1e-5)
    assert of(same, "nucleus_protein_share_of_first") > of(apart, "nucleus_protein_share_of_first")


@pytest.mark.parametrize("inside", ["none", "one pixel", "a line", "flat"])
def test_there_is_always_an_answer(inside: str) -> None:
    image, mask = textured(), np.zeros((48, 48), bool)
    if inside == "one pixel":
        mask[5, 5] = True
    elif inside == "a line":
        mask[5] = True
    elif inside == "flat":
        image, mask = np.full_like(image, 700), disk()
    assert np.isfinite(classic_features(image, mask)).all()
