"""One field that raises, kills its worker or eats its memory, in each real stage.

Exactly its own rows get an `error`, the others are what they are without it; and once the cause is
gone the rows are done again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from tests.drills import planted
from tests.image_files import opencell_name, write
from tests.stores import make_field
from tests.written import drop
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.ledger import KILLED
from zarrloc.engine.telemetry import Summary
from zarrloc.engine.verify import verify
from zarrloc.stages import embed as embed_stage
from zarrloc.stages import ingest as ingest_stage
from zarrloc.stages import segment as segment_stage
from zarrloc.store.location import Location
from zarrloc.tasks import embed_cells, embed_fovs

FOVS, BAD = 5, 2
SERIAL = RunConfig(cluster="serial")
WORKERS = RunConfig(cluster="local", workers=2, memory_limit="1GB", dashboard=":0")
TINY = {"backbone": "timm:test_vit", "weights": "random:0", "size": "64"}


@dataclass(frozen=True)
class Stage:
    """A stage: what it writes, which class does its blocks, and its call."""

    group: str
    array: str | None
    do: Callable[[Path, RunConfig], Summary]
    home: Any = None
    name: str = ""
    planted: Any = None


def _ingest(store: Path, run: RunConfig) -> Summary:
    config = IngestConfig(shard_fovs=3, pixel_size_um=0.2063)
    return ingest_stage.ingest(store.parent / "raw", store, config, run=run)


def _segment(store: Path, run: RunConfig) -> Summary:
    return segment_stage.segment_fovs(
        store, SegmentConfig(), "s", function=planted.segmentation, run=run
    )


def _tabulate(store: Path, run: RunConfig) -> Summary:
    return segment_stage.tabulate(store, "s", block_cells=8, run=run)


def _embed(store: Path, run: RunConfig) -> Summary:
    return embed_stage.embed(store, EmbedConfig.of(TINY), "f", run=run)


def _embed_cells(store: Path, run: RunConfig) -> Summary:
    config = EmbedConfig.of({**TINY, "level": "cell", "cells": "s"})
    return embed_stage.embed(store, config, "c", run=run)


STAGES = {
    "ingest": Stage("fovs", "image", _ingest, ingest_stage, "ReadImages", planted.Read),
    "segment": Stage("segmentations/s", "mask", _segment),
    "cells": Stage("cells/s", None, _tabulate, segment_stage, "MeasureCells", planted.Measure),
    "embed fields": Stage("embeddings/f", "embedding", _embed, embed_fovs, "EmbedFovs",
                          planted.Fields),
    "embed cells": Stage("embeddings/c", "embedding", _embed_cells, embed_cells, "EmbedCells",
                         planted.Cells),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of every stage over five fields, the third of them marked."""
    folder = tmp_path_factory.mktemp("sound")
    for row in range(FOVS):
        image, _ = make_field(4, 96, row)
        image[0, 0, 0] = planted.MARK if row == BAD else 0
        write(folder / "raw" / opencell_name(row + 1), image)
    for stage in STAGES.values():
        assert stage.do(folder / "s.zarr", SERIAL).exit_code == 0
    return folder


def opened(store: Path, group: str) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(store, group=group).drop_dims("block").load()
    return found.drop_vars(["row_digest", "source"], errors="ignore").drop_attrs()


def rows_of_the_field(data: xr.Dataset) -> npt.NDArray[np.bool_]:
    index = data.fov_index.values if "fov_index" in data else np.arange(data.sizes["fov"])
    return np.asarray(index == BAD)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize(
    "how",
    ["raise", pytest.param("kill", marks=pytest.mark.drill),
     pytest.param("memory", marks=pytest.mark.drill)],
)  # fmt: skip
def test_one_bad_field_costs_its_own_rows(
    name: str, how: str, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(sound, folder)
    stage, store = STAGES[name], folder / "s.zarr"
    whole = opened(store, stage.group)
    for later in list(STAGES.values())[list(STAGES).index(name) :]:
        drop(Location.of(store), later.group)
    run = SERIAL if how == "raise" else WORKERS
    with monkeypatch.context() as plant:
        plant.setenv(planted.VARIABLE, how)
        if stage.home is not None:
            plant.setattr(stage.home, stage.name, stage.planted)
        summary = stage.do(store, run)
    found = opened(store, stage.group)
    own = rows_of_the_field(whole)
    assert summary.exit_code == 3, summary
    np.testing.assert_array_equal(found.error.values != "", own)
    said = set(found.error.values[own].tolist())
    assert said == ({"RuntimeError: planted"} if how == "raise" else {KILLED})
    assert_same(found, whole, ~own)
    again = stage.do(store, SERIAL.model_copy(update={"retry_failed": how == "raise"}))
    assert again.exit_code == 0
    assert again.blocks_run == 1
    assert_same(opened(store, stage.group), whole, np.ones_like(own))
    assert not any(finding.faults for finding in verify(store, deep=True))


def assert_same(found: xr.Dataset, whole: xr.Dataset, rows: npt.NDArray[np.bool_]) -> None:
    """Equal in these rows; features of cells but for the last bits, as their batches differ."""
    for name, expected in whole.variables.items():
        values = found[name].values
        if expected.dims and expected.dims[0] in ("fov", "cell"):
            values, wanted = values[rows], expected.values[rows]
        else:
            wanted = expected.values
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, wanted, atol=1e-4, err_msg=str(name))
        else:
            np.testing.assert_array_equal(values, wanted, err_msg=str(name))
