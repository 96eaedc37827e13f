"""Masks over shards: what each field gets, what a failure costs, and what a killed run leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from tests.stages.conftest import FOVS, SERIAL, SHARD, bright_spots
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ChannelError, ConfigError
from zarrloc.stages.segment import segment_fovs

CONFIG = SegmentConfig()
Fresh = Callable[[str], Path]


def run(store: Path, function: Any = bright_spots, **options: Any) -> Summary:
    return segment_fovs(store, CONFIG, "spots", function=function, run=SERIAL, **options)


def opened(store: Path) -> xr.Dataset:
    return xr.open_zarr(store, group="segmentations/spots").load()


def objects(store: Path) -> dict[str, bytes]:
    chunks = store / "segmentations" / "spots" / "mask" / "c"
    return {str(p.relative_to(chunks)): p.read_bytes() for p in chunks.rglob("*") if p.is_file()}


def test_masks_are_the_functions_own(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    assert run(store).exit_code == 0
    fovs, masks = xr.open_zarr(store, group="fovs").load(), opened(store)
    for row in range(FOVS):
        expected = bright_spots(fovs.image.values[row], ("nucleus", "protein"))
        np.testing.assert_array_equal(masks.mask.values[row], expected)
        assert masks.cell_count[row] == expected.max()
    assert masks.mask.dtype.kind == "u"
    assert list(masks.fov.values) == list(fovs.fov.values)
    assert run(store).blocks_run == 0


def test_ids_are_1_to_n_whatever_the_function_numbers(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    run(store, lambda image, roles: bright_spots(image, roles) * 7)
    masks = opened(store)
    for mask, count in zip(masks.mask.values, masks.cell_count.values, strict=True):
        np.testing.assert_array_equal(np.unique(mask), np.arange(count + 1))


def test_a_field_that_fails_has_an_error_and_zeros(fresh: Fresh) -> None:
    store, plain = fresh("a.zarr"), fresh("b.zarr")
    run(plain)
    bad = xr.open_zarr(store, group="fovs").image.values[2]

    def fails(image: npt.NDArray[Any], roles: tuple[str, ...]) -> npt.NDArray[Any]:
        if np.array_equal(image, bad):
            raise ValueError("no nuclei here")
        return bright_spots(image, roles)

    assert run(store, fails).exit_code == 3
    masks, whole = opened(store), opened(plain)
    assert list(masks.error.values) == ["", "", "ValueError: no nuclei here", "", ""]
    assert masks.mask.values[2].max() == 0
    assert masks.cell_count[2] == 0
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(masks.mask.values[others], whole.mask.values[others])


def test_more_objects_than_the_mask_can_number(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zarrloc.tasks.segment_fovs.MASK_DTYPE", "uint8")
    store = fresh("a.zarr")
    run(store, lambda image, roles: np.arange(image[0].size).reshape(image[0].shape) % 300)
    assert "299 objects, more than uint8 can number (255)" in str(opened(store).error.values[0])


@pytest.mark.parametrize("at", range(-(-FOVS // SHARD)))
def test_stopped_at_any_block_and_resumed(fresh: Fresh, at: int) -> None:
    store, whole = fresh("a.zarr"), fresh("b.zarr")
    stop_at = xr.open_zarr(store, group="fovs").image.values[at * SHARD]
    armed: list[bool] = []

    def stops(image: npt.NDArray[Any], roles: tuple[str, ...]) -> npt.NDArray[Any]:
        if armed and np.array_equal(image, stop_at):
            armed.clear()
            raise KeyboardInterrupt
        return bright_spots(image, roles)

    run(whole, stops)
    armed.append(True)
    with pytest.raises(KeyboardInterrupt):
        run(store, stops)
    assert int((opened(store).block_output == 0).sum()) == 3 - at
    assert run(store, stops).blocks_run == 3 - at
    xr.testing.assert_identical(opened(store).drop_attrs(), opened(whole).drop_attrs())
    assert objects(store) == objects(whole)


def test_watershed_runs_without_weights(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    config = SegmentConfig(model="watershed")
    summary = segment_fovs(store, config, "spots", run=SERIAL)
    assert summary.exit_code == 0
    assert opened(store).cell_count.sum() > 0


def test_other_settings_under_the_same_name_are_refused(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    make = SegmentConfig(model="watershed")
    segment_fovs(store, make, "spots", run=SERIAL)
    with pytest.raises(ConfigError, match="min_size: 15 -> 99"):
        segment_fovs(store, make.model_copy(update={"min_size": 99}), "spots", run=SERIAL)


def test_a_role_the_store_lacks_is_refused(fresh: Fresh) -> None:
    config = SegmentConfig(model="watershed", channels=("er",))
    with pytest.raises(ChannelError, match="er not found"):
        segment_fovs(fresh("a.zarr"), config, "spots", run=SERIAL)
