"""Every example runs, as a user would start it, and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate import simulate
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = {
    "similar_proteins.py": "SIM0001: ",
    "cells_by_label.py": " cells ",
    "own_segmenter.py": "objects, ",
    "train_on_crops.py": "epoch 2: loss 0.",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, serial = tmp_path_factory.mktemp("examples"), RunConfig(cluster="serial")
    simulate(folder / "data", SimulateConfig(proteins=4, fovs_per_protein=1, size=256, workers=1))
    labels = folder / "data" / "labels"
    ingest(
        folder / "data" / "raw", folder / "a.zarr", IngestConfig(pixel_size_um=0.2063),
        labels_csv=labels / "opencell-localization-annotations.csv",
        cell_lines_csv=labels / "all-public-targets.csv", run=serial, quiet=True,
    )  # fmt: skip
    model = EmbedConfig(backbone="timm:test_vit", weights="random:0", size="64")
    embed(folder / "a.zarr", model, "fields", run=serial, quiet=True)
    segment(folder / "a.zarr", SegmentConfig(model="watershed"), "ws", run=serial, quiet=True)
    return folder / "a.zarr"


def test_every_example_is_tested() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(name: str, store: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, store],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PRINTS[name] in done.stdout
