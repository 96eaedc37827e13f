"""Checkpoints that are whole or absent, of which the last few are kept."""

import os
from pathlib import Path
from typing import Any

import torch


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `step-<step>.pt` atomically, then delete all but the last `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    for old in every(folder)[:-keep]:
        old.unlink()
    return path


def every(folder: Path) -> list[Path]:
    """All checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """A checkpoint's state; only tensors and plain values are accepted."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state
