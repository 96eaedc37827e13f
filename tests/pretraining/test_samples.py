"""Samples of a store, as the training is given them."""

import dataclasses
import itertools
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from tests.stores import BACKGROUND, make_field
from tests.written import put, revise, write_group
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.run import RunConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.crops import Crops
from zarrloc.models.channels import resolve
from zarrloc.pixels import measure
from zarrloc.pretraining.data import Beside, nested_subset
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.samples import ENOUGH, Data, cached, open_data, refuse_blank
from zarrloc.stages.ingest import ingest
from zarrloc.store.location import Location

CELLS = {"level": "cell", "cells": "cp", "crop_um": 4.95}  # 24 px
TOGETHER = {"tokens": "channel", "objective": "simclr", "views": "protein", "cache": "ram"}
MOST = 65_535


def make_store(
    path: Path,
    unit: int | None = None,
    protein: tuple[str, ...] = (),
    channels: tuple[str, ...] = ("nucleus", "protein"),
    side: int = 60,
    count: int = 3,
) -> Path:
    """Fields of 4 cells; with a `unit`, of float32 in units of so many counts."""
    raw, tables, masks = path.with_suffix(".raw"), [], []
    raw.mkdir()
    for fov in range(count):
        image, mask = make_field(4, side, fov)
        masks.append(mask)
        tables.append(measure.cells(image, mask, np.float32(BACKGROUND), 24))
        stored = np.float32(image / unit) if unit else image
        tifffile.imwrite(raw / f"f{fov}.tif", stored, imagej=True, metadata={"axes": "CYX"})
    settings = IngestConfig(channels=channels, pixel_size_um=0.2063, shard_fovs=2)
    ingest(raw, path, settings, run=RunConfig(cluster="serial"))
    location = Location.of(path)
    revise(location, "fovs", protein=(("fov",), np.array(protein or [""] * count)))
    mask = {"mask": (("fov", "y", "x"), np.stack(masks))}
    write_group(location, "segmentations/cp", mask, attrs={})
    table = {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
    table |= {"fov_index": np.repeat(np.arange(count), 4), "keep": np.arange(4 * count) != 5}
    columns = {key: (measure.COLUMNS[key].dims, table[key]) for key in measure.COLUMNS}
    write_group(location, "cells/cp", columns, attrs={})
    return path


def opened(path: Path, **changes: Any) -> Data:
    return open_data(Location.of(path), PretrainConfig.of({"arch": "x", **changes}))


def test_cells_of_counts_are_whole_counts(tmp_path: Path) -> None:
    """Rounded, to the bit; nothing else is done to them."""
    data = opened(make_store(tmp_path / "oc.zarr"), **CELLS)
    crops = Crops(tmp_path / "oc.zarr", "cp", size=24, crop_um=4.95)
    expected = torch.stack([crops[int(row)] for row in data.source.stored]).numpy()
    found = data.source.load(np.arange(len(expected)))
    assert found.dtype == data.source.dtype == np.uint16
    np.testing.assert_array_equal(found, np.rint(expected))


def test_the_detail_is_that_of_the_largest_view(tmp_path: Path) -> None:
    """Cells of 24 px, or fields of 60, of which a view of 8 px shows a quarter at most."""
    store = make_store(tmp_path / "oc.zarr")
    views: dict[str, Any] = {"size": 8, "global_scale": (0.1, 0.25)}
    for level, side in ((CELLS, 24), ({}, 60)):
        config = PretrainConfig.of({"arch": "x", **level, **views})
        detail = open_data(Location.of(store), config).detail(config)
        assert detail == pytest.approx((side / 2 / 8, 0.2063 * side / 2 / 8))


def test_cells_of_intensities_below_1_keep_their_pixels(tmp_path: Path) -> None:
    """A store of float32 in 0..1 trains on the same pictures as one of counts."""
    counts = opened(make_store(tmp_path / "counts.zarr"), **CELLS).source
    unit = make_store(tmp_path / "unit.zarr", MOST)
    source = opened(unit, **CELLS).source
    rows = np.arange(len(source.stored))
    found, expected = source.load(rows), counts.load(rows) / MOST
    assert found.dtype == source.dtype == np.float32
    assert len(np.unique(found)) > 100
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_unnamed_fields_of_two_stores_are_no_siblings(tmp_path: Path) -> None:
    """Even of one name; fields of one protein are, across stores too."""
    one, two = (make_store(tmp_path / f"{i}.zarr", None, ("P0", "", "")) for i in range(2))
    data = opened(one, **TOGETHER, also=(str(two),))
    assert data.beside.siblings is not None
    random = torch.Generator().manual_seed(0)
    drawn = data.beside.siblings.drawn(np.arange(6), random)
    assert drawn.tolist() == [3, 1, 2, 0, 4, 5]
    three, four = (make_store(tmp_path / f"{i}.zarr") for i in (3, 4))
    with pytest.raises(ConfigError, match="no protein has two fields"):
        opened(three, **TOGETHER, also=(str(four),))


def test_a_protein_held_out_of_one_store_is_trained_on_in_none(tmp_path: Path) -> None:
    """By name, it would be no proof; fields without a name may have those of another store."""
    one, two = (make_store(tmp_path / f"{i}.zarr", None, ("P0", "P0", "")) for i in range(2))
    given = {**TOGETHER, "also": (str(two),), "split": "s"}

    def held_out(*folds: list[int]) -> Data:
        for path, fold in zip((one, two), folds, strict=True):
            columns = {"fold": (("fov",), np.array(fold, np.int8))}
            write_group(Location.of(path), "splits/s", columns, attrs={})
        return opened(one, **given)

    data = held_out([0, 1, -1], [1, 0, 2])
    assert data.protein.tolist() == ["P0", "P0", "P0", "P0", "store 1 field f2"]
    for folds in (([-1, -1, 0], [0, 0, 1]), ([0, 0, 1], [-1, -1, 0])):
        with pytest.raises(
            ConfigError, match="holds out fields of 1 that it trains on, such as P0"
        ) as refused:
            held_out(*folds)
        assert "held out in each store" in str(refused.value)
    alone = {**TOGETHER, **split(one, -1, 0, 1)}
    with pytest.raises(ConfigError, match=r"\(`zarrloc split --group protein`\)$"):
        opened(one, **alone)


def test_some_samples_have_every_channel_between_them() -> None:
    """However few are asked for; those that have all channels are what they always were."""
    present = np.ones((5020, 3), bool)
    present[:5000, 2] = present[5000:, 0] = False
    grade, protein = np.zeros((5020, 0), np.uint8), np.full(5020, "")
    without = Data(None, 0, grade, protein, "", None)  # type: ignore[arg-type]
    data = dataclasses.replace(without, beside=Beside(present))
    drawn = nested_subset(5020, 50, 0)
    assert not present[drawn, 2].any(), "or this test shows nothing"
    np.testing.assert_array_equal(without.some(50, 0), drawn)
    found = data.some(50, 0)
    assert set(drawn.tolist()) < set(found.tolist())
    assert present[found, 2].sum() == ENOUGH
    assert (np.diff(found) > 0).all()
    np.testing.assert_array_equal(data.some(4000, 0), nested_subset(5020, 4000, 0))


@pytest.mark.parametrize("also", [False, True])
def test_a_store_with_nothing_to_train_on_is_refused(tmp_path: Path, also: bool) -> None:
    """It says what is missing, also of one store of several."""
    bad = make_store(tmp_path / "bad.zarr")
    first, given = bad, {}
    if also:
        first = make_store(tmp_path / "good.zarr")
        given = {"also": (str(bad),), "tokens": "channel"}
    put(Location.of(bad), "cells/cp", "keep", slice(None), False)
    with pytest.raises(ConfigError, match=r"bad\.zarr: cells/cp has no cell that was kept"):
        opened(first, **CELLS, **given)
    put(Location.of(bad), "fovs", "error", slice(None), "torn")
    for level in ({}, CELLS):
        with pytest.raises(ConfigError, match=r"bad\.zarr: all 3 fields have an error or are held"):
            opened(first, **level, **given)


def split(path: Path, *fold: int) -> dict[str, str]:
    """A split of the fields, and the setting that names it."""
    columns = {"fold": (("fov",), np.array(fold, np.int8))}
    write_group(Location.of(path), "splits/s", columns, attrs={})
    return {"split": "s"}


def fields(path: Path) -> np.ndarray:
    return np.stack([tifffile.imread(raw) for raw in sorted(path.with_suffix(".raw").iterdir())])


def test_fields_are_those_of_the_store(tmp_path: Path) -> None:
    """Pixels, shards of two fields, and sides, whichever are asked for."""
    store = make_store(tmp_path / "a.zarr")
    data, truth = opened(store), fields(store)
    assert (data.fields, data.source.roles) == (3, ("nucleus", "protein"))
    assert data.source.shape == truth.shape[1:]
    assert data.source.shard.tolist() == [0, 0, 1]
    assert data.source.extents.tolist() == [[60, 60]] * 3
    for rows in ([0, 1], [2], [1], [0, 2]):
        np.testing.assert_array_equal(data.source.load(np.array(rows)), truth[rows])
    assert data.source.decodes == 6
    assert "nothing, every field is trained on" in data.held_out


def test_any_run_of_fields_is_read_whole(tmp_path: Path) -> None:
    """Wherever it begins, and with gaps between."""
    store = make_store(tmp_path / "a.zarr", count=5)
    source, truth = opened(store).source, fields(store)
    for rows in (*itertools.combinations(range(5), 1), *itertools.combinations(range(5), 3)):
        np.testing.assert_array_equal(source.load(np.array(rows)), truth[[*rows]])


def test_the_test_part_of_a_split_is_held_out(tmp_path: Path) -> None:
    """The first fold is trained on; rows count from 0 among those that are."""
    store = make_store(tmp_path / "a.zarr")
    data = opened(store, **split(store, -1, 0, 1))
    assert data.source.stored.tolist() == data.source.fov.tolist() == [1, 2]
    assert data.source.shard.tolist() == [0, 1]
    np.testing.assert_array_equal(data.source.load(np.array([0, 1])), fields(store)[1:])
    assert data.held_out == "the test part of split 's', 1 fields"
    cells = opened(store, **CELLS, **split(store, -1, 0, 1))
    assert set(cells.source.fov.tolist()) == {1, 2}
    assert len(cells.source.stored) == 8 - 1, "one was not kept"
    assert "no test part: every field" in opened(store, **split(store, 0, 1, 2)).held_out
    with pytest.raises(StoreError, match="'splits/s' knows 2 fields, the store has 3"):
        opened(store, **split(store, 0, -1))


def test_a_fraction_is_of_the_training_fields(tmp_path: Path) -> None:
    """Rounded; none at all is refused."""
    store = make_store(tmp_path / "a.zarr")
    counts = {part: opened(store, fraction=part).fields for part in (0.3, 0.5, 0.7, 1.0)}
    assert counts == {0.3: 1, 0.5: 2, 0.7: 2, 1.0: 3}
    assert len(opened(store, fraction=0.7, seed=3).source.stored) == 2
    with pytest.raises(ConfigError, match=r"--fraction 0\.1 of 3 training fields leaves none"):
        opened(store, fraction=0.1)


def test_cells_are_decoded_a_field_at_a_time(tmp_path: Path) -> None:
    """In windows of one side, without padding; samples of one field are of its shard."""
    source = opened(make_store(tmp_path / "a.zarr"), **CELLS).source
    assert source.shape == (2, 24, 24)
    assert source.extents.tolist() == [[24, 24]] * 11
    assert source.shard.tolist() == [0] * 7 + [1] * 4
    assert source.fov.tolist() == [0] * 4 + [1] * 3 + [2] * 4
    whole = source.load(np.arange(7))
    assert source.decodes == 2
    np.testing.assert_array_equal(source.load(np.array([2, 5])), whole[[2, 5]])


def together(tmp_path: Path, second: tuple[str, ...], **settings: Any) -> Data:
    """Two stores, the second of smaller fields and other channels."""
    make_store(tmp_path / "a.zarr")
    make_store(tmp_path / "b.zarr", channels=second, side=48)
    given = {"tokens": "channel", "also": (str(tmp_path / "b.zarr"),), **settings}
    return opened(tmp_path / "a.zarr", **given)


def test_stores_are_joined_channel_by_channel(tmp_path: Path) -> None:
    """What a store lacks is 0 there, beyond its smaller fields too."""
    data = together(tmp_path, ("protein", "er"))
    source = data.source
    assert source.roles == ("nucleus", "protein", "er")
    assert source.shape == (3, 60, 60)
    assert source.extents.tolist() == [[60, 60]] * 3 + [[48, 48]] * 3
    assert source.stored.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.shard.tolist() == [0, 0, 1, 2, 2, 3]
    assert source.fov.tolist() == [0, 1, 2, 3, 4, 5]
    present = data.beside.present
    assert present is not None
    assert present.tolist() == [[True, True, False]] * 3 + [[False, True, True]] * 3
    one, two = fields(tmp_path / "a.zarr"), fields(tmp_path / "b.zarr")
    expected = np.zeros((6, 3, 60, 60), np.uint16)
    expected[:3, :2] = one
    expected[3:, 1:, :48, :48] = two
    for rows in ([0, 1], [2], [3, 4], [5]):
        np.testing.assert_array_equal(source.load(np.array(rows)), expected[rows])
    assert source.decodes == 6
    assert (data.fields, len(data.grade), len(data.protein)) == (6, 6, 6)
    assert not data.grade[3:].any()
    assert data.held_out.startswith("a.zarr: nothing")
    assert "; b.zarr: nothing" in data.held_out


def test_only_the_first_stores_labels_count(tmp_path: Path) -> None:
    """Another's may be of other names; its samples have none here."""
    grade = np.array([[3, 0], [0, 3], [1, 2]], np.uint8)
    paths = [make_store(tmp_path / f"{name}.zarr") for name in "ab"]
    names = {"label": (("label",), np.array(["x", "y"])), "grade": (("fov", "label"), grade)}
    revise(Location.of(paths[0]), "fovs", **names)
    first, second = paths
    found = opened(first, tokens="channel", also=(str(second),)).grade
    np.testing.assert_array_equal(found, np.concatenate([grade, grade * 0]))
    assert opened(second, tokens="channel", also=(str(first),)).grade.shape == (6, 0)


def test_a_store_that_shows_the_network_nothing_is_refused(tmp_path: Path) -> None:
    data = together(tmp_path, ("er", "mito"))
    roles = data.source.roles
    refuse_blank(data, resolve("natural", roles, roles, "natural"))
    refuse_blank(data, resolve("protein=0,er=1", ("x", "y"), roles, "natural"))
    with pytest.raises(ConfigError, match="3 of 6 samples have none of the channels that go"):
        refuse_blank(data, resolve("protein=0,nucleus=1", ("x", "y"), roles, "natural"))
    refuse_blank(dataclasses.replace(data, beside=Beside()), resolve("er=0", ("x",), roles, ""))


def test_counts_and_fractions_are_not_trained_on_together(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr")
    make_store(tmp_path / "b.zarr", MOST)
    with pytest.raises(ConfigError, match="need pixels of one type; got float32 and uint16"):
        opened(tmp_path / "a.zarr", tokens="channel", also=(str(tmp_path / "b.zarr"),))


def test_a_cache_in_a_file_is_its_users_alone_and_soon_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others map it between the first two waits; after the third its pixels are there."""
    store = make_store(tmp_path / "a.zarr")
    folder = tmp_path / "held"
    folder.mkdir()
    met: list[list[int]] = []

    def barrier(self: World) -> None:
        met.append([stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()])

    monkeypatch.setattr(World, "barrier", barrier)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    config, source = PretrainConfig(arch="x", cache="ram"), opened(store).source
    cached(config, source, Location.of(store), World(), torch.device("cpu"))
    assert met == [[0o600], [0o600], []]


@pytest.mark.parametrize("level", [{}, CELLS], ids=["fov", "cell"])
def test_every_cache_has_the_pixels_of_the_store(
    tmp_path: Path, level: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded once; a file in memory leaves nothing behind, and no more than fits is begun."""
    store = make_store(tmp_path / "a.zarr")
    location, held = Location.of(store), tmp_path / "held"
    held.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(held))
    data = opened(store, **level)
    count = len(data.source.stored)
    expected = np.concatenate(
        [data.source.load(np.flatnonzero(data.source.shard == shard)) for shard in (0, 1)]
    )
    for cache in ("none", "ram", "device"):
        config, source = PretrainConfig(arch="x", cache=cache), opened(store, **level).source
        found, resident = cached(config, source, location, World(), torch.device("cpu"))
        assert resident is None
        assert (found is source) == (cache == "none")
        if found is not source:
            decoded = source.decodes
            np.testing.assert_array_equal(found.load(np.arange(count)[::-1]), expected[::-1])
            assert source.decodes == decoded == 3, "each field once, before it is asked for"
            assert (found.roles, found.dtype) == (source.roles, source.dtype)
            np.testing.assert_array_equal(found.shard, source.shard)
            np.testing.assert_array_equal(found.extents, source.extents)
    assert not [*held.iterdir()]
    config, source, size = PretrainConfig(arch="x", cache="ram"), data.source, expected.nbytes
    for free in (size, size - 1):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path, found=usage: found)
        if free == size:
            cached(config, source, location, World(), torch.device("cpu"))
            continue
        with pytest.raises(ConfigError, match="--cache ram needs"):
            cached(config, source, location, World(), torch.device("cpu"))
    assert not [*held.iterdir()]
