"""A table's stages in words: what each costs before it runs, and what it took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarrloc.reproduction.estimate import Cost, Machine
from zarrloc.reproduction.jobs import Job


@dataclass(frozen=True)
class Took:
    """What a job took that was not done before, and what had been planned; seconds."""

    kind: str
    name: str
    seconds: float
    cpu_seconds: float
    """Of this process: workers' own are not in it."""
    planned: float | None


def time_note(took: Sequence[Took]) -> str:
    """What was run this time, by kind of stage: seconds, and as planned."""
    parts = []
    for kind in dict.fromkeys(one.kind for one in took):
        mine = [one for one in took if one.kind == kind]
        took_s = spent(sum(one.seconds for one in mine))
        planned = spent(sum(one.planned or 0.0 for one in mine))
        parts.append(f"{len(mine)} {kind} in {took_s} (planned {planned})")
    return f"this run: {', '.join(parts)}"


def describe(job: Job, found: Cost | str, max_hours: float) -> str:
    name = f"{job.kind:<9}  {job.name:<21}"
    what = {"pretrain": "start", "embed": "backbone", "train": "embedding"}.get(job.kind)
    about = str(getattr(job.settings, what)) if what else ""
    about = Path(about).name if "/" in about else about
    if isinstance(found, str):
        return f"{name}  {about}: cannot be planned: {found}"
    if found.done:
        return f"{name}  {about}: there"
    long = " (longer than --max-hours: left out)" if found.seconds > 3600 * max_hours else ""
    return (
        f"{name}  {about}: {found.items} rows, {spent(found.seconds)}, {sized(found.bytes)}{long}"
    )


def too_long(job: Job, found: Cost, machine: Machine | None, max_hours: float) -> str:
    on = "no GPU: " if machine is not None and machine.device == "cpu" else ""
    return (
        f"{on}{job.kind} would take {spent(found.seconds)} here by estimate "
        f"({found.gpu_seconds / 3600:.2g} GPU-hours), more than --max-hours {max_hours:g}"
    )


def spent(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def sized(count: int) -> str:
    value: Any = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
