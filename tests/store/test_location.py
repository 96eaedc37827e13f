import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

from zarrloc.errors import StoreError
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


def test_metadata_is_read_as_it_is(tmp_path: Path) -> None:
    for where in (tmp_path / "s", f"memory://{tmp_path}"):
        location = Location.of(where)
        group = zarr.create_group(location.store())
        group.create_array("a", data=np.arange(1000), chunks=(100,), compressors=None)
        assert location.read_json("a/zarr.json")["shape"] == [1000]


def test_the_clock_runs_while_something_is_read() -> None:
    clock = StoreClock()
    with clock.running():
        time.sleep(0.02)
    time.sleep(0.05)
    with suppress(OSError), clock.running():
        time.sleep(0.02)
        raise OSError("a torn shard")
    assert 0.04 <= clock.seconds < 0.09


def test_an_absent_group_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no group 'fovs'"):
        Location.of(tmp_path / "s").group("fovs", mode="r")
