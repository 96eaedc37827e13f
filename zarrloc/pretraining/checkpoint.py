"""Checkpoints that are whole or absent, of which the last few are kept."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from zarrloc.errors import WeightsError
from zarrloc.store.whole_file import replacing


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `step-<step>.pt` atomically, then delete all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, step)
    with replacing(path) as file:
        torch.save(state, file)
    for old in every(folder)[:-keep]:
        old.unlink()
    return path


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.pt"


def every(folder: Path) -> list[Path]:
    """All checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint's state; only tensors and plain values are accepted.

    Raises
    ------
    WeightsError
        The file is empty, cut off or altered, or it holds anything else, such as pickled code.
        Nothing of it is executed.
    """
    try:
        # torch.load does not compare the checksums that torch.save wrote.
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()
        if altered is not None:
            raise WeightsError(f"{path} is damaged: the checksum of {altered} differs")
        state = torch.load(path, map_location=device, weights_only=True)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{path} is empty, cut off or no checkpoint") from error
    except UnpicklingError as error:
        raise WeightsError(f"{path} holds more than tensors and plain values") from error
    except (EOFError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if not isinstance(state, dict) or "step" not in state:
        raise WeightsError(f"{path} is no checkpoint of `zarrloc pretrain`")
    return state


def newest(folder: Path, device: torch.device, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The state to continue from: the newest checkpoint that can be read; None without any.

    Newer ones that cannot be read are named, and renamed to `.broken`: left in place, they would
    count among those that are kept.

    Raises
    ------
    WeightsError
        There are checkpoints and none can be read. All files stay as they are.
    """
    broken: list[tuple[Path, WeightsError]] = []
    for path in reversed(every(folder)):
        try:
            state = load(path, device)
        except WeightsError as error:
            broken.append((path, error))
            continue
        for damaged, reason in broken:
            damaged.rename(damaged.with_suffix(".broken"))
            say(f"{reason}; continuing from {path.name} instead")
        return state
    if broken:
        raise WeightsError(
            f"none of the {len(broken)} checkpoints in {folder} can be read; the newest: "
            f"{broken[0][1]}. Nothing was deleted: restore one from a copy, or start again with "
            "--overwrite"
        )
    return None
