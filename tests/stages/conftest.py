"""A small ingested store of simulated fields, copied for each test that changes it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate import simulate
from zarrloc.stages.ingest import ingest

SERIAL = RunConfig(cluster="serial")
FOVS, SHARD = 5, 2


def bright_spots(image: npt.NDArray[Any], roles: tuple[str, ...]) -> npt.NDArray[Any]:
    """A segmentation anyone can recompute: connected bright regions of the nucleus channel."""
    nucleus = ndimage.gaussian_filter(image[roles.index("nucleus")].astype(float), 3)
    found, _ = ndimage.label(nucleus > nucleus.mean() + nucleus.std())
    return np.asarray(found)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five simulated fields."""
    out = tmp_path_factory.mktemp("simulated") / "data"
    simulate(out, SimulateConfig(proteins=FOVS, fovs_per_protein=1, size=192, workers=1))
    return out / "raw"


@pytest.fixture(scope="session")
def ingested(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its store, in three blocks: two of two fields, one of one."""
    store = tmp_path_factory.mktemp("store") / "oc.zarr"
    ingest(raw, store, IngestConfig(shard_fovs=SHARD), run=SERIAL)
    return store


@pytest.fixture
def fresh(ingested: Path, tmp_path: Path) -> Callable[[str], Path]:
    """`fresh(name)` is a copy of the ingested store of one's own."""
    return lambda name: Path(shutil.copytree(ingested, tmp_path / name))
