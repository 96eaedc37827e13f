from collections.abc import Callable
from pathlib import Path

import pytest

from tests.objects import opened
from tests.stages.conftest import SERIAL, bright_spots
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.verify import verify
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.fovs import Fovs
from zarrloc.stages.annotate import annotate
from zarrloc.stages.segment import segment_fovs
from zarrloc.store.location import Location

Fresh = Callable[[str], Path]


def test_facts_change_and_what_was_made_stays(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    config = SegmentConfig(model="watershed")

    def masks() -> int:
        return segment_fovs(
            store, config, "spots", function=bright_spots, run=SERIAL, quiet=True
        ).blocks_run

    assert masks() == 3
    before = opened(store, "fovs").image.load()
    changes = annotate(store, pixel_size_um=0.325, channels=["Hoechst", "er"]).changes
    assert [change.rpartition(" -> ")[2] for change in changes] == ["nucleus, er", "0.325"]
    fovs = Fovs.of(Location.of(store))
    assert (fovs.roles, fovs.pixel_size_um) == (("nucleus", "er"), 0.325)
    assert opened(store, "fovs").image.load().values.tobytes() == before.values.tobytes()
    assert masks() == 0
    assert not any(found.faults for found in verify(store, deep=True))
    assert annotate(store, pixel_size_um=0.325).changes == []


def test_what_cannot_be_is_refused_and_changes_nothing(fresh: Fresh, tmp_path: Path) -> None:
    store = fresh("a.zarr")
    metadata = (store / "fovs/zarr.json").read_bytes()
    for options, words in [
        ({}, "nothing to change"),
        ({"pixel_size_um": -1.0}, "expected a positive number"),
        ({"pixel_size_um": float("nan")}, "expected a positive number"),
        ({"channels": ["nucleus"]}, r"for 2 channels \(nucleus, protein\)"),
        ({"channels": ["nucleus", "dapi"]}, "a different role for each"),
    ]:
        with pytest.raises(ConfigError, match=words):
            annotate(store, **options)  # type: ignore[arg-type]
    assert (store / "fovs/zarr.json").read_bytes() == metadata
    with pytest.raises(StoreError, match="no store at"):
        annotate(tmp_path / "none", pixel_size_um=1.0)
