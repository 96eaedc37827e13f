"""A small store with every kind of group, and the calls that make it, stage by stage."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.image_files import opencell_name, write
from tests.stages.conftest import bright_spots
from tests.stores import make_field
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.evaluate import PredictConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.engine.verify import verify

FOVS, SIDE, SHARD = 8, 64, 2
SERIAL = RunConfig(cluster="serial")
LOCAL = RunConfig(cluster="local", workers=2, memory_limit="2GB", dashboard=":0")
TINY = {"backbone": "timm:test_vit", "weights": "random:0", "size": "64"}
PRETRAIN: dict[str, Any] = {
    "arch": "vit_tiny_patch16",
    "arch_options": ("patch_size=8", "depth=1", "embed_dim=24", "num_heads=3"),
    "size": 16,
    "local_size": 8,
    "local_views": 1,
    "batch": 4,
    "steps": 12,
    "learning_rate": 0.01,
    "prototypes": 16,
    "head_hidden": 12,
    "bottleneck": 6,
    "log_steps": 1,
    "checkpoint_steps": 2,
    "keep": 3,
    "guard_epochs": 0,
    "device": "cpu",
}


@dataclass(frozen=True)
class Stage:
    """What a stage makes and reads, and the call that makes it."""

    name: str
    group: str
    reads: tuple[str, ...]
    do: Callable[[Path, RunConfig, bool], Any]

    def __call__(self, store: Path, run: RunConfig = SERIAL, *, overwrite: bool = False) -> int:
        """Run it; returns its exit code."""
        done = self.do(store, run, overwrite)
        if isinstance(done, int):
            return done
        summaries = done if isinstance(done, tuple) else (done,)
        return max(int(one.exit_code) for one in summaries)


def relabel(store: Path, run: RunConfig = SERIAL) -> int:
    """The other table of labels."""
    from zarrloc.stages.ingest import ingest

    raw, config = store.parent / "raw", IngestConfig(shard_fovs=SHARD, pixel_size_um=0.2063)
    table = raw / "other.csv"
    return ingest(raw, store, config, labels=table, run=run).exit_code


def _ingest(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.ingest import ingest

    raw, config = store.parent / "raw", IngestConfig(shard_fovs=SHARD, pixel_size_um=0.2063)
    table = raw / "labels.csv"
    return ingest(raw, store, config, labels=table, run=run, overwrite=overwrite)


def _segment(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.segment import segment_fovs

    common: dict[str, Any] = {"run": run, "overwrite": overwrite}
    return segment_fovs(store, SegmentConfig(), "s", function=bright_spots, **common)


def _tabulate(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.segment import tabulate

    return tabulate(store, "s", block_cells=8, run=run, overwrite=overwrite)


def _embed(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.embed import embed

    return embed(store, EmbedConfig.of(TINY), "f", run=run, overwrite=overwrite)


def _embed_cells(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.embed import embed

    config = EmbedConfig.of({**TINY, "level": "cell", "cells": "s"})
    return embed(store, config, "c", run=run, overwrite=overwrite)


def _split(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.split import split

    return split(store, SplitConfig(folds=2, group="image"), "p", overwrite=overwrite)


def _train(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.train import train

    config = TrainConfig(embedding="f", split="p", hidden=(8,), epochs=3, batch=4)
    return train(store, config, "h", overwrite=overwrite)


def _predict(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.predict import predict

    config = PredictConfig(embedding="f", head=f"{store}/heads/h")
    return predict(store, config, "new", overwrite=overwrite)


def run_of(store: Path) -> Path:
    """Where `pretrain` on this store writes."""
    return store.with_name(f"{store.stem}-run")


def _pretrain(store: Path, run: RunConfig, overwrite: bool) -> Any:
    from zarrloc.stages.pretrain import pretrain

    config = PretrainConfig.of(PRETRAIN)
    out = run_of(store)
    return pretrain(store, out, config, overwrite=overwrite, say=lambda _: None)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("ingest", "fovs", (), _ingest),
        Stage("segment", "segmentations/s", ("fovs",), _segment),
        Stage("cells", "cells/s", ("fovs", "segmentations/s"), _tabulate),
        Stage("embed fields", "embeddings/f", ("fovs",), _embed),
        Stage("embed cells", "embeddings/c", ("fovs", "segmentations/s", "cells/s"), _embed_cells),
        Stage("split", "splits/p", ("fovs",), _split),
        Stage("train", "heads/h", ("fovs", "embeddings/f", "splits/p"), _train),
        Stage("predict", "heads/new", ("embeddings/f", "heads/h"), _predict),
    )
}
"""In the order of the work."""

PRETRAINING = Stage("pretrain", "", ("fovs",), _pretrain)
GROUPS = tuple(stage.group for stage in STAGES.values())


def make_images(folder: Path, count: int = FOVS) -> Path:
    """Fields of square cells, in `folder/raw`, with two tables of labels."""
    raw = folder / "raw"
    for row in range(count):
        file = raw / opencell_name(row + 1)
        if not file.exists():
            write(file, make_field(3, SIDE, row)[0])
    for table, names in (("labels", ("er", "golgi")), ("other", ("golgi", "vesicles"))):
        rows = [f"{opencell_name(row + 1)},{names[row % 2]}" for row in range(count)]
        (raw / f"{table}.csv").write_text("\n".join(["path,label", *rows, ""]))
    return raw


def make_store(folder: Path, keep: Callable[[str], None] = lambda name: None) -> Path:
    """Images, and a store of every stage, in `folder`; `keep(name)` before each stage."""
    make_images(folder)
    store = folder / "s.zarr"
    for stage in STAGES.values():
        keep(stage.name)
        assert stage(store) == 0, stage.name
    judge(store)
    return store


def judge(store: Path, run: RunConfig = SERIAL) -> int:
    """An expert's judgements of a few cells."""
    from zarrloc.stages.label import label

    table = store.parent / "judged.csv"
    fov = f"FID{1:08d}"
    table.write_text(f"fov,mask_label,whole,confirmed\n{fov},1,yes,yes\n{fov},2,no,no\n")
    label(store, "s", table)
    return 0


def stored(store: Path) -> dict[str, bytes]:
    """Every stored object that counts, by array and place, as far as documents can be read."""
    found = {}
    for group in GROUPS:
        try:
            document = json.loads((store / group / "zarr.json").read_bytes())
            arrays = document["consolidated_metadata"]["metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            arrays = {}
        for home in (path.parent for path in (store / group).rglob("zarr.json")):
            name = home.relative_to(store / group).as_posix()
            encoding = arrays.get(name, {}).get("chunk_key_encoding", {})
            separator = encoding.get("configuration", {}).get("separator", "/")
            for file in home.glob("c/**/*" if separator == "/" else "c.*"):
                if file.is_file():
                    place = str(file.relative_to(home)).replace(separator, "/")
                    found[f"{home.relative_to(store)}/{place}"] = file.read_bytes()
    return found


stored_once = functools.cache(stored)
"""The same, of a store that nothing changes any more."""


def differences(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Which objects differ, or are in one alone."""
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def assert_whole(store: Path, undisturbed: Path) -> None:
    """The store holds what the undisturbed one does, and `verify --deep` finds no fault.

    Stored objects are compared byte by byte, and what they mean by their arrays' metadata.
    """
    faults = [found for found in verify(store, deep=True) if found.faults]
    assert not faults, faults
    assert differences(stored(store), stored_once(undisturbed)) == []
    assert _meaning(store) == _meaning(undisturbed)


def _meaning(store: Path) -> dict[str, Any]:
    """Shape, dtype and codecs of every array, and the digests of the columns."""
    root = json.loads((store / "zarr.json").read_bytes())
    entries = root["consolidated_metadata"]["metadata"]
    for entry in entries.values():
        entry.pop("chunk_key_encoding", None)  # which of two sets of keys is in use
        attributes = entry["attributes"]
        attributes.pop("document_digest", None)
        attributes.get("zarrloc", {}).pop("execution", None)
    return dict(entries)


@dataclass
class Tally:
    """How the cases ended: healed, or named as lost; and what did not hold."""

    ended: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)

    @contextmanager
    def of(self, case: object) -> Iterator[None]:
        """Whatever is raised within is a case that was lost."""
        try:
            yield
        except Exception as error:
            self.lost.append(f"{case}: {type(error).__name__}: {error}")

    def tell(self, what: str) -> None:
        tried = sum(self.ended.values()) + len(self.lost)
        kinds = ", ".join(f"{n} {how}" for how, n in sorted(self.ended.items()))
        held = tried - len(self.lost)
        print(f"\n{what}: tried {tried}, held {held}, lost {len(self.lost)}; {kinds}")
        assert not self.lost, "\n".join(self.lost)


def draws(count: int, seed: int) -> Iterator[np.random.Generator]:
    """One generator a case."""
    for case in range(count):
        yield np.random.default_rng((seed, case))
