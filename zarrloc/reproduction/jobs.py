"""Rows become jobs: one a stage, named by what it depends on, so that equal ones are shared."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.reproduce import (
    SCRATCH,
    ReproduceConfig,
    ReproducedRowConfig,
    StandInConfig,
    StandInsConfig,
)
from zarrloc.config.settings_file import read_settings
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.fovs import Fovs
from zarrloc.models import backbones
from zarrloc.models.weights import SPEC_FILE, read_metadata

Kind = Literal["split", "segment", "pretrain", "embed", "train"]


@dataclass(frozen=True)
class Job:
    """One stage with its settings. Equal jobs have equal names, and are done once."""

    kind: Kind
    name: str
    """Name of the group in the store, or of the run's folder."""
    settings: Any
    """The stage's config; what `segment` is called with."""
    needs: tuple["Job", ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from any other."""
        return self.kind, self.name

    def chain(self) -> Iterator["Job"]:
        """All that must be done for it, itself last."""
        for job in self.needs:
            yield from job.chain()
        yield self


@dataclass(frozen=True)
class Task:
    """A row, the job whose result it shows, and what it leans on."""

    row: ReproducedRowConfig
    job: Job
    stand_in: str = ""


def read_table(file: Path) -> ReproduceConfig:
    """The table in a YAML file. Raises `ConfigError`."""
    return ReproduceConfig.of(read_settings(file))


def read_stand_ins(file: Path | None) -> StandInsConfig:
    """Stand-ins in a YAML file, whose paths are seen from that file. Raises `ConfigError`."""
    if file is None:
        return StandInsConfig.of({})
    found = StandInsConfig.of(read_settings(file))

    def seen(given: StandInConfig) -> StandInConfig:
        paths = {
            name: str(path)
            for name in ("backbone", "weights")
            if (text := getattr(given, name)) and (path := file.parent / text).exists()
        }
        return given.model_copy(update=paths)

    return found.model_copy(
        update={"backbones": {name: seen(one) for name, one in found.backbones.items()}}
    )


def with_stand_ins(table: ReproduceConfig, given: StandInsConfig) -> ReproduceConfig:
    """The table with the settings that go with stand-ins."""
    merged = {**given.table}
    if given.pretrain:
        merged["pretrain"] = {**table.pretrain, **given.pretrain}
    return table.model_copy(update=merged)


def alternative(table: ReproduceConfig, name: str, value: Any) -> ReproduceConfig:
    """The table with another value of one setting, and with cells of its own if it makes them."""
    changed = table.model_copy(update={name: value})
    if table.level == "fov" or _cells(changed) == _cells(table):
        return changed
    own = re.sub(r"\W+", "-", f"{table.cells}-{name}-{value}")
    return changed.model_copy(update={"cells": own})


def task_of(
    table: ReproduceConfig, row: ReproducedRowConfig, given: StandInsConfig, fovs: Fovs, out: Path
) -> Task:
    """What must be done for a row. Raises `ConfigError` or `ChannelError` for one that can't be."""
    split = _job("split", _split_config(table))
    cells = _cells(table) if table.level == "cell" else ()
    stands_for = row.arch if row.backbone == SCRATCH else row.backbone
    stand_in = given.backbones.get(str(stands_for), StandInConfig.of({}))
    backbone = stand_in.backbone or row.backbone
    weights = stand_in.weights if stand_in.backbone else (stand_in.weights or row.weights)
    channels = _channels(row.channels, backbone, fovs)
    start: dict[str, Any] = {"backbone": backbone, "weights": weights, "channels": channels}
    needs = cells
    if row.finetune is not None:
        arch = stand_in.arch or row.arch if backbone == SCRATCH else None
        share = given.epochs_share
        if table.level == "cell":
            share = given.cell_epochs_share or share
        settings = {
            **table.pretrain,
            "start": backbone,
            "weights": weights,
            "arch": arch,
            "channels": channels,
            "level": table.level,
            "cells": table.cells,
            "crop_um": table.crop_um,
            "split": split.name if table.level == "fov" and table.test else None,
            "epochs": max(1, round(row.finetune.epochs * share)),
            "fraction": row.finetune.fraction,
        }
        if backbone != SCRATCH:
            settings.pop("arch_options", None)
        trained = _job("pretrain", PretrainConfig.of(settings), (split, *cells))
        needs = (trained,)
        start = {"backbone": str(out / "backbones" / trained.name)}
    level: dict[str, Any] = {"level": table.level, "size": table.size}
    if table.level == "cell":
        level |= {"cells": table.cells, "crop_um": table.crop_um}
    config = EmbedConfig.of({**start, **level})
    known = config if row.finetune is None else config.model_copy(update={"backbone": "trained"})
    embedded = Job("embed", _job("embed", known, needs).name, config, needs)
    note = f"{stands_for} is stood in for by {Path(backbone).name}" if stand_in.backbone else ""
    if table.level == "cell":
        return Task(row, embedded, note)
    head = {"embedding": embedded.name, "split": split.name, "weak": table.weak}
    train = TrainConfig.of({"seed": table.seed, **table.head, **head})
    return Task(row, _job("train", train, (split, embedded)), note)


def _split_config(table: ReproduceConfig) -> SplitConfig:
    return SplitConfig(folds=table.folds, test=table.test, group=table.group, seed=table.seed)


def _cells(table: ReproduceConfig) -> tuple[Job, ...]:
    settings = {
        "config": table.segment,
        "crop_um": table.crop_um,
        "keep_percentile": table.keep_percentile,
    }
    return (Job("segment", table.cells, settings),)


def _channels(text: str | None, backbone: str, fovs: Fovs) -> str | None:
    """`random:SEED` drawn: every role of the store into an input of its own, none its natural."""
    if text is None or not text.startswith("random:"):
        return text
    seed = text.removeprefix("random:")
    if not seed.isdecimal():
        raise ConfigError(f"channels {text!r}: expected random:SEED with SEED 0, 1, 2, ...")
    roles = backbones.spec(backbone).roles
    random = np.random.default_rng(int(seed))
    for _ in range(1000):
        inputs = random.permutation(len(roles))[: len(fovs.roles)].tolist()
        pairs = list(zip(fovs.roles, inputs, strict=True))
        if not any(roles[i] == role for role, i in pairs):
            return ",".join(f"{role}={i}" for role, i in pairs)
    raise ConfigError(f"{backbone} has no inputs for a random map of {', '.join(fovs.roles)}")


def _identity(value: Any) -> Any:
    """A folder of `zarrloc pretrain` is its weights, wherever it lies; else the value itself."""
    if isinstance(value, str) and (Path(value) / SPEC_FILE).is_file():
        return read_metadata(Path(value))["weights_hash"]
    return value


def _job(kind: Kind, settings: Any, needs: tuple[Job, ...] = ()) -> Job:
    """A job named by its settings and by the names of what it stands on."""
    settled = {name: _identity(value) for name, value in settings.model_dump(mode="json").items()}
    content: Mapping[str, Any] = {"settings": settled, "needs": [job.name for job in needs]}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Job(kind, f"reproduce-{digest[:10]}", settings, needs)
