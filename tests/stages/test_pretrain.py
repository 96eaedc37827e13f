"""`pretrain` on a store: what it reads, writes, refuses, continues."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import xarray as xr
import yaml
from click.testing import CliRunner
from zarr.storage import WrapperStore
from zarrloc_cli.main import zarrloc as cli

from tests.report.conftest import flat
from tests.stores import BACKGROUND, make_field
from tests.written import drop, write_group
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.report import ReportConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.split import SplitConfig
from zarrloc.errors import ChannelError, ConfigError, LockedError, StoreError, WeightsError
from zarrloc.groups.embeddings import notes_on, read_samples
from zarrloc.models import backbones
from zarrloc.models.channels import resolve
from zarrloc.models.inputs import Size
from zarrloc.models.preprocess import prepare
from zarrloc.pixels import measure
from zarrloc.pretraining.data import nested_subset
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.samples import cached, open_data
from zarrloc.report.write import write_report
from zarrloc.stages import pretrain as pretrain_module
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.pretrain import Run, plan, pretrain
from zarrloc.stages.split import split
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.read import stage_attrs

FIELDS, SHARD, CELLS = 18, 4, 4
SERIAL = RunConfig(cluster="serial")
FOLD = np.array([-1 if fov % 5 == 2 else fov % 3 for fov in range(FIELDS)], np.int8)
SMALL: dict[str, Any] = {
    "arch": "vit_tiny_patch16",
    "arch_options": ("patch_size=8", "depth=1", "embed_dim=24", "num_heads=3"),
    "size": 16,
    "local_size": 8,
    "local_views": 1,
    "batch": 4,
    "steps": 8,
    "learning_rate": 0.05,
    "prototypes": 16,
    "head_hidden": 12,
    "bottleneck": 6,
    "log_steps": 1,
    "guard_epochs": 0,
    "pool_shards": 2,
    "device": "cpu",
}


def config_of(**changes: Any) -> PretrainConfig:
    return PretrainConfig.of({**SMALL, **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 fields of 9 proteins with labels, a split, and 4 cells in each field."""
    folder = tmp_path_factory.mktemp("pretrain")
    (folder / "raw").mkdir()
    rows, tables, masks = ["path,label"], [], []
    for fov in range(FIELDS):
        image, mask = make_field(CELLS, 60, fov)
        name = f"OC-FOV_G{fov // 2}_ENSG{fov // 2:011d}_CID{fov // 2:06d}_FID{fov:08d}_proj.tif"
        tifffile.imwrite(folder / "raw" / name, image, imagej=True, metadata={"axes": "CYX"})
        rows.append(f"{name},{('golgi', 'er')[fov // 2 % 2]}")
        masks.append(mask)
        tables.append(measure.cells(image, mask, np.float32(BACKGROUND), 24))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    path = folder / "oc.zarr"
    ingest(
        folder / "raw",
        path,
        IngestConfig(shard_fovs=SHARD, pixel_size_um=0.2063),
        labels=folder / "labels.csv",
        run=SERIAL,
    )
    location = Location.of(path)
    write_group(location, "splits/paper", {"fold": (("fov",), FOLD)}, attrs={})
    mask = {"mask": (("fov", "y", "x"), np.stack(masks))}
    write_group(location, "segmentations/cells", mask, attrs={})
    table = {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
    table["fov_index"] = np.repeat(np.arange(FIELDS), CELLS)
    table["keep"] = np.arange(FIELDS * CELLS) % 7 != 3
    columns = {key: (measure.COLUMNS[key].dims, table[key]) for key in measure.COLUMNS}
    write_group(location, "cells/cells", columns, attrs={})
    return path


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def train(store: Path, out: Path, **changes: Any) -> list[str]:
    said: list[str] = []
    assert pretrain(store, out, config_of(**changes), say=said.append) == 0
    return said


@pytest.mark.parametrize("objective", ["dinov2", "mae", "simclr", "vicreg"])
def test_every_objective_goes_the_whole_way(store: Path, tmp_path: Path, objective: str) -> None:
    """Trained on cells, stopped and continued, started from, embedded; the record says by what."""
    small = {"objective": objective, "level": "cell", "fraction": 0.5, "crop_um": 5.0}
    small |= {"decoder_width": 32, "decoder_depth": 1, "checkpoint_steps": 2}
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    train(store, whole, **small)
    train(store, first, **small, split="paper", cache="ram", guard_epochs=1, guard_samples=10)
    for file in ("backbone.json", "backbone.safetensors", "teacher.pth"):
        (whole / file).unlink()
    before = losses(whole)
    (whole / "checkpoints" / "step-00000008.pt").unlink()
    assert "continuing from step 6 of 8" in " ".join(train(store, whole, **small))
    assert losses(whole) == before
    start = {**small, "arch": None, "arch_options": (), "from": str(first), "steps": 2}
    train(store, second, **start)
    embed(store, EmbedConfig(backbone=str(second), size="16"), objective, run=SERIAL)
    samples = read_samples(Location.of(store), objective)
    assert samples.features[samples.finite].std(0).max() > 0
    assert samples.stage.config["pretraining"]["objective"] == objective
    assert f"objective  {objective}" in plan(store, config_of(**small))
    with pytest.raises(ConfigError, match=f"objective: {objective} -> dino"):
        pretrain(store, whole, config_of(**{**small, "objective": "dino"}))


def test_an_embedding_is_told_the_detail_that_was_learned(store: Path, tmp_path: Path) -> None:
    """Fields of 60 px were learned from at 16: each pixel stood for 0.2063 um * 60 / 16."""
    out = tmp_path / "ft"
    (trained,) = (line for line in train(store, out) if "trained; embed" in line)
    assert trained.endswith(f"--backbone {out} --size um:0.774`")
    for size, word in (
        ("native", "3.8 times as fine"),
        ("um:0.774", ""),
        ("8", "2.0 times as coa"),
    ):
        config = EmbedConfig(backbone=str(out), size=size)
        notes = embed(store, config, f"detail-{size.replace(':', '')}", run=SERIAL).notes
        found = [note for note in notes if "in the backbone's training" in note]
        assert len(found) == bool(word)
        assert all(word in note and "--size um:0.774 " in note for note in found)


def test_a_run_writes_a_backbone_that_loads(store: Path, tmp_path: Path) -> None:
    """Weights, facebook's layout, lineage, log; then there is nothing to do, or a refusal."""
    out = tmp_path / "ft"
    train(store, out, split="paper", guard_epochs=1, guard_samples=10, keep=1)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {"loss", "learning_rate", "images_per_s", "decodes_per_sample"} <= rows[0].keys()
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000008.pt"]

    backbone = backbones.load(str(out))
    assert backbone.roles == ("nucleus", "protein")
    assert backbone(torch.rand(2, 2, 24, 32)).shape == (2, 24)
    teacher = torch.load(out / "teacher.pth", weights_only=True)["teacher"]
    for name, value in backbone.vit.state_dict().items():
        assert torch.equal(teacher[f"backbone.{name}"], value)
    about = json.loads((out / "backbone.json").read_text())
    assert about["normalisation"]["kind"] == "unit"
    assert len(about["normalisation"]["mean"]) == 2
    assert [row["step"] for row in about["lineage"]["guard"]] == [0, 3, 6, 8]
    with (out / "checks.csv").open() as file:
        checks = list(csv.DictReader(file))
    assert [int(row["step"]) for row in checks] == [0, 3, 6, 8]
    assert float(checks[-1]["spread"]) == about["lineage"]["guard"][-1]["spread"]
    assert "split 'paper'" in about["lineage"]["held_out"]
    assert (out / "best" / "backbone.json").exists()

    before = (out / "backbone.safetensors").stat().st_mtime_ns
    said = train(store, out, split="paper", guard_epochs=1, guard_samples=10, keep=1)
    assert said == [f"{out}: nothing to do, all 8 steps are done"]
    assert (out / "backbone.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"batch: 4 -> 6; guard_epochs: 1 -> 0.*--overwrite"):
        train(store, out, split="paper", batch=6, guard_samples=10)
    assert pretrain(store, out, config_of(batch=6), overwrite=True, say=print) == 0
    assert "every field is trained on" in (out / "backbone.json").read_text()


def test_an_embedding_knows_how_its_backbone_was_trained(store: Path, tmp_path: Path) -> None:
    """It is prepared as in training, and says what the backbone has seen."""
    split(store, SplitConfig(folds=2), "honest")
    assert "'honest' has no test part" in "\n".join(
        train(store, tmp_path / "ft", split="honest", guard_epochs=1, guard_samples=10)
    )
    embed(store, EmbedConfig(backbone=str(tmp_path / "ft")), "ft", run=SERIAL)
    made = stage_attrs(Location.of(store).group("embeddings/ft", mode="r")).config
    recorded = json.loads((tmp_path / "ft" / "backbone.json").read_text())
    mean, sd = (recorded["normalisation"][key] for key in ("mean", "sd"))
    assert (made["norm"], made["trained"]) == ("trained", [mean, sd])
    recipe, guard = made["pretraining"], recorded["lineage"]["guard"]
    assert (recipe["from"], recipe["fields"], recipe["steps"]) == ("scratch", FIELDS, 8)
    assert (recipe["guard_at_start"], recipe["guard_at_end"]) == (guard[0], guard[-1])
    samples = read_samples(Location.of(store), "ft")
    assert any("trained, without labels, on 18 fields" in note for note in notes_on(samples))


def test_a_batch_norm_is_embedded_as_it_was_trained(store: Path, tmp_path: Path) -> None:
    """Its running statistics went along: features are as far apart as in training."""
    given = {"arch": None, "arch_options": (), "from": "timm:test_resnet", "weights": "random:0"}
    train(store, tmp_path / "ft", **given, objective="simclr", size=32, steps=16)
    made = backbones.load(str(tmp_path / "ft"))
    norms = [m for m in made.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all((norm.running_mean != 0).any() for norm in norms)
    last = max((tmp_path / "ft" / "checkpoints").iterdir())
    packed = torch.load(last, weights_only=False)
    for name, value in made.vit.state_dict().items():
        assert torch.equal(packed["student"][f"backbone.vit.{name}"], value)
    copy = tmp_path / "oc.zarr"
    shutil.copytree(store, copy)
    embed(copy, EmbedConfig(backbone=str(tmp_path / "ft"), size="32"), "e", run=SERIAL)
    features = read_samples(Location.of(copy), "e").features
    assert np.isfinite(features).all()
    assert features.std(0).max() > 0


class Counting(WrapperStore[Any]):
    """Notes which bytes of the images are fetched."""

    seen: list[tuple[str, Any]] = []  # noqa: RUF012

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if key.startswith("fovs/image/c/"):
            self.seen.append((key, byte_range))
        return await super().get(key, prototype, byte_range)


def fields_fetched(store: Path) -> set[int]:
    """Which fields' chunks overlap the bytes fetched, by the shards' own indexes."""
    fields = set()
    for key, wanted in Counting.seen:
        raw = (store / key).read_bytes()
        index = np.frombuffer(raw[-(SHARD * 16 + 4) : -4], np.uint64).reshape(SHARD, 2).tolist()
        start, end = (0, len(raw)) if wanted is None else (None, None)
        if hasattr(wanted, "suffix"):
            start, end = len(raw) - wanted.suffix, len(raw)
        elif wanted is not None:
            start, end = wanted.start, wanted.end
        for at, (offset, size) in enumerate(index):
            if size < 2**63 and offset < end and start < offset + size:
                fields.add(int(key.split("/")[3]) * SHARD + at)
    return fields


@pytest.mark.parametrize("level", ["fov", "cell"])
def test_the_held_out_part_is_never_read(
    store: Path, tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a byte of a test field's chunk is fetched; every other field's is."""
    plain = Location.store
    monkeypatch.setattr(Location, "store", lambda self, **options: Counting(plain(self, **options)))
    Counting.seen.clear()
    train(store, tmp_path / "ft", level=level, split="paper", crop_um=4.95, guard_epochs=1)
    assert fields_fetched(store) == set(np.flatnonzero(FOLD >= 0).tolist())
    Counting.seen.clear()
    train(store, tmp_path / "all", level=level, crop_um=4.95, steps=12)
    assert fields_fetched(store) > set(np.flatnonzero(FOLD >= 0).tolist())


def test_caches_train_the_same(store: Path, tmp_path: Path) -> None:
    """In memory-mapped file or on the device, to the last digit; no file is left behind."""
    import tempfile

    for cache in ("none", "ram", "device"):
        train(store, tmp_path / cache, cache=cache)
    assert losses(tmp_path / "ram") == losses(tmp_path / "none")
    assert losses(tmp_path / "device") == losses(tmp_path / "none")
    assert not list(Path(tempfile.gettempdir()).glob(f"zarrloc-{os.getuid()}-*.npy"))


@pytest.mark.parametrize("channels", ["replicate", "protein=1", "natural"])
def test_cells_and_channel_maps(store: Path, tmp_path: Path, channels: str) -> None:
    """Every level and map trains; the trained map becomes the backbone's own."""
    train(store, tmp_path / "ft", level="cell", crop_um=4.95, channels=channels)
    assert np.isfinite(losses(tmp_path / "ft")).all()
    assert backbones.spec(str(tmp_path / "ft")).default_channels == channels


def test_cells_are_the_kept_ones_of_training_fields(store: Path) -> None:
    """Counts above the background, black outside the mask."""
    data = open_data(Location.of(store), config_of(level="cell", split="paper", crop_um=4.95))
    keep = np.arange(FIELDS * CELLS) % 7 != 3
    expected = np.repeat(np.arange(FIELDS), CELLS)[keep & np.repeat(FOLD >= 0, CELLS)]
    np.testing.assert_array_equal(data.source.fov, expected)
    first = data.source.load(np.flatnonzero(data.source.shard == 0))
    assert data.source.decodes == len(np.unique(expected[expected < SHARD]))  # a field, once
    assert first.shape[1:] == (2, 24, 24)
    assert first.dtype == np.uint16
    assert float((first == 0).mean()) > 0.1
    assert 500 < np.median(first[:, 0][first[:, 0] > 0]) < 1300
    assert data.grade.shape == (len(expected), 2)


def test_a_fine_tune_starts_from_what_it_is_given(store: Path, tmp_path: Path) -> None:
    """With a rate of 0 in its only step it ends there too; the source is recorded."""
    train(store, tmp_path / "base")
    given = {"from": str(tmp_path / "base"), "arch": None, "arch_options": ()}
    train(store, tmp_path / "ft", **given, steps=1, warmup=0.99, learning_rate=None)
    start, end = (backbones.load(str(tmp_path / name)) for name in ("base", "ft"))
    assert start.weights_hash == end.weights_hash
    lineage = json.loads((tmp_path / "ft" / "backbone.json").read_text())["lineage"]
    assert lineage["from_weights"] == start.weights_hash
    train(store, tmp_path / "on", **given)
    assert backbones.load(str(tmp_path / "on")).weights_hash != start.weights_hash
    with pytest.raises(WeightsError, match="vit_tiny_patch16_224 -> vit_small_patch8"):
        plan(store, config_of(**{**given, "arch": "vit_small_patch8"}))
    other = {"from": "dino-vits16", "weights": str(tmp_path / "base" / "teacher.pth")}
    with pytest.raises(WeightsError, match=r"teacher\.pth does not fit"):
        train(store, tmp_path / "none", **{**given, **other}, local_size=16)
    assert not (tmp_path / "none").exists()


def test_other_weights_are_another_run(store: Path, tmp_path: Path) -> None:
    """By what is in the file: one that only moved continues, as does a run that noted none."""
    given = {"arch": None, "arch_options": (), "from": "timm:test_vit", "local_size": 16}
    out, file, moved = tmp_path / "ft", tmp_path / "start.safetensors", tmp_path / "moved"
    train(store, out, **given, weights="random:0", steps=2)
    with pytest.raises(ConfigError, match=r"\(weights: \w{32} -> \w{32}\); pass --overwrite"):
        train(store, out, **given, weights="random:1", steps=2)
    shutil.copy(out / "backbone.safetensors", file)
    train(store, tmp_path / "on", **given, weights=str(file), steps=2)
    moved.mkdir()
    file.rename(moved / file.name)
    again = {**given, "weights": str(moved / file.name), "steps": 2}
    assert "nothing to do" in train(store, tmp_path / "on", **again)[-1]
    marker = json.loads((tmp_path / "on" / "run.json").read_text())
    assert marker["settings"].pop("weights") == backbones.load(str(out)).weights_hash
    (tmp_path / "on" / "run.json").write_text(json.dumps(marker))
    assert "nothing to do" in train(store, tmp_path / "on", **again)[-1]


def test_fractions_take_fields_and_steps_stay(store: Path) -> None:
    """A smaller fraction is inside a larger; equal epochs are fewer steps, --steps are equal."""
    location = Location.of(store)
    taken = [
        set(open_data(location, config_of(fraction=f, split="paper")).source.fov.tolist())
        for f in (0.4, 0.7, 1.0)
    ]
    assert [len(fields) for fields in taken] == [6, 10, 14]
    assert taken[0] < taken[1] < taken[2]
    assert not taken[2] & set(np.flatnonzero(FOLD < 0).tolist())
    epochs = {"steps": None, "epochs": 6, "split": "paper"}
    assert "steps      18 of 4 samples" in plan(store, config_of(**epochs))
    assert "steps      6 of 4 samples" in plan(store, config_of(**epochs, fraction=0.4))
    assert "steps      8 of 4 samples" in plan(store, config_of(split="paper", fraction=0.4))


def test_what_cannot_work_is_refused(store: Path) -> None:
    """Before anything is started, with what to do."""
    for error, message, changes in (
        (ConfigError, "batch 19 is more than the 18 samples", {"batch": 19}),
        (ConfigError, "leaves none", {"fraction": 0.01}),
        (ConfigError, "--size 20 is not a multiple of the patch, 8", {"size": 20}),
        (ConfigError, "--local-size 12 is not a multiple", {"local_size": 12}),
        (ConfigError, "expected NAME=NUMBER", {"arch_options": ("depth",)}),
        (ConfigError, "vit_none", {"arch": "vit_none"}),
        (StoreError, "splits/none", {"split": "none"}),
        (StoreError, "cells/none", {"level": "cell", "cells": "none"}),
        (ChannelError, "dapi", {"channels": "dapi=0"}),
    ):
        with pytest.raises(error, match=message):
            plan(store, config_of(**changes))


def test_killed_and_continued_is_undisturbed_to_the_last_digit(store: Path, tmp_path: Path) -> None:
    """kill -9 at some step of a real process; the same call goes on from the last checkpoint."""
    file = tmp_path / "settings.yaml"
    settings = config_of(steps=14, checkpoint_steps=4, drop_path=0.3).model_dump(mode="json")
    file.write_text(yaml.safe_dump(settings))
    # Slow enough to be killed between two steps: it waits in every progress line. All runs are
    # processes of their own: what else a process has loaded can change the last digit.
    code = "import time, click; plain = click.echo\n"
    code += "def echo(*a, **k): plain(*a, **k); time.sleep(0.3)\n"
    code += "click.echo = echo\nfrom zarrloc_cli.main import main; main()"

    def command(out: Path) -> list[str]:
        words = ["pretrain", str(store), "--config", str(file), "--out", str(out)]
        return [sys.executable, "-c", code, *words]

    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        log = out / "log.jsonl"
        if log.exists() and len(log.read_text().splitlines()) >= 6:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "backbone.json").exists()
    said = subprocess.run(command(out), check=True, capture_output=True, text=True).stdout
    assert "continuing from step" in said
    assert losses(out) == losses(whole)
    first, second = (backbones.load(str(folder)) for folder in (whole, out))
    assert first.weights_hash == second.weights_hash


def test_a_run_goes_on_in_smaller_parts(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more --accumulate than before; and whether they fit is tried again."""
    tried: list[int] = []
    monkeypatch.setattr(Run, "fit_memory", lambda self, *given: tried.append(self.plan.parts))
    given = {"checkpoint_steps": 4, "keep": 9}
    train(store, tmp_path / "ft", **given)
    for file in ("backbone.json", "checkpoints/step-00000008.pt"):
        (tmp_path / "ft" / file).unlink()
    train(store, tmp_path / "ft", **given, accumulate=2)
    last = torch.load(tmp_path / "ft" / "checkpoints" / "step-00000008.pt", weights_only=False)
    assert last["settled"]["parts"] == 2
    assert tried == [1, 2]


def test_trying_what_fits_leaves_no_trace(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the start nor when it goes on, though a batch norm notes whatever it sees."""
    given = {"arch": None, "arch_options": (), "from": "timm:test_resnet", "weights": "random:0"}
    given |= {"objective": "simclr", "size": 32, "checkpoint_steps": 4, "keep": 9}
    train(store, tmp_path / "plain", **given)
    fit, made, cpu, tried = Run.fit_memory, pretrain_module.batches, torch.device("cpu"), []

    def as_on_a_gpu(run: Run, device: torch.device, *rest: Any) -> None:
        fit(run, torch.device("cuda"), *rest)
        tried.append(run.state.step)

    monkeypatch.setattr(Run, "fit_memory", as_on_a_gpu)
    monkeypatch.setattr(pretrain_module, "batches", lambda *g: made(*g[:-2], cpu, g[-1]))
    train(store, tmp_path / "tried", **given)
    for file in ("backbone.json", "checkpoints/step-00000008.pt"):
        (tmp_path / "tried" / file).unlink()
    train(store, tmp_path / "tried", **given)
    assert tried == [0, 4]
    assert losses(tmp_path / "tried") == losses(tmp_path / "plain")
    found = [backbones.load(str(tmp_path / name)).weights_hash for name in ("plain", "tried")]
    assert found[0] == found[1]


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(
    store: Path, tmp_path: Path, number: signal.Signals, ignored: bool
) -> None:
    """Exit code 1, a checkpoint of that very step, and the rest as if nothing had happened."""
    train(store, tmp_path / "whole")

    def say(text: str) -> None:
        if text.startswith("step 3/"):
            os.kill(os.getpid(), number)

    out = tmp_path / "ended"
    before = signal.getsignal(signal.SIGINT)
    try:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert pretrain(store, out, config_of(), say=say) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-00000003.pt"]
    assert not (out / "backbone.json").exists()
    train(store, out)
    assert losses(out) == losses(tmp_path / "whole")


def test_a_second_interrupt_ends_at_once_in_one_line(store: Path, tmp_path: Path) -> None:
    """Though the step has not ended; and the same command continues."""
    file, out = tmp_path / "settings.yaml", tmp_path / "ended"
    file.write_text(yaml.safe_dump(config_of(checkpoint_steps=2).model_dump(mode="json")))
    code = "import time, click; plain = click.echo\n"
    code += "def echo(text, **k): plain(text, **k); time.sleep(60 * text.startswith('step 3/'))\n"
    code += "click.echo = echo\nfrom zarrloc_cli.main import main; main()"
    words = [sys.executable, "-c", code, "pretrain", str(store), "--config", str(file)]
    process = subprocess.Popen(
        [*words, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step 3/"):
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert len(said.strip().splitlines()) == 1
    assert "the same command continues from here" in said
    assert train(store, out, checkpoint_steps=2)[0] == "continuing from step 2 of 8"


def test_only_a_runs_own_files_are_overwritten(store: Path, tmp_path: Path) -> None:
    """The user's stay; a folder of other things, and the store itself, are refused."""
    out, foreign = tmp_path / "ft", tmp_path / "thesis"
    train(store, out)
    foreign.mkdir()
    for folder in (out, foreign):
        (folder / "notes.txt").write_text("keep")
    train_again = {"say": print, "overwrite": True}
    assert pretrain(store, out, config_of(seed=1), **train_again) == 0
    assert (out / "notes.txt").read_text() == "keep"
    before = sorted(store.rglob("*"))
    for where in (foreign, store, store / "ft", store.parent):
        for options in ({"say": print}, train_again):
            with pytest.raises((ConfigError, StoreError), match="--out"):
                pretrain(store, where, config_of(seed=1), **options)
    assert sorted(store.rglob("*")) == before
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    start = {"from": str(out), "arch": None, "arch_options": ()}
    with pytest.raises(ConfigError, match="the run starts from"):
        pretrain(store, out, config_of(**start), **train_again)


def test_a_damaged_newest_checkpoint_costs_its_steps_only(store: Path, tmp_path: Path) -> None:
    """The older one is continued from, to the last digit; if none is whole, nothing is lost."""
    train(store, tmp_path / "whole")

    def say(text: str) -> None:
        if text.startswith("step 6/"):
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "ended"
    assert pretrain(store, out, config_of(checkpoint_steps=4), say=say) == 1
    older, newest = sorted((out / "checkpoints").iterdir())
    kept = older.read_bytes()
    for path in (older, newest):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="none of the 2 checkpoints"):
        train(store, out)
    assert sorted((out / "checkpoints").iterdir()) == [older, newest]
    older.write_bytes(kept)
    said = train(store, out)
    assert "continuing from step-00000004.pt instead" in said[0]
    assert losses(out) == losses(tmp_path / "whole")


def test_a_collapse_ends_the_run_unless_asked_to_go_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, no backbone; the same command does not train on; other settings start again."""
    said: list[str] = []
    out, wild = tmp_path / "ft", {"guard_epochs": 1, "steps": 12}
    monkeypatch.setattr("zarrloc.pretraining.guard.LEAST_SPREAD", 1e9)
    for _ in range(2):
        assert pretrain(store, out, config_of(**wild), say=said.append) == 3
        assert "training has collapsed; start again" in said[-1]
    assert said[-2].startswith("continuing from step")
    assert len(losses(out)) < 12
    assert not (out / "backbone.json").exists()
    assert pretrain(store, out, config_of(**wild, keep_going=True), say=said.append) == 0
    lineage = json.loads((out / "backbone.json").read_text())["lineage"]
    assert "COLLAPSE at step 12" in lineage["warnings"][0]
    monkeypatch.undo()
    assert pretrain(store, out, config_of(guard_epochs=1), overwrite=True, say=said.append) == 0


@pytest.fixture(scope="module")
def nameless(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """The same fields under names that say nothing, with or without labels."""
    folder = tmp_path_factory.mktemp("nameless")
    (folder / "raw").mkdir()
    rows = ["path,label"]
    for fov, file in enumerate(sorted((store.parent / "raw").iterdir())):
        shutil.copy(file, folder / "raw" / f"{fov:02d}.tif")
        rows.append(f"{fov:02d}.tif,{('golgi', 'er')[fov // 2 % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")

    def make(labelled: bool) -> Path:
        path = folder / f"{labelled}.zarr"
        channels = ("nucleus", "protein")
        settings = IngestConfig(shard_fovs=SHARD, pixel_size_um=0.2063, channels=channels)
        labels = folder / "labels.csv" if labelled else None
        ingest(folder / "raw", path, settings, labels=labels, run=SERIAL)
        return path

    return make


def test_a_store_without_labels_trains(nameless: Callable[[bool], Path], tmp_path: Path) -> None:
    """The guard says what it cannot measure, and watches the rest."""
    said = train(nameless(False), tmp_path / "ft", guard_epochs=1)
    assert any("cannot score neighbours, since the samples have no labels" in s for s in said)
    assert "spread" in "".join(said)
    assert not (tmp_path / "ft" / "best").exists()


def test_checks_come_by_steps_and_stand_beside_baselines(store: Path, tmp_path: Path) -> None:
    """Every three steps; classic features only where the store has those of the same samples."""
    here, out = tmp_path / "oc.zarr", tmp_path / "ft"
    shutil.copytree(store, here)
    for path in ("splits/paper", "cells/cells", "segmentations/cells"):  # not a stage's own
        drop(Location.of(here), path)
    given: dict[str, Any] = {"eval_every": 3, "guard_samples": 10}
    train(here, out, **given)
    with (out / "checks.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 3, 6, 8]
    chance = json.loads((out / "baselines.json").read_text())
    assert set(chance) == {"permuted labels", "intensity statistics"}
    embed(here, EmbedConfig(backbone="classic"), "classic", run=SERIAL)
    assert pretrain(here, out, config_of(**given), overwrite=True, say=print) == 0
    beside = json.loads((out / "baselines.json").read_text())
    assert beside.pop("classic features") is not None
    assert beside == chance
    page = tmp_path / "page.html"
    write_report(here, page, ReportConfig(runs=(str(out),), knn=(), bootstrap=0), project=flat)
    text = page.read_text()
    for shown in (
        "Training without labels",
        "classic features 0.",
        "Effective rank over the steps",
    ):
        assert shown in text
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(here, page, ReportConfig(runs=(str(here),)), project=flat)


def test_fields_without_a_protein_are_scored_by_field(
    nameless: Callable[[bool], Path], tmp_path: Path
) -> None:
    """One empty name for all would leave every neighbour out, and kNN at 0 for ever."""
    path = nameless(True)
    data = open_data(Location.of(path), config_of())
    assert len(np.unique(data.protein)) == FIELDS
    train(path, tmp_path / "ft", guard_epochs=1)
    about = json.loads((tmp_path / "ft" / "backbone.json").read_text())
    assert max(row["knn_macro_f1"] for row in about["lineage"]["guard"]) > 0
    assert (tmp_path / "ft" / "best" / "backbone.json").exists()


def test_two_runs_on_one_node_do_not_share_a_cache(store: Path) -> None:
    """Another run that caches the same store meanwhile, in other windows, changes nothing.

    Other users of the node cannot read what lies there.
    """
    location, modes = Location.of(store), []

    class Meanwhile(World):
        def barrier(self) -> None:
            files = Path(tempfile.gettempdir()).glob(f"zarrloc-{os.getuid()}-*.npy")
            modes.extend(file.stat().st_mode & 0o777 for file in files)
            cache(World(), crop_um=2.9)

    def cache(world: World, **changes: Any) -> Any:
        config = config_of(level="cell", cache="ram", **changes)
        source = open_data(location, config).source
        return source, cached(config, source, location, world, torch.device("cpu"))[0]

    source, held = cache(Meanwhile(), crop_um=4.95)
    rows = np.flatnonzero(source.shard == 0)
    np.testing.assert_array_equal(held.load(rows), source.load(rows))
    assert set(modes) == {0o600}


def test_a_cache_that_does_not_fit_is_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is begun: a file map that outgrows its disk would kill the process."""
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("zarrloc.pretraining.samples.shutil.disk_usage", lambda path: free)
    with pytest.raises(ConfigError, match=r"--cache ram needs .* GiB in .*TMPDIR"):
        train(store, tmp_path / "ft", cache="ram")


def test_one_run_at_a_time(store: Path, tmp_path: Path) -> None:
    """A second run of the same folder is refused while the first lives."""
    with (
        hold(Location.of(tmp_path / "ft"), "pretrain", "other"),
        pytest.raises(LockedError, match="run other"),
    ):
        train(store, tmp_path / "ft")
    assert not (tmp_path / "ft").exists()


@pytest.mark.slow
def test_two_processes_give_one_run(store: Path, tmp_path: Path) -> None:
    """Started by itself: the log is that of one process, up to rounding."""
    train(store, tmp_path / "one", drop_path=0.0)
    assert pretrain(store, tmp_path / "two", config_of(drop_path=0.0, processes=2)) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_the_command_parses_and_calls_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML file, flags that count more, and the plan of a dry run."""
    calls = []
    monkeypatch.setattr(
        "zarrloc.stages.pretrain.pretrain", lambda *a, **k: calls.append((a, k)) or 0
    )
    file = tmp_path / "settings.yaml"
    file.write_text("from: scratch\narch: vit_small_patch8\nepochs: 7\nglobal_scale: [0.3, 0.9]\n")
    arguments = ["pretrain", "oc.zarr", "--config", str(file), "--out", "ft"]
    arguments += ["--epochs", "9", "--local-scale", "0.1,0.3", "--overwrite"]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.exception is None
    (((where, out, config), options),) = calls
    assert (where, out, options["overwrite"]) == ("oc.zarr", Path("ft"), True)
    assert (config.epochs, config.arch) == (9, "vit_small_patch8")
    assert (config.global_scale, config.local_scale) == ((0.3, 0.9), (0.1, 0.3))

    file.write_text("epoch: 7\n")
    result = CliRunner().invoke(cli, arguments[:6], standalone_mode=False)
    assert "epoch: Extra inputs" in str(result.exception)

    shown = CliRunner().invoke(
        cli,
        [
            "pretrain",
            str(store),
            "--out",
            "ft",
            "--dry-run",
            "--arch",
            "vit_small_patch8",
            "--batch",
            "6",
            "--device",
            "cpu",
        ],
        standalone_mode=False,
    )
    assert "300 of 6 samples" in shown.output
    assert "2 x 224 px + 8 x 96 px: 2730 tokens a sample" in shown.output
    assert "GiB" in shown.output


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 smaller fields of protein and er, and a split."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "raw").mkdir()
    for fov in range(8):
        image, _ = make_field(CELLS, 48, 100 + fov)
        tifffile.imwrite(folder / "raw" / f"f{fov}.tif", image, imagej=True,
                         metadata={"axes": "CYX"})  # fmt: skip
    settings = IngestConfig(shard_fovs=SHARD, pixel_size_um=0.2063, channels=("protein", "er"))
    path = folder / "other.zarr"
    ingest(folder / "raw", path, settings, run=SERIAL)
    fold = {"fold": (("fov",), np.array([-1, 0, 1, 2] * 2, np.int8))}
    write_group(Location.of(path), "splits/paper", fold, attrs={})
    return path


CHANNELS: dict[str, Any] = {"tokens": "channel", "decoder_width": 32, "decoder_depth": 1}


@pytest.mark.parametrize("objective", ["dino", "dinov2", "mae", "simclr", "vicreg"])
def test_stores_of_different_channels_are_trained_on_together(
    store: Path, other: Path, tmp_path: Path, objective: str
) -> None:
    """By every objective; resumed as undisturbed; then any channels embed."""
    given = {**CHANNELS, "objective": objective, "also": (str(other),), "split": "paper"}
    given |= {"checkpoint_steps": 4, "guard_epochs": 1, "guard_samples": 12, "keep": 9}
    out = tmp_path / "joined"
    train(store, out, **given)
    lineage = json.loads((out / "backbone.json").read_text())["lineage"]
    assert lineage["fields"] == int((FOLD >= 0).sum()) + 6
    assert "other.zarr: the test part of split 'paper', 2 fields" in lineage["held_out"]
    before = losses(out)
    assert np.isfinite(before).all()
    for file in ("backbone.json", "backbone.safetensors", "teacher.pth"):
        (out / file).unlink()
    (out / "checkpoints" / "step-00000008.pt").unlink()
    train(store, out, **given)
    assert losses(out) == before

    backbone = backbones.load(str(out))
    assert backbone.roles == ("nucleus", "protein", "er")
    assert backbone.spec.tokens == "channel"
    for name, path in (("one", store), ("two", other)):
        copy = tmp_path / f"{name}.zarr"
        shutil.copytree(path, copy)
        embed(copy, EmbedConfig(backbone=str(out), size="24"), "e", run=SERIAL)
        found = read_samples(Location.of(copy), "e").features
        assert np.isfinite(found).all()
        assert found.std(0).max() > 0


def test_a_missing_channel_is_absent_not_black(store: Path, other: Path, tmp_path: Path) -> None:
    """An embedding of two of three channels is what the network says of these two alone."""
    train(store, tmp_path / "ft", **CHANNELS, also=(str(other),))
    copy = tmp_path / "oc.zarr"
    shutil.copytree(other, copy)
    backbone = backbones.load(str(tmp_path / "ft"))
    embed(copy, EmbedConfig(backbone=str(tmp_path / "ft"), size="24"), "e", run=SERIAL)
    found = read_samples(Location.of(copy), "e").features
    about = json.loads((tmp_path / "ft" / "backbone.json").read_text())["normalisation"]
    image = xr.open_zarr(copy, group="fovs").image.values[:1]
    mapping = resolve("natural", backbone.roles, ("protein", "er"), "natural")
    trained = (tuple(about["mean"]), tuple(about["sd"]))
    (inputs,), _ = prepare(
        torch.from_numpy(image), mapping, Size.parse("24"), "trained", 8, None, trained
    )
    black = backbone(inputs).detach().numpy()
    inputs[:, 0] = torch.nan
    np.testing.assert_allclose(found[:1], backbone(inputs).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(found[:1] - black).max() > 1e-3


def test_a_rare_channel_is_scaled_by_its_own_samples(
    store: Path, other: Path, tmp_path: Path
) -> None:
    """Though none of the samples that the guard draws has it; of none, it would become NaN."""
    seed = next(s for s in range(9) if (nested_subset(FIELDS + 8, 2, s) < FIELDS).all())
    given = {**CHANNELS, "also": (str(other),), "guard_samples": 2, "seed": seed, "steps": 2}
    train(store, tmp_path / "ft", **given)
    about = json.loads((tmp_path / "ft" / "backbone.json").read_text())["normalisation"]
    assert about["mean"][2] == pytest.approx(0.3, abs=0.2)
    assert about["sd"][2] == pytest.approx(0.2, abs=0.15)


def test_what_cannot_be_trained_together_is_refused(
    store: Path, other: Path, tmp_path: Path
) -> None:
    """Before anything is written, with the setting that helps."""
    with pytest.raises(ConfigError, match="also needs tokens channel"):
        config_of(also=(str(other),))
    with pytest.raises(ConfigError, match="--channels replicate is for a backbone of patch"):
        pretrain(store, tmp_path / "x", config_of(**CHANNELS, channels="replicate"))
    train(store, tmp_path / "patch", steps=2)
    for given, message in (
        ({"tokens": "channel"}, "--tokens channel is for --from scratch"),
        ({"also": (str(other),)}, "--also needs a backbone of channel tokens"),
    ):
        start = {"arch": None, "arch_options": (), "from": str(tmp_path / "patch"), **given}
        with pytest.raises(ConfigError, match=message):
            pretrain(store, tmp_path / "x", config_of(**start))
    absent = config_of(**CHANNELS, also=(str(other),), split="absent")
    with pytest.raises(StoreError, match="absent"):
        pretrain(store, tmp_path / "x", absent)
    without = config_of(**CHANNELS, also=(str(other),), channels="nucleus=nucleus")
    for call in (lambda: plan(store, without), lambda: pretrain(store, tmp_path / "x", without)):
        with pytest.raises(ConfigError, match="8 of 26 samples have none of the channels"):
            call()
    assert not (tmp_path / "x").exists()


PAIRS: dict[str, Any] = {"objective": "simclr", "views": "protein", "cache": "ram"}


def test_two_fields_of_a_protein_are_two_views(store: Path, tmp_path: Path) -> None:
    """Resumed as undisturbed, and said to whoever reads the embedding."""
    given = {**PAIRS, "checkpoint_steps": 4, "level": "cell", "crop_um": 5.0, "keep": 9}
    train(store, tmp_path / "ft", **given)
    train(store, tmp_path / "plain", **{**given, "views": "sample"})
    before = losses(tmp_path / "ft")
    assert before != losses(tmp_path / "plain")
    for file in ("backbone.json", "backbone.safetensors", "teacher.pth"):
        (tmp_path / "ft" / file).unlink()
    (tmp_path / "ft" / "checkpoints" / "step-00000008.pt").unlink()
    train(store, tmp_path / "ft", **{**given, "cache": "device"})
    assert losses(tmp_path / "ft") == before
    copy = tmp_path / "oc.zarr"
    shutil.copytree(store, copy)
    config = EmbedConfig(backbone=str(tmp_path / "ft"), size="24")
    embed(copy, config, "e", run=SERIAL)
    notes = notes_on(read_samples(Location.of(copy), "e"))
    assert any("only proteins that were held out are new" in note for note in notes)


def test_proteins_held_out_are_never_a_view(store: Path, other: Path, tmp_path: Path) -> None:
    """A split by images is refused, one by proteins is not; nor are there pairs without names."""
    with pytest.raises(ConfigError, match=r"holds out fields of \d+ that it trains on, such as G"):
        pretrain(store, tmp_path / "x", config_of(**PAIRS, split="paper"))
    with pytest.raises(ConfigError, match="no protein has two fields"):
        pretrain(other, tmp_path / "x", config_of(**PAIRS))
    with pytest.raises(ConfigError, match="views protein is for the objectives simclr and vicreg"):
        config_of(views="protein", cache="ram")
    with pytest.raises(ConfigError, match="views protein needs the samples in memory"):
        config_of(views="protein", objective="vicreg")
    assert not (tmp_path / "x").exists()
    copy = tmp_path / "oc.zarr"
    shutil.copytree(store, copy)
    fold = np.where(np.arange(FIELDS) // 2 % 4 == 1, -1, np.arange(FIELDS) // 2 % 3)
    columns = {"fold": (("fov",), fold.astype(np.int8))}
    write_group(Location.of(copy), "splits/honest", columns, attrs={})
    data = open_data(Location.of(copy), config_of(**PAIRS, split="honest"))
    assert not {"G1", "G5"} & set(data.protein.tolist())
    assert data.beside.siblings is not None
    rows = np.arange(len(data.protein))
    drawn = data.beside.siblings.drawn(rows, torch.Generator().manual_seed(0))
    assert (data.protein[drawn] == data.protein).all()
    assert (data.source.fov[drawn] != data.source.fov).all()


def test_few_samples_train_without_being_asked_for_a_batch(store: Path, tmp_path: Path) -> None:
    """A quarter of them at most; a batch that was asked for is refused where it does not fit."""
    small = {name: value for name, value in SMALL.items() if name != "batch"}
    out, said = tmp_path / "ft", list[str]()
    assert pretrain(store, out, PretrainConfig.of(small), say=said.append) == 0
    assert f"8 steps of 4 of {FIELDS} samples" in " ".join(said)
    assert "8 of 4 samples" in plan(store, PretrainConfig.of(small))
    assert pretrain(store, out, PretrainConfig.of(small), say=said.append) == 0
    assert "nothing to do" in said[-1]
    with pytest.raises(ConfigError, match=f"--batch 64 is more than the {FIELDS} samples"):
        pretrain(store, tmp_path / "x", PretrainConfig.of({**small, "batch": 64}))
