from pathlib import Path

import numpy as np
import pytest
import zarr

from zarrloc.errors import StoreError
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location, StoreClock


def test_local_addresses_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    location = Location.of("here.zarr")
    assert location.path == tmp_path / "here.zarr"
    assert location == Location.of(tmp_path / "here.zarr") == Location.of(location)
    assert location.name == "here.zarr"
    assert location.beside.path == tmp_path / "here.zarr.runs"


def test_addresses_of_object_stores_stay_as_they_are() -> None:
    location = Location.of("s3://bucket/some/oc.zarr/")
    assert location.uri == "s3://bucket/some/oc.zarr"
    assert location.path is None
    assert location.name == "oc.zarr"
    assert location.beside.uri == "s3://bucket/some/oc.zarr.runs"


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_what_fetching_costs_is_counted(tmp_path: Path, kind: str) -> None:
    location = Location.of(tmp_path / "s" if kind == "local" else f"memory://{tmp_path}")
    group = zarr.create_group(location.store())
    group.create_array("a", data=np.arange(1000), chunks=(100,), compressors=None)
    clock = StoreClock()
    values = read_column(location.group("", mode="r", clock=clock), "a")
    np.testing.assert_array_equal(values, np.arange(1000))
    assert clock.bytes >= 8000
    assert clock.seconds > 0
    assert location.read_json("a/zarr.json")["shape"] == [1000]


def test_an_absent_group_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no group 'fovs'"):
        Location.of(tmp_path / "s").group("fovs", mode="r")
