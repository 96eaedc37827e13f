"""The log of a run: a line of text, a row of JSON, and TensorBoard if wanted.

Written while it trains, and read again for the report.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.folder import MARKER
from zarrloc.store.whole_file import replacing


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
        left = round((self._steps - row["step"]) * self._batch / row["images_per_s"])
        self._say(
            f"step {row['step']}/{self._steps}  loss {row['loss']:.4f}  "
            f"lr {row['learning_rate']:.2e}  {row['images_per_s']:.1f} images/s  "
            f"{left // 3600:02}:{left // 60 % 60:02}:{left % 60:02} left"
        )
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, int(row["step"]))

    def checked(
        self,
        checks: Sequence[Mapping[str, float | None]],
        baselines: Mapping[str, float | None] = MappingProxyType({}),
    ) -> None:
        """Send the guard's rows, and what they are to be held against, to TensorBoard."""
        if self._board is None:
            return
        values = [(row, f"guard/{name}", value) for row in checks for name, value in row.items()]
        values += [({"step": 0}, f"baseline/{name}", value) for name, value in baselines.items()]
        for row, name, value in values:
            if value is not None and name != "guard/step":
                self._board.add_scalar(name, value, int(row["step"] or 0))
        self._board.flush()


class Curves(NamedTuple):
    """A run as its files tell it."""

    name: str
    loss: list[tuple[float, float]]
    """Step, and the mean loss since the last."""
    checks: list[dict[str, float | None]]
    """The guard's rows, the first at the start."""
    baselines: dict[str, float | None]
    """What other features' neighbours score on the guard's samples."""


def read_curves(folder: str | Path) -> Curves:
    """Read the log and the checks of a run of `zarrloc pretrain`; what it lacks is empty.

    Parameters
    ----------
    folder
        The run's folder.

    Raises
    ------
    ConfigError
        It holds no run, or a file of it is damaged.
    """
    where = Path(folder)
    if not (where / MARKER).is_file():
        raise ConfigError(
            f"{folder} holds no run of `zarrloc pretrain`; name the folder that its --out named"
        )
    try:
        rows = [json.loads(row) for row in _text(where / "log.jsonl").splitlines()]
        loss = [(float(row["step"]), float(row["loss"])) for row in rows]
        checks = [
            {name: float(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(_text(where / "checks.csv").splitlines())
        ]
        found = json.loads(_text(where / "baselines.json") or "{}")
        baselines = {
            str(name): None if value is None else float(value) for name, value in found.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"the log of the run in {folder} is damaged ({error}); leave that run out, or restore "
            "log.jsonl, checks.csv and baselines.json"
        ) from error
    return Curves(where.resolve().name, loss, checks, baselines)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def write_baselines(path: Path, found: Mapping[str, float | None]) -> None:
    """The baselines as JSON, whole or as before."""
    with replacing(path) as file:
        file.write(f"{json.dumps(found, indent=2)}\n".encode())


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
