"""Init: look at a folder of images, say what it holds, and write the commands to run."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import files, labels
from zarrloc.images.labels import LabelTable
from zarrloc.images.look import Look, look

TABLES = (".csv", ".tsv", ".txt", ".xlsx")
MOST_TABLES = 20
"""So many files beside the images are looked into for labels or conditions."""

BACKBONE = "dino-vits16"
SIZE = "448"
"""Pixels of a field's longer side in the network: half a second a field on two cores, where the
native size of most cameras takes a minute."""


@dataclass(frozen=True)
class Init:
    """What was seen, and the script that was written."""

    seen: Look
    script: Path
    commands: tuple[str, ...]
    table: Path | None
    project: str | None
    """How stacks become planes, where the source holds any and nobody said."""

    @property
    def exit_code(self) -> int:
        """Always 0: what nothing can be made of raises."""
        return 0

    def lines(self) -> list[str]:
        """For people."""
        told = self.seen.lines()
        if self.project:
            told.append(
                f"fields are z stacks: --project {self.project} is written; mean and focus (the "
                "sharpest plane) are the others"
            )
        told.append(
            f"{self.table} says what fields are"
            if self.table
            else "no table of labels or conditions beside the images; --labels TABLE adds one"
        )
        return [*told, "", f"wrote {self.script}:", *(f"  {one}" for one in self.commands)]


def init(
    source: str | Path,
    config: IngestConfig | None = None,
    *,
    store: str | Path = "my.zarr",
    script: str | Path = "zarrloc.sh",
    labels_csv: str | Path | None = None,
    unsigned: bool = False,
    overwrite: bool = False,
) -> Init:
    """Look at a source and write a shell script that makes embeddings, cells and a report of it.

    Parameters
    ----------
    source
        A folder, glob or address, as of `ingest`.
    config
        Settings of `ingest` that cannot be told from the files, such as `channels`.
    store
        Where the script will write.
    script
        The script.
    labels_csv
        Labels or conditions of fields; by default a table beside the images that matches them.
    unsigned
        Read a public object store without credentials.
    overwrite
        Replace the script, if it is there.

    Raises
    ------
    SourceError
        Where no field can be read.
    ChannelError
        Where the channels' roles cannot be told.
    ConfigError
        Where the script is there, or cannot be written.

    Examples
    --------
    >>> init("plate/", store="plate.zarr").commands[0]  # doctest: +SKIP
    'zarrloc ingest plate/ plate.zarr'
    """
    script = Path(script)
    if script.exists() and not overwrite:
        raise ConfigError(f"{script} is there; pass --overwrite, or another --script")
    config = config or IngestConfig()
    seen, project = _looked(source, config, unsigned)
    config = config.model_copy(update={"project": config.project or project})
    table = Path(labels_csv) if labels_csv else _table(os.fspath(source), seen)
    says = None if table is None else labels.read(table)
    if says is not None:
        says.need_match(seen.found)
    commands = _commands(os.fspath(source), os.fspath(store), config, seen, table, unsigned)
    commands += _heads(os.fspath(store)) if says is not None and says.labelled else []
    commands.append(_line("report", os.fspath(store), "--out", _beside(store, "report.html")))
    try:
        script.write_text(_script(commands), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"cannot write {script}: {error.strerror}") from error
    return Init(seen, script, tuple(commands), table, project)


def _looked(source: str | Path, config: IngestConfig, unsigned: bool) -> tuple[Look, str | None]:
    """The source as it is understood, and how stacks become planes if it holds nothing else."""
    try:
        return look(source, config, unsigned=unsigned), None
    except SourceError:
        if config.project:
            raise
        stacks = config.model_copy(update={"project": "max"})
        try:
            return look(source, stacks, unsigned=unsigned), "max"
        except SourceError:
            pass
        raise


def _table(source: str, seen: Look) -> Path | None:
    """The table beside the images that speaks of them."""
    for path in _tables_beside(source, seen):
        if _matching(path, seen) is not None:
            return path
    return None


def _tables_beside(source: str, seen: Look) -> Iterator[Path]:
    if files.is_remote(source):
        return
    first = Path(files.folder_of([path for one in seen.found for path in one.paths]))
    folders = [Path(source)] if os.path.isdir(source) else []
    beside = sorted(
        path
        for folder in {*folders, first}
        for path in folder.glob("*")
        if path.suffix.lower() in TABLES and path.is_file()
    )
    yield from beside[:MOST_TABLES]


def _matching(path: Path, seen: Look) -> LabelTable | None:
    try:
        table = labels.read(path)
        table.need_match(seen.found)
    except (SourceError, ConfigError):
        return None
    return table


def _commands(
    source: str, store: str, config: IngestConfig, seen: Look, table: Path | None, unsigned: bool
) -> list[str]:
    ingest = ["ingest", source, store]
    for name, value in config.model_dump(exclude_defaults=True).items():
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        ingest += [flag] if value is True else [flag, text]
    ingest += ["--labels", str(table)] if table else []
    ingest += ["--unsigned"] if unsigned else []
    roles = seen.shape.channels.roles
    model = ["--backbone", BACKBONE]
    model += [] if {"protein", "nucleus"} >= set(roles) else ["--channels", "replicate"]
    commands = [
        _line(*ingest),
        _line("embed", store, *model, "--size", SIZE, "--name", "fields"),
    ]
    if "nucleus" not in roles:
        return [*commands, "# cells need a channel that is called nucleus: --channels NAME=nucleus"]
    grow = [] if "protein" in roles else ["--grow", "none"]
    return [
        *commands,
        _line("segment", store, "--model", "watershed", *grow, "--name", "ws"),
        _line("preview", store, "--segmentation", "ws", "--out", _beside(store, "preview.png")),
        _line("embed", store, "--level", "cell", "--cells", "ws", *model, "--name", "cells"),
    ]


def _heads(store: str) -> list[str]:
    return [
        _line("split", store, "--name", "folds"),
        _line("train", store, "--embedding", "fields", "--split", "folds", "--name", "head"),
        _line("evaluate", store, "--head", "head"),
    ]


def _line(*words: str) -> str:
    return shlex.join(("zarrloc", *words))


def _beside(store: str | Path, name: str) -> str:
    """A file next to the store, or here where that lies in an object store."""
    text = os.fspath(store)
    return name if files.is_remote(text) else os.path.join(os.path.dirname(text), name)


def _script(commands: list[str]) -> str:
    lines = [command.replace("zarrloc ", "run ", 1) for command in commands]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Written by `zarrloc init`. Each command does what is not done yet, so it can be",
            "# stopped, changed and run again.",
            "set -e",
            'run() { echo "$ zarrloc $*"; zarrloc "$@" || [ $? -eq 3 ]; }  # 3: some items failed',
            "",
            *lines,
            "",
        ]
    )
