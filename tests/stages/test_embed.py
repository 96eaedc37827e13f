import shutil
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.image_files import opencell_name, pixels, write, write_label_tables, write_opencell
from tests.objects import assert_nothing_but_zarr, assert_same, chunk_objects, opened
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine import carry_out, cluster
from zarrloc.engine.cluster import Load
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ChannelError, ConfigError, StoreError, WeightsError
from zarrloc.models import backbones, preprocess, specs
from zarrloc.segmenters import cpnet
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.store.location import Location
from zarrloc.store.read import stage_attrs
from zarrloc.tasks.embed_fovs import EmbedFovs

SERIAL = RunConfig(cluster="serial")
TINY = "timm:test_vit"  # 3 inputs, patch 16, 64 features
GROUP = "embeddings/e"
PATCH = 16


def _ingest(folder: Path, store: Path, **settings: Any) -> Path:
    ingest(folder, store, IngestConfig(shard_fovs=4, **settings), run=SERIAL)
    return store


def _embed(
    store: Path,
    *,
    name: str = "e",
    run: RunConfig = SERIAL,
    overwrite: bool = False,
    **settings: Any,
) -> Summary:
    config = EmbedConfig.of({"backbone": TINY, "weights": "random:0", **settings})
    return embed(store, config, name, run=run, overwrite=overwrite)


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten fields of 40 x 56 px, of which the sixth is smaller."""
    folder = tmp_path_factory.mktemp("fields")
    write_opencell(folder, 10, shape=(2, 40, 56))
    write(folder / opencell_name(6, "P02", 14), pixels(6, (2, 30, 56)))
    return folder


@pytest.fixture(scope="module")
def ingested(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _ingest(fields, tmp_path_factory.mktemp("ingested") / "s")


@pytest.fixture
def store(ingested: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ingested, tmp_path / "s")


@pytest.fixture
def hpa(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small backbone with the roles of Dino4Cells'."""
    spec = specs.BackboneSpec(
        "tiny-hpa", "test_vit", specs.HPA, PATCH, 64, "nowhere", default_channels="natural",
        position="timm",
    )  # fmt: skip
    monkeypatch.setattr(specs, "SPECS", MappingProxyType({**specs.SPECS, spec.name: spec}))
    return spec.name


def _by_hand(backbone: str, image: Any, passes: list[dict[int, int]], inputs: int) -> Any:
    """One field, one step after the other: z-score, channels, padding, network."""
    network = backbones.load(backbone, "random:0")
    values = image.astype(np.float64)
    values = (values - values.mean((1, 2), keepdims=True)) / (
        values.std((1, 2), keepdims=True) + 1e-7
    )
    height, width = image.shape[1:]
    parts = []
    for channels in passes:
        padded = np.zeros((1, inputs, -(-height // PATCH) * PATCH, -(-width // PATCH) * PATCH))
        for target, channel in channels.items():
            padded[0, target, :height, :width] = values[channel]
        with torch.inference_mode():
            parts.append(network(torch.from_numpy(padded.astype(np.float32)))[0].numpy())
    return np.concatenate(parts)


def _image(fid: int) -> Any:
    return pixels(fid, (2, 30 if fid == 6 else 40, 56))


@pytest.mark.parametrize(
    ("channels", "passes"),
    [
        (None, [{1: 1, 2: 0}]),
        ("nucleus=0,protein=2", [{0: 0, 2: 1}]),
        ("replicate", [{0: 0, 1: 0, 2: 0}, {0: 1, 1: 1, 2: 1}]),
    ],
)
def test_values_are_those_of_a_plain_loop(
    store: Path, channels: str | None, passes: list[dict[int, int]]
) -> None:
    summary = _embed(store, channels=channels)
    assert (summary.exit_code, summary.blocks_run) == (0, 3)
    data = opened(store, GROUP)
    assert data["embedding"].dims == ("fov", "feature")
    assert data["embedding"].dtype == np.float32
    np.testing.assert_array_equal(data["fov"], opened(store, "fovs")["fov"])
    for row in (0, 5, 9):
        expected = _by_hand(TINY, _image(row + 1), passes, 3)
        np.testing.assert_allclose(data["embedding"][row], expected, atol=2e-5)
    assert_nothing_but_zarr(store)


def test_natural_channels_go_by_role(store: Path, hpa: str) -> None:
    _embed(store, backbone=hpa)
    expected = _by_hand(hpa, _image(6), [{1: 1, 2: 0}], 4)
    np.testing.assert_allclose(opened(store, GROUP)["embedding"][5], expected, atol=2e-5)
    with pytest.raises(ChannelError, match="'er' is not in the store"):
        _embed(store, backbone=hpa, channels="er=3", name="other")


def test_the_largest_input_is_recorded(store: Path) -> None:
    summary = _embed(store)
    image = _image(3).astype(np.float64)
    zscore = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    largest = opened(store, GROUP)["largest_input"]
    assert float(largest[2]) == pytest.approx(np.abs(zscore).max(), rel=1e-5)
    assert any("largest value" in note for note in summary.notes)
    assert any("um a pixel" in note for note in summary.notes)


def test_batches_stay_within_a_block_and_hold_one_size(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    prepare = preprocess.prepare

    def noted(images: Tensor, *rest: Any) -> Any:
        seen.append(tuple(images.shape))
        return prepare(images, *rest)

    monkeypatch.setattr(preprocess, "prepare", noted)
    _embed(store)
    whole, small = (2, 40, 56), (2, 30, 56)
    assert seen == [(4, *whole), (3, *whole), (1, *small), (2, *whole)]
    execution = stage_attrs(Location.of(store).group(GROUP)).execution
    assert execution.pop("threads") >= 1
    assert execution == {"device": "cpu", "precision": "fp32", "batch": 16}


def test_a_field_that_fails_costs_itself_and_leaves_its_neighbours_bits(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _embed(store, name="undisturbed")
    marked = int(pixels(3, (2, 40, 56))[0, 0, 0])
    prepare = preprocess.prepare

    def breaking(images: Tensor, *rest: Any) -> Any:
        if (images[:, 0, 0, 0] == marked).any():
            raise RuntimeError("this field breaks the network")
        return prepare(images, *rest)

    monkeypatch.setattr(preprocess, "prepare", breaking)
    summary = _embed(store)
    assert (summary.exit_code, summary.rows_failed) == (3, 1)
    data, whole = opened(store, GROUP), opened(store, "embeddings/undisturbed")
    assert np.isnan(data["embedding"][2]).all()
    assert str(data["error"].values[2]) == "RuntimeError: this field breaks the network"
    others = np.arange(10) != 2
    np.testing.assert_array_equal(data["embedding"][others], whole["embedding"][others])
    monkeypatch.undo()
    retry = SERIAL.model_copy(update={"retry_failed": True})
    assert _embed(store, run=retry).exit_code == 0
    np.testing.assert_array_equal(opened(store, GROUP)["embedding"], whole["embedding"])


def test_a_field_that_was_not_ingested_is_nan_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    write_opencell(folder, 5, shape=(2, 40, 56))
    broken = folder / opencell_name(2, "P00", 12)
    broken.write_bytes(broken.read_bytes()[:500])
    store = _ingest(folder, tmp_path / "s")
    assert _embed(store).exit_code == 3
    data = opened(store, GROUP)
    assert str(data["error"].values[1]).startswith("fovs: ")
    assert np.isnan(data["embedding"].values).any(1).tolist() == [False, True, False, False, False]


def test_an_embedding_that_is_not_finite_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        backbones.load(TINY, "random:0").__class__, "forward",
        lambda self, images, *_: torch.full((len(images), 64), torch.inf),
    )  # fmt: skip
    _embed(store)
    assert "not finite" in str(opened(store, GROUP)["error"].values[0])


# --- again --------------------------------------------------------------------------------------


def test_stopped_and_continued_is_equal_to_the_last_bit(
    store: Path, ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, calls = EmbedFovs.device, iter(range(9))

    def stopping(self: EmbedFovs, data: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return device(self, data)

    monkeypatch.setattr(EmbedFovs, "device", stopping)
    with pytest.raises(KeyboardInterrupt):
        _embed(store)
    assert _embed(store).blocks_run == 2
    whole = shutil.copytree(ingested, tmp_path / "whole")
    _embed(whole)
    assert_same(store, whole, GROUP)


def test_the_same_command_again_does_nothing_and_appended_fields_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    write_opencell(folder, 6, shape=(2, 40, 56))
    store = _ingest(folder, tmp_path / "s")
    assert _embed(store).blocks_run == 2
    before = chunk_objects(store)
    again = _embed(store)
    assert (again.blocks_run, again.exit_code) == (0, 0)
    assert chunk_objects(store) == before
    write_opencell(folder, 4, first=7, shape=(2, 40, 56))
    _ingest(folder, store)
    assert _embed(store).blocks_run == 2
    whole = _ingest(folder, tmp_path / "whole")
    _embed(whole)
    assert_same(store, whole, GROUP)


def test_new_labels_leave_nothing_to_embed(fields: Path, store: Path, tmp_path: Path) -> None:
    _embed(store)
    annotations, cell_lines = write_label_tables(tmp_path / "tables")
    ingest(fields, store, labels=annotations, cell_lines=cell_lines, run=SERIAL)
    assert "grade" in opened(store, "fovs")
    assert _embed(store).blocks_run == 0


def test_changed_pixels_are_embedded_again(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    paths = write_opencell(folder, 8, shape=(2, 40, 56))
    store = _ingest(folder, tmp_path / "s")
    _embed(store)
    write(paths[5], pixels(55, (2, 40, 56)))
    _ingest(folder, store)
    assert _embed(store).blocks_run == 1
    expected = _by_hand(TINY, pixels(55, (2, 40, 56)), [{1: 1, 2: 0}], 3)
    np.testing.assert_allclose(opened(store, GROUP)["embedding"][5], expected, atol=2e-5)


def test_other_settings_are_refused_with_the_difference(store: Path) -> None:
    _embed(store, size="32")
    with pytest.raises(ConfigError, match=r"\(size: 32 -> native\).*--overwrite"):
        _embed(store)
    assert _embed(store, overwrite=True).blocks_run == 3
    with pytest.raises(ConfigError, match=r"weights: random:0 -> random:1"):
        _embed(store, weights="random:1")


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"norm": "cell"}, ConfigError, "--level cell"),
        ({"level": "cell"}, ConfigError, "--cells"),
        ({"size": "wide"}, ConfigError, "um:0.32"),
        ({"channels": "dapi=1"}, ChannelError, "'dapi' is not in the store"),
        ({"channels": "natural"}, ChannelError, "natural channels need a role"),
        ({"backbone": "nonsense"}, ConfigError, "unknown backbone"),
        ({"weights": "none.pth"}, WeightsError, "no weights at none.pth"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(
    store: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        _embed(store, **settings)
    assert not (store / "embeddings").exists()


def test_imagenet_norm_belongs_to_rgb(store: Path, hpa: str) -> None:
    with pytest.raises(ConfigError, match="norm imagenet has statistics for R, G, B"):
        _embed(store, backbone=hpa, norm="imagenet")
    assert not (store / "embeddings").exists()
    assert _embed(store, norm="imagenet").exit_code == 0
    assert _embed(store, norm="none", name="raw").exit_code == 0
    image = _image(1)
    assert float(opened(store, "embeddings/raw")["largest_input"][0]) == image.max()


def test_physical_sizes_need_a_pixel_size(tmp_path: Path, store: Path) -> None:
    assert _embed(store, size="um:0.4126").exit_code == 0
    write(tmp_path / "raw/a.tif", pixels(0))
    other = _ingest(tmp_path / "raw", tmp_path / "t", channels=("nucleus", "protein"))
    with pytest.raises(ConfigError, match="pixel size"):
        _embed(other, size="um:0.3")


def test_bf16_is_near_and_recorded(store: Path) -> None:
    _embed(store)
    _embed(store, name="bf16", precision="bf16")
    execution = stage_attrs(Location.of(store).group("embeddings/bf16")).execution
    assert execution["precision"] == "bf16"
    full, half = (opened(store, f"embeddings/{name}")["embedding"].values for name in ("e", "bf16"))
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(full, half, atol=0.1)


def test_a_store_without_fields_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="zarrloc ingest"):
        _embed(tmp_path / "none")


def test_damaged_fields_are_noticed(store: Path) -> None:
    group = Location.of(store).group("fovs")
    group["image"][0:4] = 7  # type: ignore[index]
    summary = _embed(store)
    assert summary.exit_code == 1
    assert "row 0 of 'fovs' is damaged" in summary.failures[0]
    assert summary.blocks_run == 2


def test_class_tokens_of_several_blocks_lie_side_by_side(ingested: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(ingested, tmp_path / "s"))
    dino = {"backbone": "dino-vits16", "size": "32"}
    _embed(store, **dino)
    _embed(store, name="four", last_blocks=4, **dino)
    one, four = (opened(store, f"embeddings/{name}").embedding.values for name in ("e", "four"))
    assert four.shape == (len(one), 4 * 384)
    np.testing.assert_allclose(four[:, -384:], one, rtol=1e-5, atol=1e-6)
    assert not np.allclose(four[:, :384], one, atol=1e-3)
    recorded = [
        stage_attrs(Location.of(store).group(f"embeddings/{name}")).config for name in ("e", "four")
    ]
    assert [config.get("last_blocks") for config in recorded] == [None, 4]
    with pytest.raises(ConfigError, match="no class token alone"):
        _embed(store, name="five", last_blocks=5)
    assert not (store / "embeddings/five").exists()


def test_the_coordinator_leaves_the_gpu_alone(
    ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a GPU at hand, all up to the first block happens without it: it is the workers'."""

    class Reached(Exception):
        pass

    def drive(*_: Any) -> None:
        raise Reached

    def touched(*_: Any, **__: Any) -> None:
        raise AssertionError("the coordinator touches the GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    monkeypatch.setattr(carry_out, "drive", drive)
    store = Path(shutil.copytree(ingested, tmp_path / "s"))
    with pytest.raises(Reached):
        _embed(store)
    weights = tmp_path / "cp"
    torch.save(cpnet.CPnet().state_dict(), weights)
    config = SegmentConfig(model=str(weights), diameter=30.0, channels=("nucleus",), grow="none")
    with pytest.raises(Reached):
        segment(store, config, "cp")


@pytest.mark.parametrize(("settings", "small"), [
    ({}, True),  # 10 fields of 3 tokens
    ({"size": "2048"}, False),
    ({"backbone": "dino-vits8", "size": "1024"}, False),
    ({"backbone": "classic", "weights": None}, True),
    ({"backbone": "classic", "weights": None, "size": "1024"}, False),
])  # fmt: skip
def test_workers_start_only_where_they_pay(
    settings: dict[str, Any], small: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Load] = []

    def seen(run: RunConfig, load: Load) -> str:
        loads.append(load)
        raise KeyboardInterrupt  # before anything is computed

    monkeypatch.setattr(cluster, "choose", seen)
    with pytest.raises(KeyboardInterrupt):
        _embed(store, run=RunConfig(), **settings)
    assert loads[0].blocks == 3
    assert loads[0].is_small is small
