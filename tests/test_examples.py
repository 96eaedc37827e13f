"""Every example runs, as a user would start it, and prints what it promises."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

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
        labels=labels / "opencell-localization-annotations.csv",
        cell_lines=labels / "all-public-targets.csv", run=serial,
    )  # fmt: skip
    model = EmbedConfig(backbone="timm:test_vit", weights="random:0", size="64")
    embed(folder / "a.zarr", model, "fields", run=serial)
    segment(folder / "a.zarr", SegmentConfig(model="watershed"), "ws", run=serial)
    return folder / "a.zarr"


def test_every_example_is_tested() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PRINTS)
    # Below, and in tests/reproduction.
    own = {"own_data/learn.py", "own_data/simulated.py", "paper/simulated.py"}
    assert {str(file.relative_to(EXAMPLES)) for file in EXAMPLES.glob("*/*.py")} == own


def test_simulated_cells_lie_in_a_folder_a_class(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["simulated.py", str(tmp_path / "cells"), "--proteins", "1"])
    runpy.run_path(str(EXAMPLES / "own_data" / "simulated.py"), run_name="__main__")
    files = sorted((tmp_path / "cells").rglob("*.tif"))
    assert {file.parent.name for file in files} >= {"golgi", "er", "nucleoplasm"}
    assert all(file.name.startswith("protein0") for file in files)
    image = tifffile.imread(files[0])
    assert (image.shape, image.dtype) == ((2, 96, 96), np.uint16)
    # Its nucleus lies in the middle.
    assert image[0, 36:60, 36:60].mean() > 1.3 * image[0].mean()


def test_own_data_is_scored_beside_all_baselines(tmp_path: Path) -> None:
    """Four plates of two classes that texture tells apart; run again, nothing is done again."""
    rng = np.random.default_rng(0)
    for number in range(32):
        fine = rng.normal(size=(2, 32, 32))
        coarse = np.repeat(np.repeat(rng.normal(size=(2, 8, 8)), 4, 1), 4, 2)
        image = 2000 + 300 * (fine if number % 2 else coarse)
        path = tmp_path / "raw" / ("fine" if number % 2 else "coarse") / f"plate{number % 8}"
        path.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            path / f"image{number}.tif", image.astype(np.uint16), photometric="minisblack",
            metadata={"axes": "CYX"},
        )  # fmt: skip
    labels = tmp_path / "labels.csv"
    rows = [
        f"{file.relative_to(tmp_path / 'raw')},{file.parts[-3]},{file.parts[-2]}"
        for file in sorted((tmp_path / "raw").rglob("*.tif"))
    ]
    labels.write_text("\n".join(["path,label,plate", *rows]) + "\n")
    out = tmp_path / "out"
    main = runpy.run_path(str(EXAMPLES / "own_data" / "learn.py"))["main"]
    command = [
        str(tmp_path / "raw"), "--labels", str(labels), "--group", "plate", "--channels",
        "nucleus,protein", "--axes", "CYX", "--minutes", "0", "--cluster", "serial", "--out",
        str(out),
    ]  # fmt: skip
    main(command)
    table = json.loads((out / "table.json").read_text())
    assert list(table) == [
        "permuted labels", "intensity statistics", "nucleus channel only, intensity", "classic",
        "random-ViT", "vicreg-trained", "classic and learned",
    ]  # fmt: skip
    assert table["classic"]["probe"] > 0.95
    assert table["classic"]["knn"] > 0.95
    assert table["permuted labels"]["probe"] < 0.8
    assert all(row["low"] <= row["probe"] <= row["high"] for row in table.values())
    assert "folds by plate" in (out / "table.md").read_text()
    trained = (out / "trained" / "backbone.safetensors").stat().st_mtime_ns
    main(command)
    assert json.loads((out / "table.json").read_text()) == table
    assert (out / "trained" / "backbone.safetensors").stat().st_mtime_ns == trained


@pytest.mark.parametrize(
    ("given", "found"),
    [((96, 24), (48, 96)), ((160, 80), (128, 125)), ((64, 100), (64, 100)), ((32, 0), (32, 0))],
)
def test_own_data_is_shrunk_where_time_is_short(
    given: tuple[int, float], found: tuple[int, float]
) -> None:
    """Side in pixels, and how often each image would be seen."""
    assert runpy.run_path(str(EXAMPLES / "own_data" / "learn.py"))["smaller"](*given) == found


@pytest.mark.parametrize(
    ("files", "more", "words"),
    [
        ([], [], "no image in .*raw: a folder a class holds .tif, .tiff, .png"),
        (["a/1.tif", "2.tif"], [], "2.tif lies in no folder of its class"),
        (["a/1.tif", "a/2.tif"], [], "all images show a: two classes or more"),
        (["a/1.tif", "b/2.tif"], ["--group-from", r"plate(\d+)"], r"finds no \(group\) in a"),
        (["a/p1_1.tif", "b/p1_2.tif"], ["--group-from", r"p(\d)_"], "there is one group"),
    ],
)
def test_own_data_that_cannot_be_scored_are_told_in_words(
    files: list[str], more: list[str], words: str, tmp_path: Path
) -> None:
    """Before anything is measured or trained."""
    (tmp_path / "raw").mkdir()
    for name in files:
        path = tmp_path / "raw" / name
        path.parent.mkdir(exist_ok=True)
        image = np.random.default_rng(len(name)).integers(0, 999, (2, 32, 32)).astype(np.uint16)
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "CYX"})
    main = runpy.run_path(str(EXAMPLES / "own_data" / "learn.py"))["main"]
    out = ["--out", str(tmp_path / "out"), "--cluster", "serial", "--channels", "nucleus,protein"]
    with pytest.raises(SystemExit, match=words):
        main([str(tmp_path / "raw"), *out, *more])
    assert not (tmp_path / "out/own.zarr/embeddings").exists()


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(name: str, store: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, store],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PRINTS[name] in done.stdout
