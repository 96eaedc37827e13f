"""What the guard's figure is held against."""

from pathlib import Path

import numpy as np

from tests.labelled_store import add_cells, make_store, write_embedding
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.backbones import CLASSIC
from zarrloc.pretraining.baselines import (
    brightness_of,
    dealt,
    neighbour_baselines,
    standardised,
)
from zarrloc.pretraining.data import Arrays
from zarrloc.pretraining.samples import Data
from zarrloc.scoring.baselines import intensity_statistics
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs

TITLES = ["permuted labels", "intensity statistics", "classic features"]


class Cells(Arrays):
    """Samples that stand in other rows of an embedding than here."""

    stored: np.ndarray


def known(store: Path, rows: np.ndarray, fields: np.ndarray) -> Data:
    """Samples `rows` of the store, of these fields, without pixels that tell them apart."""
    fovs = need(Location.of(store), "fovs", "ingest")
    noise = np.random.default_rng(0).integers(400, 600, (len(rows), 2, 6, 6)).astype(np.uint16)
    source = Cells(noise, ("nucleus", "protein"), rows * 0, np.full((len(rows), 2), 6))
    source.stored = rows
    grade, protein = read_column(fovs, "grade"), read_column(fovs, "protein")
    return Data(source, len(rows), grade[fields], np.array(list(protein))[fields], "", None)  # type: ignore[arg-type]


def add_embedding(store: Path, name: str, features: np.ndarray, **settings: str) -> None:
    """One of whole fields."""
    location = Location.of(store)
    fovs = need(location, "fovs", "ingest")
    names = read_column(fovs, "fov"), read_column(fovs, "protein")
    write_embedding(location, name, features, *names, stage_attrs(fovs), **settings)


def test_classic_features_are_those_of_the_same_samples(tmp_path: Path) -> None:
    """Only of an embedding by classic features, of this level, that has all of these samples."""
    store = make_store(tmp_path / "a.zarr")
    rows = np.arange(3, 150)[::-1]
    data, location = known(store, rows, rows), Location.of(store)
    config = PretrainConfig(arch="x")
    some = np.arange(len(rows))
    assert list(neighbour_baselines(location, config, data, some)) == TITLES[:2]
    truth = (read_column(need(location, "fovs", "ingest"), "grade") == 3).astype(np.float32)
    add_embedding(store, "a", truth, backbone="vit", level="fov")
    add_embedding(store, "b", truth, backbone=CLASSIC, level="cell")
    holes = truth.copy()
    holes[rows[5]] = np.nan
    add_embedding(store, "c", holes, backbone=CLASSIC, level="fov")
    assert list(neighbour_baselines(location, config, data, some)) == TITLES[:2]
    add_embedding(store, "d", truth, backbone=CLASSIC, level="fov")
    found = neighbour_baselines(location, config, data, some)
    assert list(found) == TITLES
    assert found["classic features"] > 0.9 > 0.5 > found["intensity statistics"]
    assert found["permuted labels"] < 0.5
    # Without the samples that lie in another store, too.
    several = config.model_copy(update={"tokens": "channel", "also": ("b.zarr",)})
    assert list(neighbour_baselines(location, several, data, some)) == TITLES[:2]


def test_an_embedding_older_than_the_last_ingest_is_left_alone(tmp_path: Path) -> None:
    """Though it has all the samples: the training goes on without."""
    store = make_store(tmp_path / "a.zarr")
    location = Location.of(store)
    fovs, rows = need(location, "fovs", "ingest"), np.arange(50)
    truth = (read_column(fovs, "grade") == 3).astype(np.float32)[:100]
    names = (read_column(fovs, column)[:100] for column in ("fov", "protein"))
    settings = {"backbone": CLASSIC, "level": "fov"}
    write_embedding(location, "d", truth, *names, stage_attrs(fovs), **settings)
    data = known(store, rows, rows)
    assert list(neighbour_baselines(location, PretrainConfig(arch="x"), data, rows)) == TITLES[:2]


def test_classic_features_of_cells_are_of_this_table(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr")
    add_cells(store, expert=False, backbone=CLASSIC)
    rows = np.arange(1, 600)
    data, location = known(store, rows, rows // 3), Location.of(store)
    for cells, titles in (("other", TITLES[:2]), ("cp", TITLES)):
        config = PretrainConfig(arch="x", level="cell", cells=cells)
        assert list(neighbour_baselines(location, config, data, np.arange(599))) == titles
    # Fewer rows than the table has now: it is of other cells.
    more = known(store, np.append(rows, 600), np.append(rows // 3, 0))
    assert list(neighbour_baselines(location, config, more, np.arange(600))) == TITLES[:2]


def test_brightness_is_of_the_real_pixels_in_the_order_asked_for() -> None:
    random = np.random.default_rng(0)
    images = random.integers(1, 900, (5, 2, 8, 8)).astype(np.uint16)
    extents = np.array([[8, 8], [6, 4], [8, 8], [4, 8], [8, 8]])
    source = Arrays(images, ("nucleus", "protein"), np.array([0, 1, 0, 1, 2]), extents)
    rows = np.array([1, 2, 3, 4])
    found = brightness_of(source, rows)
    for each, row in zip(found, rows, strict=True):
        height, width = extents[row]
        real = images[row, :, :height, :width]
        np.testing.assert_array_equal(each, intensity_statistics(real).ravel())


def test_labels_are_dealt_to_other_samples() -> None:
    grade = np.eye(7, dtype=np.uint8)
    other = dealt(grade, 3)
    assert (other != grade).any()
    np.testing.assert_array_equal(np.sort(other.argmax(1)), np.arange(7))
    np.testing.assert_array_equal(other, dealt(grade, 3))
    assert (dealt(grade, 4) != other).any()


def test_features_of_any_unit_count_alike() -> None:
    features = np.array([[1, 100, 5], [3, 500, 5]], np.float32)
    np.testing.assert_allclose(standardised(features), [[-1, -1, 0], [1, 1, 0]])
