"""The watershed on simulated fields of known truth, and on shapes drawn here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cellpose.metrics import average_precision
from scipy.ndimage import gaussian_filter, label
from skimage.draw import disk
from tifffile import imread

from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters import grow, load, segment_block
from zarrloc.segmenters.objects import numbered
from zarrloc.segmenters.watershed import segment_nuclei
from zarrloc.simulate import SCENES, simulate_fov, simulate_nuclei

Image = npt.NDArray[np.float32]


def field(*where: tuple[int, int, float], radius: int = 30, offset: float = 600) -> Image:
    """Blurred discs of the given brightness on a noisy offset, 200 x 260 px."""
    image = np.zeros((200, 260))
    for y, x, brightness in where:
        image[disk((y, x), radius, shape=image.shape)] = brightness
    noise = np.random.default_rng(0).normal(offset, 30, image.shape)
    return (gaussian_filter(image, 1) + noise).astype(np.float32)


def test_simulated_nuclei_and_cells_are_found() -> None:
    segmenter = load(SegmentConfig(model="watershed"))
    nuclei, cells = [], []
    for seed, kind in enumerate(("er", "nucleolus_gc", "big_aggregates")):
        fov = simulate_fov({kind: 3}, shape=(400, 400), seed=seed)
        found = segment_nuclei(fov.image[0].astype(np.float32))
        (grown,) = segment_block(segmenter, [fov.image], ("nucleus", "protein"))
        nuclei.append((fov.nuclei, found))
        cells.append((fov.cells, grown))
        assert found.max() == grown.max()
    assert pooled(nuclei) >= 0.8
    assert pooled(cells) >= 0.6


def pooled(pairs: list[tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]]) -> float:
    """AP at IoU 0.5 over all fields as one, by cellpose's metric."""
    true, found = zip(*pairs, strict=True)
    _, hits, extra, missed = average_precision(list(true), list(found), [0.5])
    return float(hits.sum() / (hits.sum() + extra.sum() + missed.sum()))


def test_touching_nuclei_are_parted_and_dim_ones_kept_beside_bright_ones() -> None:
    mask = segment_nuclei(field((60, 60, 900), (60, 112, 1000), (140, 200, 3000), (150, 60, 700)))
    assert mask.max() == 4
    assert mask[60, 60] != mask[60, 112]
    areas = np.bincount(mask.ravel())[1:]
    np.testing.assert_allclose(areas, np.pi * 30**2, rtol=0.15)


def test_the_middle_of_a_ring_of_nuclei_is_no_nucleus() -> None:
    ring = [
        (round(100 + 51 * np.sin(way)), round(130 + 51 * np.cos(way)), 900.0)
        for way in np.arange(6) * np.pi / 3
    ]
    mask = segment_nuclei(field(*ring, radius=25))
    assert mask.max() == 6
    assert mask[100, 130] == 0


def test_grains_are_no_nuclei_of_their_own() -> None:
    image = np.zeros((200, 260))
    for y, x in ((60, 60), (60, 180), (140, 120)):
        image[disk((y, x), 24)] = 700
    image = gaussian_filter(image, 4)
    for y, x in ((60, 60), (60, 180), (140, 120)):
        for dy, dx in ((-6, -7), (7, 5)):
            image[disk((y + dy, x + dx), 4)] += 900
    image = gaussian_filter(image, 1)
    noise = np.random.default_rng(0).normal(300, 10, image.shape)
    areas = np.bincount(segment_nuclei((image + noise).astype(np.float32)).ravel())[1:]
    np.testing.assert_allclose(areas, [np.pi * 24**2] * 3, rtol=0.2)


def test_nuclei_reach_as_far_as_their_light_around_grains_and_beside_brighter_ones() -> None:
    image = np.zeros((200, 260))
    for y, x in ((50, 60), (50, 190), (140, 120), (150, 210)):
        image[disk((y, x), 16)] = 700
    image = gaussian_filter(image, 4)
    for y, x in ((50, 60), (50, 190), (140, 120), (150, 210)):
        for dy, dx in ((-5, -6), (6, 4), (-4, 6)):
            image[disk((y + dy, x + dx), 4)] += 300
    noise = np.random.default_rng(0).normal(300, 10, image.shape)
    grainy = segment_nuclei((gaussian_filter(image, 1) + noise).astype(np.float32))
    np.testing.assert_allclose(np.bincount(grainy.ravel())[1:], [np.pi * 16**2] * 4, rtol=0.25)
    bright, dim = (50, 60, 6000), (50, 90, 600)
    mask = segment_nuclei(field(bright, dim, (150, 150, 600), radius=16, offset=300))
    areas = np.bincount(mask.ravel())[mask[[50, 50, 150], [58, 96, 150]]]
    np.testing.assert_allclose(areas, [np.pi * 16**2] * 3, rtol=0.1)


def test_what_grows_stays_in_one_piece_and_lets_neighbours_be() -> None:
    image, _ = simulate_nuclei(replace(SCENES["crowded"], shape=(256, 256), count=30), seed=3)
    mask = segment_nuclei(image.astype(np.float32))
    for number in range(1, int(mask.max()) + 1):
        assert label(mask == number, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("seed", [11, 12])
def test_a_cloud_is_no_nucleus_around_those_in_it(seed: int) -> None:
    image, truth = simulate_nuclei(SCENES["cloudy"], seed=seed)
    assert segment_nuclei(image.astype(np.float32)).max() >= 0.9 * truth.max()


def test_a_given_diameter_decides_what_is_debris() -> None:
    image = field((60, 60, 900), radius=30) + field((150, 200, 900), radius=7, offset=0)
    assert segment_nuclei(image, 60).max() == 1
    assert segment_nuclei(image, 12).max() == 2
    assert segment_nuclei(image, 12, min_px=300).max() == 1


def test_a_field_without_light_has_no_nuclei() -> None:
    assert not segment_nuclei(np.zeros((50, 60), np.float32)).any()
    assert not segment_nuclei(np.full((50, 60), 700, np.float32)).any()


@pytest.mark.parametrize("slope", [0, 1500])
@pytest.mark.parametrize("nuclei", [0, 1, 5, 20])
def test_sparse_fields_hold_what_they_hold(nuclei: int, slope: float) -> None:
    rng = np.random.default_rng(0)
    image = np.full((600, 600), 200.0) + slope * np.arange(600) / 600
    truth = np.zeros(image.shape, np.int32)
    for number in range(nuclei):
        inside = disk((70 + 110 * (number // 5), 70 + 110 * (number % 5)), 20)
        image[inside] += 1500
        truth[inside] = number + 1
    found = segment_nuclei(rng.poisson(image).astype(np.float32))
    assert found.max() == nuclei
    if nuclei:
        assert pooled([(truth, found.astype(np.int32))]) == 1


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("empty", 1), ("hazy", 0.95), ("cloudy", 0.9), ("ghosts", 0.9), ("5 px", 0.65),
        ("tenfold", 0.9), ("giants", 0.9), ("few grey levels", 0.95), ("dim", 0.95),
    ],
)  # fmt: skip
def test_nuclei_are_found_however_they_were_taken(name: str, least: float) -> None:
    scene = replace(SCENES[name], shape=(256, 256), count=min(12, SCENES[name].count))
    image, truth = simulate_nuclei(scene, seed=5)
    found = segment_nuclei(image.astype(np.float32))
    if scene.count == 0:
        assert found.max() == 0
    else:
        assert pooled([(truth.astype(np.int32), found.astype(np.int32))]) >= least


def test_real_nuclei_are_found(shared: Callable[..., Path]) -> None:
    image, truth = (
        imread(shared("nuclei-truth", f"stardist_dsb2018_{kind}2d.tif")) for kind in ("img", "mask")
    )
    found = segment_nuclei(image.astype(np.float32))
    assert pooled([(numbered(truth).astype(np.int32), found.astype(np.int32))]) >= 0.78


def test_growth_by_distance_meets_halfway_and_keeps_ids() -> None:
    seeds = np.zeros((11, 21), np.uint32)
    seeds[5, 4], seeds[5, 16] = 7, 3
    grown = grow.by_distance(seeds, 6)
    assert (grown[5, 1:10] == 7).all()
    assert (grown[5, 11:20] == 3).all()
    assert not grown[0, 0]


def seeds_and_ring() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]:
    seeds, cell = np.zeros((200, 260), np.uint32), np.zeros((200, 260), bool)
    seeds[disk((100, 90), 25)] = 4
    cell[disk((100, 90), 45)] = True
    return seeds, cell


def test_a_cell_ends_where_its_light_does() -> None:
    seeds, cell = seeds_and_ring()
    light = field((100, 90, 800), radius=45)
    grown = grow.along_light(seeds, light)
    assert set(np.unique(grown)) == {0, 4}
    assert (grown[cell] == 4).mean() > 0.97
    assert (grown[~cell] == 0).mean() > 0.99


def test_a_cell_with_light_in_the_nucleus_or_none_has_a_rim() -> None:
    seeds, _ = seeds_and_ring()
    radius = np.sqrt((seeds > 0).sum() / np.pi)
    for light in (field((100, 90, 800), radius=20), field(), np.zeros((200, 260), np.float32)):
        area = (grow.along_light(seeds, light) == 4).sum()
        assert 1.3 < np.sqrt(area / np.pi) / radius < 1.5


def test_neighbours_share_their_light_halfway() -> None:
    seeds = np.zeros((200, 260), np.uint32)
    seeds[disk((100, 60), 25)], seeds[disk((100, 140), 25)] = 1, 2
    grown = grow.along_light(seeds, field((100, 100, 800), radius=90))
    assert grown[100, 98] == 1
    assert grown[100, 102] == 2
    assert not grow.along_light(np.zeros_like(seeds), field()).any()
