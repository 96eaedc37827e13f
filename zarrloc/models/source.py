"""Where weights come from, as settings say it: a file or a seed, without torch."""

from pathlib import Path

from zarrloc.errors import WeightsError

RANDOM = "random:"
FILE = "backbone.safetensors"
"""The weights in a directory written by `zarrloc pretrain`."""


def seed_of(text: str) -> int:
    """The seed of `random:SEED`. Raises `WeightsError` for anything else."""
    digits = text.removeprefix(RANDOM)
    if not digits.isdecimal():
        raise WeightsError(f"--weights {text!r}: expected random:SEED with SEED 0, 1, 2, ...")
    return int(digits)


def file_of(path: Path) -> Path:
    """The weights file at `path`, or in it. Raises `WeightsError` where there is none."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"no weights at {file}; pass --weights PATH or --weights random:SEED")
    return file


def refuse_absent(weights: str | None) -> None:
    """Refuse, before anything is loaded, weights that are not there. Raises `WeightsError`."""
    if weights is not None and weights.startswith(RANDOM):
        seed_of(weights)
    elif weights is not None:
        file_of(Path(weights))
