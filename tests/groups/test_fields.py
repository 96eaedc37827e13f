"""Fields as a dataset, against the arrays that plain xarray reads."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch.utils.data import DataLoader

from tests.stores import make_store
from tests.written import put, revise
from zarrloc.errors import DamageError, StoreError
from zarrloc.groups.fields import Fields
from zarrloc.store.location import Location


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Seven fields in shards of two; the fourth has an error."""
    made = make_store(tmp_path / "oc.zarr", cells=(4, 0, 6, 2, 1, 3, 5))
    errors = np.array(["", "", "", "cut off", "", "", ""])
    revise(Location.of(made), "fovs", error=(("fov",), errors))
    return made


def test_a_field_is_what_lies_above_its_background(store: Path) -> None:
    fields, plain = Fields(store), xr.open_zarr(store, group="fovs", chunks=None)
    above = plain.image.values - plain.background.values[:, :, None, None]
    assert fields[2].dtype == torch.float32
    np.testing.assert_array_equal(fields[2].numpy(), np.maximum(above[2], 0))
    np.testing.assert_array_equal(fields[1:6:2].numpy(), np.maximum(above[1:6:2], 0))
    assert fields[3:3].shape == (0, 2, 96, 96)
    assert (len(fields), fields.channels) == (7, ("nucleus", "protein"))
    assert fields.shard.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert fields.usable.tolist() == [0, 1, 2, 4, 5, 6]


def test_counts_are_as_stored(store: Path) -> None:
    fields, plain = Fields(store, counts=True), xr.open_zarr(store, group="fovs", chunks=None)
    assert fields[0].dtype == torch.uint16
    np.testing.assert_array_equal(fields[-1].numpy(), plain.image.values[-1])


def test_rows_in_any_order_are_read_by_runs(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, asked = Fields(store), []
    load = fields.load
    monkeypatch.setattr(fields, "load", lambda rows: asked.append(rows.tolist()) or load(rows))
    found = fields.__getitems__([5, 1, 0, 2, 5])
    assert asked == [[0, 1, 2], [5]]
    for row, one in zip([5, 1, 0, 2, 5], found, strict=True):
        torch.testing.assert_close(one, Fields(store)[row], rtol=0, atol=0)


def test_a_loader_of_torch_takes_it(store: Path) -> None:
    fields = pickle.loads(pickle.dumps(Fields(store)))
    batches = list(DataLoader(fields, batch_size=3))
    assert [tuple(batch.shape) for batch in batches] == [(3, 2, 96, 96)] * 2 + [(1, 2, 96, 96)]
    torch.testing.assert_close(torch.cat(batches), fields[:], rtol=0, atol=0)


def test_damage_and_absence_are_said(store: Path, tmp_path: Path) -> None:
    put(Location.of(store), "fovs", "row_digest", 4, 7)
    fields = Fields(store)
    fields[3]
    with pytest.raises(DamageError, match="row 4 of 'fovs' is damaged"):
        fields[4]
    with pytest.raises(StoreError, match="no store at"):
        Fields(tmp_path / "none.zarr")
