"""Where an export goes: written beside its name, and put in place when it is whole."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zarrloc.errors import ConfigError


def check_target(out: str | Path, overwrite: bool) -> Path:
    """The path to write.

    Raises
    ------
    ConfigError
        Where its folder is missing, or something is there already and `overwrite` is false.
    """
    if "://" in str(out):
        raise ConfigError(f"out is {out}; exports go to local files, such as table.csv")
    path = Path(out).expanduser()
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {out}: {path.parent} is not a folder")
    if path.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; overwrite it, or choose another name")
    if (path / "zarr.json").is_file() and _is_store(path):
        raise ConfigError(f"{out} is a zarrloc store, which an export does not replace")
    return path


def _is_store(path: Path) -> bool:
    return (path / "fovs").is_dir()


@contextmanager
def put(path: Path) -> Iterator[Path]:
    """A path to write to, of the same ending; it takes `path`'s place when all went well."""
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield partial
        _remove(path)
        partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
