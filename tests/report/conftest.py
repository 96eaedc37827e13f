"""A small labelled store with a split, a trained head and names that must be escaped."""

from pathlib import Path

import numpy as np
import pytest

from tests.labelled_store import make_store
from tests.written import revise
from zarrloc.config.report import ReportConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.report.gather import Array32
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location

EVIL = "</script><script>window.hacked = 1</script>"
EVIL_LABEL = "<img src=x onerror=window.hacked=2>$$x$$"
CONFIG = ReportConfig(knn=(1, 3), bootstrap=20, baselines=False)


def flat(features: Array32, config: ReportConfig) -> Array32:
    """A projection without UMAP, whose import takes half a minute."""
    return np.ascontiguousarray(features[:, :2])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 fields of 20 proteins; split `grouped`; head `head` on embedding `planted`."""
    path = make_store(tmp_path_factory.mktemp("report") / "t.zarr", proteins=20, noise=0.5)
    location = Location.of(path)
    fovs = location.group("fovs")
    protein, label, error = (read_column(fovs, name) for name in ("protein", "label", "error"))
    protein[protein == protein[0]] = EVIL
    label[0] = EVIL_LABEL
    error[-1] = f"torn file {EVIL}"
    revise(
        location,
        "fovs",
        block_bytes=(("block",), np.zeros(1, np.uint64)),
        protein=(("fov",), protein),
        label=(("label",), label),
        error=(("fov",), error),
    )
    split(path, SplitConfig(), "grouped")
    learn = TrainConfig(embedding="planted", split="grouped", hidden=(), epochs=30, lr=0.05)
    train(path, learn, "head")
    return path
