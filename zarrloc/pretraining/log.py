"""The log of a run: a line for people, a row of JSON for programs, and TensorBoard if wanted."""

import csv
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.pretraining.estimate import Plan


class Log:
    """Appends to `log.jsonl` of the run's folder; rows after `step` are of steps taken again."""

    def __init__(
        self, out: Path, config: PretrainConfig, plan: Plan, step: int, say: Callable[[str], None]
    ) -> None:
        self._path = out / "log.jsonl"
        self._steps, self._batch, self._say = plan.steps, config.batch, say
        self._board = _summary_writer(out) if config.tensorboard else None
        rows = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        kept = [row + "\n" for row in rows if _step_of(row) <= step]
        partial = out / "log.jsonl.partial"
        partial.write_text("".join(kept))
        partial.replace(self._path)

    def __call__(self, row: dict[str, float]) -> None:
        """Keep one row and say it."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        left = (self._steps - row["step"]) * self._batch / row["images_per_s"]
        self._say(
            f"step {row['step']}/{self._steps}  loss {row['loss']:.4f}  "
            f"lr {row['learning_rate']:.2e}  {row['images_per_s']:.1f} images/s  "
            f"{time.strftime('%H:%M:%S', time.gmtime(left))} left"
        )
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, int(row["step"]))


def write_checks(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The guard's rows as CSV, whole or as before; what was not measurable is empty."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _step_of(row: str) -> float:
    """The step of a row; infinity where a crash or damage left none."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _summary_writer(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs the package tensorboard: install it, or leave the flag out"
        ) from error
    return SummaryWriter(str(out / "tensorboard"))
