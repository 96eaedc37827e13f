"""Init: look at a folder of images, say what it holds, and write the commands to run."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.split import FOLDS
from zarrloc.errors import ConfigError, SourceError
from zarrloc.images import files
from zarrloc.images import label_names as names
from zarrloc.images import labels as tables
from zarrloc.images.label_table import LabelTable
from zarrloc.images.look import Look, look

TABLES = (".csv", ".tsv", ".txt", ".xlsx")
MOST_TABLES = 20
"""So many files beside the images are looked into for labels or conditions."""

BACKBONE = "dino-vits16"
CONDITIONS = ("condition", "treatment", "compound", "drug", "genotype", "perturbation")
"""Columns that are what an experiment is about, where several could be learned."""


LARGEST = 448
"""Pixels of a field's longer side in the network, where it has more: half a second a field on two
cores, where the native size of most cameras takes a minute."""


@dataclass(frozen=True)
class Init:
    """What was seen, and the script that was written."""

    seen: Look
    script: Path
    commands: tuple[str, ...]
    said: tuple[LabelTable, ...]
    """Tables that say what fields are."""
    project: str | None
    """How stacks become planes, where the source holds any and nobody said."""

    @property
    def exit_code(self) -> int:
        """Always 0: an unusable source raises instead."""
        return 0

    def lines(self) -> list[str]:
        """What was done, as lines of text."""
        lines = self.seen.lines()
        if self.project:
            lines.append(
                f"fields are z stacks: --project {self.project} is written; mean and focus (the "
                "sharpest plane) are the others"
            )
        lines += [
            f"{one.path}: {'labels' if one.labelled else ', '.join(one.coords)} of fields by "
            f"{one.column}"
            for one in self.said
        ]
        lines += [note for one in self.said for note in one.notes]
        if not self.said:
            lines.append(
                "no table of labels or conditions beside the images; --labels or --conditions "
                "TABLE adds one"
            )
        return [*lines, "", f"wrote {self.script}:", *(f"  {one}" for one in self.commands)]


def init(
    source: str | Path,
    config: IngestConfig | None = None,
    *,
    store: str | Path = "my.zarr",
    script: str | Path = "zarrloc.sh",
    labels: str | Path | None = None,
    conditions: str | Path | None = None,
    label_names: str | Path | None = None,
    unsigned: bool = False,
    overwrite: bool = False,
) -> Init:
    """Look at a source and write a shell script that makes embeddings, cells and a report of it.

    Parameters
    ----------
    source
        A folder, glob or address, as of `ingest`.
    config
        Settings of `ingest` that the files do not show, such as `channels`.
    store
        Where the script will write.
    script
        The script.
    labels, conditions
        Labels and conditions of fields; by default tables beside the images that match them.
    label_names
        What the labels are called, as `annotate` takes it.
    unsigned
        Read a public object store without credentials.
    overwrite
        Replace the script, if it is there.

    Raises
    ------
    SourceError
        Where no field can be read.
    ChannelError
        Where the channels' roles cannot be determined.
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
    if label_names is not None:
        names.read(label_names)  # refuses what cannot be, whatever tables there are
    said = tables.read_all(labels, None, conditions, label_names if labels else None)
    for table in said:
        table.need_match(seen.found)
    said = said or _tables(os.fspath(source), seen, label_names)
    if label_names is not None and not any(table.labelled for table in said):
        raise ConfigError(f"{label_names}: says what labels are called; give --labels, too")
    further = ["--label-names", os.fspath(label_names)] if label_names else []
    further += ["--unsigned"] if unsigned else []
    commands = _commands(os.fspath(source), os.fspath(store), config, seen, said, further)
    try:
        script.write_text(_script(commands), encoding="utf-8")
        script.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"cannot write {script}: {error.strerror}") from error
    return Init(seen, script, tuple(commands), tuple(said), project)


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


def _tables(source: str, seen: Look, label_names: str | Path | None) -> list[LabelTable]:
    """The first tables of labels and of conditions beside the images that speak of them."""
    found: dict[bool, LabelTable] = {}
    for path in _tables_beside(source, seen):
        for labelled in (True, False):
            try:
                table = (
                    tables.read(path, None, label_names)
                    if labelled
                    else tables.read_conditions(path)
                )
                table.need_match(seen.found)
            except (SourceError, ConfigError):
                continue
            found.setdefault(table.labelled, table)
            break
    return [found[kind] for kind in (True, False) if kind in found]


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


def _commands(
    source: str,
    store: str,
    config: IngestConfig,
    seen: Look,
    said: Sequence[LabelTable],
    further: Sequence[str],
) -> list[str]:
    ingest = ["ingest", source, store]
    for name, value in config.model_dump(exclude_defaults=True).items():
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        ingest += [flag] if value is True else [flag, text]
    for table in said:
        ingest += ["--labels" if table.labelled else "--conditions", str(table.path)]
    ingest += further
    roles = seen.shape.channels.roles
    model = ["--backbone", BACKBONE]
    model += [] if {"protein", "nucleus"} >= set(roles) else ["--channels", "replicate"]
    commands = [
        _line(*ingest),
        _line("embed", store, *model, "--size", _size(seen), "--name", "fields"),
    ]
    if "nucleus" in roles:
        grow = [] if "protein" in roles else ["--grow", "none"]
        picture = _beside(store, "preview.png")
        commands += [
            _line("segment", store, "--model", "watershed", *grow, "--name", "ws"),
            _line("preview", store, "--segmentation", "ws", "--out", picture),
            _line("embed", store, "--level", "cell", "--cells", "ws", *model, "--name", "cells"),
        ]
    else:
        commands.append("# cells need a channel that is called nucleus: --channels NAME=nucleus")
    target = _target(said, seen)
    if target is not None:
        commands += [
            _line("split", store, *target, "--name", "folds"),
            _line(
                "train", store, "--embedding", "fields", "--split", "folds", *target,
                "--name", "head",
            ),
            _line("evaluate", store, "--head", "head"),
        ]  # fmt: skip
    report = _beside(store, "report.html")
    return [*commands, _line("report", store, *(target or ()), "--out", report)]


def _size(seen: Look) -> str:
    """What fields are resampled to for the network; small ones are better as they are."""
    largest = max(seen.shape.height, seen.shape.width)
    return str(LARGEST) if largest > LARGEST else "native"


def _target(said: Sequence[LabelTable], seen: Look) -> tuple[str, ...] | None:
    """What a head can learn: labels, else the condition that most fields know; None for nothing."""
    for table in said:
        matches = [match for one in seen.found if (match := table.match(one)) is not None]
        if table.labelled:
            return ()
        classes = {
            name: Counter(match.values[name] for match in matches if match.values[name])
            for name in table.coords
        }
        able = [name for name, counts in classes.items() if _can_be_learned(counts)]
        named = [name for name in able if name.lower() in CONDITIONS]
        if able:
            return ("--target", (named or able)[0])
    return None


def _can_be_learned(counts: Counter[str]) -> bool:
    """Whether there are at least two classes, and five fields of the most of them."""
    return len(counts) > 1 and sum(count >= FOLDS for count in counts.values()) > 1


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
