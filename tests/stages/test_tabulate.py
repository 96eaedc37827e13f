"""The table of cells: every object measured once, whatever the blocks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.image_files import write
from tests.stages.conftest import FOVS, SERIAL, bright_spots
from tests.written import revise
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine import cluster
from zarrloc.engine.telemetry import Summary
from zarrloc.engine.verify import verify
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.segmentations import read_fields
from zarrloc.pixels import measure
from zarrloc.simulate import Nuclei, simulate_nuclei
from zarrloc.stages.ingest import ingest
from zarrloc.stages.label import label
from zarrloc.stages.segment import segment, segment_fovs, tabulate
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location

CONFIG = SegmentConfig()
Fresh = Callable[[str], Path]


def run(store: Path, function: Any = bright_spots, **options: Any) -> Summary:
    return segment(store, CONFIG, "spots", function=function, run=SERIAL, **options)[1]


def opened(store: Path) -> xr.Dataset:
    return xr.open_zarr(store, group="cells/spots").load()


def test_masks_and_table_are_made_by_one_cluster(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    executor = cluster.executor

    def noted(kind: str, *arguments: Any, **options: Any) -> Any:
        started.append(kind)
        return executor(kind, *arguments, **options)

    monkeypatch.setattr(cluster, "executor", noted)
    run(fresh("a.zarr"), block_cells=3)
    assert started == ["serial"]


def test_rows_are_what_each_field_measures(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    assert run(store, block_cells=3).exit_code == 0
    fovs, masks = (xr.open_zarr(store, group=g).load() for g in ("fovs", "segmentations/spots"))
    table = opened(store)
    assert table.sizes["cell"] == masks.cell_count.sum() > 6
    for row in range(FOVS):
        mine = table.isel(cell=(table.fov_index == row).values)
        expected = measure.cells(
            fovs.image.values[row], masks.mask.values[row], fovs.background.values[row], 256
        )
        for name, values in expected.items():
            np.testing.assert_array_equal(mine[name].values, values, err_msg=name)
        assert set(mine.protein.values) <= {fovs.protein.values[row]}
    assert (np.diff(table.fov_index) >= 0).all()
    np.testing.assert_array_equal(table.keep, table.blank_fraction <= np.float32(0.997))
    assert list(table.channel.values) == ["nucleus", "protein"]


def test_blocks_do_not_matter(fresh: Fresh) -> None:
    few, many = fresh("a.zarr"), fresh("b.zarr")
    run(few, block_cells=2)
    run(many, block_cells=1000)
    receipts = ["block_input", "block_output", "block_bytes"]
    xr.testing.assert_identical(
        opened(few).drop_vars(receipts).drop_attrs(), opened(many).drop_vars(receipts).drop_attrs()
    )


def test_each_field_is_read_once_a_block(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fresh("a.zarr")
    read: list[tuple[int, int]] = []
    original = read_fields

    def counting(location: Any, name: str, start: int, stop: int, *rest: Any) -> Any:
        read.append((start, stop))
        return original(location, name, start, stop, *rest)

    monkeypatch.setattr("zarrloc.tasks.measure_cells.read_fields", counting)
    run(store, block_cells=4)
    index = opened(store).fov_index.values
    parts = [index[start : start + 4] for start in range(0, len(index), 4)]
    expected = [(part[0], part[-1] + 1) for part in parts]
    assert read == expected


def first_fields(raw: Path, folder: Path, store: Path) -> list[Path]:
    """Ingest three fields out of `folder`; the files that are to follow."""
    files = sorted(raw.iterdir())
    folder.mkdir()
    for file in files[:3]:
        shutil.copy2(file, folder)
    ingest(folder, store, IngestConfig(shard_fovs=2), run=SERIAL)
    return files[3:]


def test_fields_that_came_since_the_masks_are_left_to_the_next_run(
    raw: Path, tmp_path: Path
) -> None:
    """An ingest may add fields between the two halves of a `segment`."""
    folder, store, whole = tmp_path / "raw", tmp_path / "a.zarr", tmp_path / "b.zarr"
    later = first_fields(raw, folder, store)
    segment_fovs(store, CONFIG, "spots", function=bright_spots, run=SERIAL)
    for file in later:
        shutil.copy2(file, folder)
    for path in (store, whole):
        ingest(folder, path, IngestConfig(shard_fovs=2), run=SERIAL)
    early = tabulate(store, "spots", run=SERIAL)
    assert early.exit_code == 0
    assert set(opened(store).fov_index.values) == {0, 1, 2}
    assert "ingested since: 2;" in " ".join(early.notes)
    for path in (store, whole):
        assert run(path).exit_code == 0
    np.testing.assert_array_equal(opened(store).mask_label, opened(whole).mask_label)
    np.testing.assert_array_equal(opened(store).fov_index, opened(whole).fov_index)


def test_new_fields_append_rows(raw: Path, tmp_path: Path) -> None:
    folder, store, whole = tmp_path / "raw", tmp_path / "a.zarr", tmp_path / "b.zarr"
    later = first_fields(raw, folder, store)
    run(store, block_cells=4)
    before = opened(store)
    for file in later:
        shutil.copy2(file, folder)
    ingest(folder, store, run=SERIAL)
    run(store)
    ingest(folder, whole, IngestConfig(shard_fovs=2), run=SERIAL)
    run(whole, block_cells=4)
    xr.testing.assert_identical(opened(store).drop_attrs(), opened(whole).drop_attrs())
    first = opened(store).isel(cell=slice(0, before.sizes["cell"]))
    xr.testing.assert_identical(
        first.drop_dims("block").drop_attrs(), before.drop_dims("block").drop_attrs()
    )


def test_judgements_grow_with_the_table(raw: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "raw", tmp_path / "a.zarr"
    later = first_fields(raw, folder, store)
    run(store)
    table = tmp_path / "judged.csv"

    def judge(row: int) -> None:
        cells = opened(store)
        fov, cell = str(cells.fov.values[row]), int(cells.mask_label.values[row])
        table.write_text(f"fov,mask_label,whole,confirmed\n{fov},{cell},yes,yes\n")
        label(store, "spots", table)

    judge(0)
    few = opened(store).sizes["cell"]
    for file in later:
        shutil.copy2(file, folder)
    ingest(folder, store, run=SERIAL)
    run(store)
    cells = opened(store)
    assert cells.sizes["cell"] > few
    assert np.flatnonzero(cells.expert_seen).tolist() == [0]
    judge(cells.sizes["cell"] - 1)
    assert np.flatnonzero(opened(store).expert_seen).tolist() == [0, cells.sizes["cell"] - 1]
    assert run(store).blocks_run == 0
    assert not any(found.faults for found in verify(store, deep=True))


def test_changed_counts_make_the_table_again(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    run(store)
    fewer = lambda image, roles: np.minimum(bright_spots(image, roles), 1)  # noqa: E731
    summary = run(store, fewer, overwrite=True)
    assert opened(store).sizes["cell"] == FOVS
    # Only the masks are overwritten here; the table finds out by itself.
    segment_fovs(store, CONFIG, "spots", function=bright_spots, run=SERIAL, overwrite=True)
    with pytest.raises(ConfigError, match="input segmentations/spots"):
        tabulate(store, "spots", run=SERIAL)
    assert summary.exit_code == 0


def test_judgements_are_not_dropped_unasked(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    run(store)
    location = Location.of(store)
    count = opened(store).sizes["cell"]
    revise(location, "cells/spots", expert_seen=(("cell",), np.arange(count) < 2))
    masks = "segmentations/spots"
    counts = read_column(location.group(masks, mode="r"), "cell_count")
    revise(location, masks, cell_count=(("fov",), np.maximum(counts - 1, 0)))
    with pytest.raises(ConfigError, match="the judgements of 2 cells would go with it"):
        tabulate(store, "spots", run=SERIAL)
    assert opened(store).expert_seen.sum() == 2
    revise(location, masks, cell_count=(("fov",), counts))
    summary = tabulate(store, "spots", run=SERIAL, overwrite=True)
    assert any("judgements of 2 cells" in note for note in summary.notes)


def test_keep_percentile_is_taken_over_all_cells(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    run(store, keep_percentile=50.0)
    table = opened(store)
    limit = np.percentile(table.blank_fraction, 50)
    np.testing.assert_array_equal(table.keep, table.blank_fraction <= limit)
    with pytest.raises(ConfigError, match="expected 0 to 100"):
        run(fresh("b.zarr"), keep_percentile=101.0)


def test_objects_that_cannot_be_cells_are_not_kept_and_their_fields_named(tmp_path: Path) -> None:
    scene = Nuclei(shape=(128, 128), count=4, diameter_px=32, touching=0)
    for number in range(10):
        image, truth = simulate_nuclei(scene, number)
        truth = {3: np.ones_like(truth), 6: np.zeros_like(truth)}.get(number, truth)
        write(tmp_path / "raw" / f"f{number}.tif", np.stack([image, truth]))
    config = IngestConfig(channels=("nucleus", "truth"))
    ingest(tmp_path / "raw", tmp_path / "s.zarr", config, run=SERIAL)
    store = tmp_path / "s.zarr"
    summary = run(store, lambda image, roles: image[1].astype(int))
    table = opened(store)
    assert table.sizes["cell"] > 20
    assert table.fov_index.values[~table.keep.values].tolist() == [3]
    said = "\n".join(summary.notes)
    assert "0 dropped as blank crops, 1 as no cells" in said
    assert "without any object: f6 (0)" in said
    assert "far larger or smaller objects than the others: f3 (1)" in said


def test_a_store_without_cells_has_an_empty_table(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    summary = run(store, lambda image, roles: np.zeros(image[0].shape, int))
    assert summary.exit_code == 0
    assert opened(store).sizes["cell"] == 0


def test_without_masks_it_says_what_makes_them(fresh: Fresh) -> None:
    with pytest.raises(StoreError, match="zarrloc segment"):
        tabulate(fresh("a.zarr"), "nothing", run=SERIAL)
