"""`--backbone classic` through the engine, and as a row of the tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.labelled_store import make_store
from tests.stages.conftest import SERIAL, bright_spots
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.crops import Crops
from zarrloc.pixels.classic import classic_features, feature_count
from zarrloc.stages.embed import embed
from zarrloc.stages.evaluate import evaluate
from zarrloc.stages.segment import segment
from zarrloc.stages.split import split
from zarrloc.stages.train import train

Fresh = Callable[[str], Path]
ROW = "classic features"


def run(store: Path, name: str = "classic", **settings: object) -> xr.DataArray:
    embed(store, EmbedConfig.of({"backbone": "classic", **settings}), name, run=SERIAL)
    return xr.open_zarr(store, group=f"embeddings/{name}").load()["embedding"]


def test_fields_are_measured_as_they_are_stored(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    found = run(store)
    fovs = xr.open_zarr(store, group="fovs").load()
    assert found.shape == (len(fovs.fov), feature_count(2))
    sound = np.flatnonzero(fovs.error.values == "")
    for row in sound[:3]:
        height, width = int(fovs.height[row]), int(fovs.width[row])
        expected = classic_features(fovs.image.values[row, :, :height, :width])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-4)


def test_the_scale_of_what_is_measured_is_said(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    summary = embed(store, EmbedConfig(backbone="classic", size="um:0.5"), "classic", run=SERIAL)
    (note,) = [note for note in summary.notes if note.startswith("input: ")]
    assert " px, 0.500 um a pixel; texture over 1 to 8 px, 0.50 to 4.00 um; " in note


def test_cells_are_measured_inside_their_mask(fresh: Fresh) -> None:
    store = fresh("a.zarr")
    segment(store, SegmentConfig(), "spots", function=bright_spots, run=SERIAL)
    black = run(store, level="cell", cells="spots")
    kept = run(store, "kept", level="cell", cells="spots", outside="keep")
    every = Crops(store, "spots", size=256)
    for row in np.flatnonzero(every.keep)[:2]:
        cut = every.take(np.array([row]))
        expected = classic_features(cut.pixels[0].numpy(), cut.inside[0].numpy())
        np.testing.assert_allclose(black[row], expected, rtol=1e-4, atol=1e-4)
    # What the window shows around the cell is not the cell's.
    np.testing.assert_allclose(black, kept, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"weights": "random:0"}, {"channels": "natural"}, {"norm": "zscore"}, {"precision": "bf16"}],
    ids=str,
)
def test_what_is_for_networks_is_refused(fresh: Fresh, settings: dict[str, str]) -> None:
    store = fresh("a.zarr")
    with pytest.raises(ConfigError, match=f"--{next(iter(settings))}"):
        run(store, **settings)
    assert not (store / "embeddings").exists()


def test_every_table_has_their_row(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", proteins=16, fields=3)
    split(store, SplitConfig(folds=3), "s")
    quick = {"hidden": (16,), "epochs": 2, "lr": 1e-2, "batch": 16}
    train(store, TrainConfig(embedding="planted", split="s", **quick), "h")
    head = EvaluateConfig(head="h", bootstrap=0)
    knn = EvaluateConfig(embedding="planted", knn=(1, 3), bootstrap=0)
    for config in (head, knn):
        before = evaluate(store, config)
        assert ROW not in before["baselines"]
        assert any("--backbone classic --name classic" in note for note in before["notes"])
    run(store)
    scores = evaluate(store, head)["baselines"][ROW]
    # Noise images: their texture knows nothing of the label.
    assert scores["pooled"]["macro_f1"] < 0.6
    assert set(evaluate(store, knn)["baselines"][ROW]) == {"1", "3"}
    own = evaluate(store, EvaluateConfig(embedding="classic", knn=(1,), bootstrap=0))
    assert ROW not in own["baselines"]
    assert not any("--backbone classic" in note for note in own["notes"])
