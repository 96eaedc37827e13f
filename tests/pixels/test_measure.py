"""The cell table against plain numpy on masks of known truth."""

import numpy as np
import pytest
import torch

from tests.stores import BACKGROUND, make_field
from zarrloc.errors import ConfigError
from zarrloc.groups.crops import CropSpec, Field, cut
from zarrloc.pixels import measure


def test_every_measured_column_is_in_the_contract() -> None:
    image, mask = make_field(5)
    table = measure.cells(image, mask, np.float32(BACKGROUND), 64)
    assert set(table) == set(measure.COLUMNS) - {"fov_index", "keep"}
    for name, values in table.items():
        column = measure.COLUMNS[name]
        assert values.dtype == column.dtype
        assert values.shape == ((5, 2) if column.dims == ("cell", "channel") else (5,))


def test_columns_are_what_numpy_says() -> None:
    image, mask = make_field(7, seed=3)
    table = measure.cells(image, mask, np.float32(BACKGROUND), 64)
    assert table["mask_label"].tolist() == list(range(1, 8))
    for row, label in enumerate(table["mask_label"]):
        y, x = np.nonzero(mask == label)
        assert table["centroid_y"][row] == pytest.approx(y.mean())
        assert table["centroid_x"][row] == pytest.approx(x.mean())
        assert table["area_px"][row] == len(y)
        box = [table[f"bbox_{side}"][row] for side in ("y0", "x0", "y1", "x1")]
        assert box == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        for channel, background in enumerate(BACKGROUND):
            values = image[channel][mask == label] - background
            expected = [values.mean(), values.std(), *np.percentile(values, (5, 50, 95))]
            names = ("mean", "sd", "p5", "p50", "p95")
            got = [table[f"intensity_{name}"][row, channel] for name in names]
            np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_border_is_the_edge_of_the_real_field() -> None:
    mask = np.zeros((40, 50), np.uint16)
    mask[0:5, 10:15] = 1
    mask[10:20, 45:50] = 2
    mask[10:20, 10:20] = 3
    mask[35:40, 20:25] = 4
    mask[20:25, 0:5] = 5
    table = measure.cells(np.zeros((1, 40, 50), np.uint16), mask, np.zeros(1), 32)
    assert table["touches_border"].tolist() == [True, True, False, True, True]


def test_blank_fraction_is_the_share_of_zeros_in_the_masked_crop() -> None:
    image, mask = make_field(6, seed=1)
    image[:, 10:14, 10:14] = 100  # a hole below the background in the first cell
    table = measure.cells(image, mask, np.float32(BACKGROUND), 40)
    field = Field(torch.from_numpy(image), torch.from_numpy(mask), torch.tensor(BACKGROUND))
    centroids = np.stack([table["centroid_y"], table["centroid_x"]], axis=1)
    crops = cut(
        field,
        torch.from_numpy(table["mask_label"].astype(np.int64)),
        torch.from_numpy(centroids),
        CropSpec(window_px=40, size=40),
    )
    zeros = (crops.pixels == 0).all(1).float().mean((1, 2))
    np.testing.assert_allclose(table["blank_fraction"], zeros, atol=1e-6)
    assert table["blank_fraction"].max() < 1


def test_no_masks_no_rows() -> None:
    image, mask = make_field(0)
    table = measure.cells(image, mask, np.float32(BACKGROUND), 64)
    assert all(len(values) == 0 for values in table.values())
    assert table["intensity_mean"].shape == (0, 2)
    assert measure.keep(table["blank_fraction"]).shape == (0,)
    assert measure.keep_percentile(table["blank_fraction"], 99.7).shape == (0,)


def test_keep_is_absolute_and_at_the_limit() -> None:
    fraction = np.array([0.5, 0.997, 0.9971, 1.0], np.float32)
    assert measure.keep(fraction).tolist() == [True, True, False, False]


def test_keep_percentile_drops_the_blankest() -> None:
    fraction = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.flatnonzero(~measure.keep_percentile(fraction, 99.7)).tolist() == [998, 999, 1000]
    with pytest.raises(ConfigError, match="0 to 100"):
        measure.keep_percentile(fraction, 101)
