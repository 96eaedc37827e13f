"""Samples of a store, as the training is given them."""

import dataclasses
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
from zarrloc.errors import ConfigError
from zarrloc.groups.crops import Crops
from zarrloc.pixels import measure
from zarrloc.pretraining.data import Beside, nested_subset
from zarrloc.pretraining.samples import ENOUGH, Data, open_data
from zarrloc.stages.ingest import ingest
from zarrloc.store.location import Location

CELLS = {"level": "cell", "cells": "cp", "crop_um": 4.95}  # 24 px
TOGETHER = {"tokens": "channel", "objective": "simclr", "views": "protein", "cache": "ram"}
MOST = 65_535


def make_store(path: Path, unit: int | None = None, protein: tuple[str, ...] = ("",) * 3) -> Path:
    """Three fields of 4 cells; with a `unit`, of float32 in units of so many counts."""
    raw, tables, masks = path.with_suffix(".raw"), [], []
    raw.mkdir()
    for fov in range(3):
        image, mask = make_field(4, 60, fov)
        masks.append(mask)
        tables.append(measure.cells(image, mask, np.float32(BACKGROUND), 24))
        stored = np.float32(image / unit) if unit else image
        tifffile.imwrite(raw / f"f{fov}.tif", stored, imagej=True, metadata={"axes": "CYX"})
    settings = IngestConfig(channels=("nucleus", "protein"), pixel_size_um=0.2063, shard_fovs=2)
    ingest(raw, path, settings, run=RunConfig(cluster="serial"))
    location = Location.of(path)
    revise(location, "fovs", protein=(("fov",), np.array(protein)))
    mask = {"mask": (("fov", "y", "x"), np.stack(masks))}
    write_group(location, "segmentations/cp", mask, attrs={})
    table = {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
    table |= {"fov_index": np.repeat(np.arange(3), 4), "keep": np.arange(12) != 5}
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
        ):
            held_out(*folds)


def test_some_samples_have_every_channel_between_them() -> None:
    """However few are asked for; those that have all channels are what they always were."""
    present = np.ones((5020, 3), bool)
    present[:5000, 2] = present[5000:, 0] = False
    grade, protein = np.zeros((5020, 0), np.uint8), np.full(5020, "")
    without = Data(None, 0, grade, protein, "")  # type: ignore[arg-type]
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
