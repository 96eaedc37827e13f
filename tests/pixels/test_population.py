"""Objects and fields unlike the others: found where planted, and none where all is ordinary."""

import numpy as np
import pytest

from zarrloc.pixels.population import impossible, odd_fields

FIELD_PX = 600 * 600


def table(seed: int, cells: int = 400) -> dict[str, np.ndarray]:
    """An ordinary table: sizes and light that differ as those of cultured cells do."""
    rng = np.random.default_rng(seed)
    border = rng.random(cells) < 0.3
    area = rng.lognormal(np.log(10_000), 0.35, cells) * np.where(border, rng.random(cells), 1)
    return {
        "area_px": np.maximum(area, 1).astype(np.int32),
        "touches_border": border,
        "intensity_mean": rng.lognormal(6, (0.3, 1.0), (cells, 2)),
        "field_px": np.full(cells, FIELD_PX),
    }


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_cells_are_all_possible(seed: int) -> None:
    assert not impossible(**table(seed)).any()


def test_what_cannot_be_a_cell_is_found() -> None:
    columns = table(0)
    columns["touches_border"][:5] = False
    columns["area_px"][:5] = [FIELD_PX, 200_000, 3, 10_000, 10_000]
    columns["intensity_mean"][3] = 0.5
    assert np.flatnonzero(impossible(**columns)).tolist() == [0, 1, 2, 3]


def test_of_few_cells_nothing_is_said() -> None:
    columns = {name: values[:19] for name, values in table(1).items()}
    columns["area_px"][0] = FIELD_PX
    assert not impossible(**columns).any()
    assert not impossible(**{name: values[:0] for name, values in columns.items()}).any()


def test_fields_that_one_cell_fills_are_no_fault() -> None:
    columns = table(2, 40)
    columns["field_px"] = columns["area_px"].copy()
    assert not impossible(**columns).any()


def fields(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts as scattered as in real plates: negative binomial, mean 25."""
    rng = np.random.default_rng(seed)
    counts = np.maximum(rng.negative_binomial(6, 6 / 31, count), 1)
    index = np.repeat(np.arange(count), counts)
    return counts, index, rng.lognormal(9, 0.35, len(index))


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_fields_are_not_named(seed: int) -> None:
    assert [part.tolist() for part in odd_fields(*fields(seed))] == [[], [], []]


def test_odd_fields_are_named() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(25, 40)
    counts[[3, 5, 8]] = 0, 900, -1
    index = np.repeat(np.arange(40), np.maximum(counts, 0))
    area = rng.lognormal(9, 0.3, len(index))
    area[index == 7] *= 6
    odd = odd_fields(counts, index, area)
    assert (odd.empty.tolist(), odd.number.tolist(), odd.size.tolist()) == ([3], [5], [7])


def test_of_few_fields_or_mostly_empty_ones_nothing_is_said() -> None:
    counts, index, area = fields(0, 7)
    assert not any(map(len, odd_fields(counts, index, area)))
    empty = np.zeros(0)
    assert not any(map(len, odd_fields(np.zeros(20, int), empty, empty)))
