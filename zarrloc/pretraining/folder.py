"""The folder of a run: what may be taken for one, and what of it belongs to the run."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.store.location import Location

MARKER = "run.json"
FORMAT = 1  # of the marker

_EXPORTED = ("backbone.json", "teacher.pth", "backbone.safetensors")
WRITTEN = (
    *(f"{where}{name}" for where in ("", "best/") for name in _EXPORTED),
    *(f"{where}{name}.partial" for where in ("", "best/") for name in _EXPORTED),
    *(f"checkpoints/step-*.{kind}" for kind in ("pt", "partial", "broken")),
    *(
        "tensorboard/events.out.tfevents.*",
        "log.jsonl",
        "log.jsonl.partial",
        "checks.csv",
        "checks.csv.partial",
        "baselines.json",
        "baselines.json.partial",
    ),
)
"""What a run writes beside its marker, which is replaced last: an interrupted removal can be
repeated."""


def check(out: Path, store: Location, *, overwrite: bool, inputs: tuple[str | None, ...]) -> None:
    """Refuse a folder that is neither new, nor empty, nor that of an earlier run.

    Parameters
    ----------
    out
        Where the run is to be written.
    store
        The store that it reads.
    overwrite
        Whether an earlier run's files are to be removed.
    inputs
        Files or folders that the run starts from; anything that is no path is passed over.

    Raises
    ------
    ConfigError, StoreError
        Nothing was changed.
    """
    if re.match(r"\w+:/", str(out)):  # Path has made one slash of two
        raise ConfigError(f"--out {out}: a run is written to a local folder, not to a URL")
    whole, path = out.resolve(), store.path
    if path is not None and (whole.is_relative_to(path) or path.is_relative_to(whole)):
        raise ConfigError(f"--out {out} and the store {path} lie in one another; name another")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if (out / "zarr.json").exists():
        raise StoreError(f"--out {out} is a Zarr store; name a folder that is new or empty")
    if _holds_something(out):
        read(out)
        own = {found.resolve() for found in _written(out)}
        for given in inputs if overwrite else ():
            if given and ({Path(given).resolve(), Path(given, "backbone.json").resolve()} & own):
                raise ConfigError(
                    f"the run starts from {given}, which --overwrite would remove with the run in "
                    f"{out}; name another --out"
                )


def read(out: Path) -> dict[str, Any]:
    """What the run in `out` trains.

    Raises
    ------
    ConfigError
        `out` holds no run, or its marker is damaged.
    """
    file = out / MARKER
    if not file.exists():
        raise ConfigError(
            f"--out {out} is not empty and holds no run of `zarrloc pretrain`; "
            "name a folder that is new or empty"
        )
    try:
        found = json.loads(file.read_text())
        written, settings = int(found["zarrloc_pretrain"]), dict(found["settings"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{file} is damaged or not of `zarrloc pretrain` ({type(error).__name__}); "
            "restore it from a copy, or name another --out"
        ) from error
    if written > FORMAT:
        raise ConfigError(f"{file} has format {written}, this zarrloc knows {FORMAT}: update it")
    return settings


def take(out: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Make `out` the folder of the run of `settings`, or go on with the one that it holds.

    With `overwrite` the files of an earlier run are removed, and nothing else.

    Raises
    ------
    ConfigError
        The folder holds a run of other settings, or something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f"{MARKER}.partial"
    if _holds_something(out):
        found = read(out)
        if not overwrite:
            _refuse_difference(found, settings, out)
            return
        for file in _written(out):
            file.unlink()
        for folder in ("best", "checkpoints", "tensorboard"):
            inside = out / folder
            if inside.is_dir() and not inside.is_symlink() and not any(inside.iterdir()):
                inside.rmdir()
    marker = {"zarrloc_pretrain": FORMAT, "settings": settings}
    partial.write_text(json.dumps(marker, indent=2) + "\n")
    partial.replace(out / MARKER)


def _holds_something(out: Path) -> bool:
    """Whether `out` holds more than the marker of a run that ended while it wrote it."""
    return out.exists() and any(file.name != f"{MARKER}.partial" for file in out.iterdir())


def _written(out: Path) -> Iterator[Path]:
    for pattern in WRITTEN:
        for file in sorted(out.glob(pattern)):
            if not file.is_dir() and not file.parent.is_symlink():
                yield file


def _default(key: str) -> Any:
    """Of a setting, as JSON has it."""
    setting = PretrainConfig.model_fields.get(key)
    value = None if setting is None else setting.default
    return list(value) if isinstance(value, tuple) else value


def _refuse_difference(found: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    # A setting that is newer than the run had its default then; earlier runs noted no weights.
    then = {key: _default(key) for key in found.keys() | wanted.keys()}
    before = {**then, "weights": wanted.get("weights"), **found}
    changes = [
        f"{key}: {before[key]} -> {wanted.get(key)}"
        for key in sorted(before)
        if before[key] != wanted.get(key)
    ]
    if changes:
        raise ConfigError(
            f"{out} holds a run with other settings ({'; '.join(changes)}); "
            "pass --overwrite to replace it, or name another --out"
        )
