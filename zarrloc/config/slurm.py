"""Settings of `--cluster slurm`, in a file: what one job asks the batch system for."""

import re

from pydantic import Field, field_validator

from zarrloc.config.base import Config


class SlurmConfig(Config):
    """One job runs one worker; `--workers` says how many jobs there are."""

    queue: str | None = Field(default=None, description="Partition; default: the cluster's own.")
    account: str | None = Field(default=None, description="Account that is charged.")
    cores: int = Field(default=4, ge=1, description="CPU cores of a job.")
    memory: str = Field(default="16GB", description="Memory of a job.")
    gpus: int = Field(default=0, ge=0, le=1, description="GPUs of a job: one worker drives one.")
    walltime: str = Field(
        default="01:00:00",
        description="Wall time of a job, HH:MM:SS or D-HH:MM:SS. Workers end some minutes before, "
        "hand back what they have, and new jobs go on.",
    )
    interface: str | None = Field(
        default=None, description="Network interface that jobs reach this machine by, such as ib0."
    )
    host: str | None = Field(
        default=None, description="Address of this machine as the jobs see it, HOST:PORT; 0: any."
    )
    prologue: tuple[str, ...] = Field(
        default=(), description="Shell lines before the worker starts, such as `module load ...`."
    )
    directives: tuple[str, ...] = Field(
        default=(), description="Further options of sbatch, such as --constraint=a100."
    )
    python: str | None = Field(
        default=None, description="Python that runs the workers; default: this one."
    )
    wait_s: float = Field(default=3600, gt=0, description="How long the first job may queue.")

    @field_validator("walltime")
    @classmethod
    def _is_time(cls, value: str) -> str:
        if not re.fullmatch(r"(\d+-)?\d{1,2}:\d{2}:\d{2}", value):
            raise ValueError("expected HH:MM:SS or D-HH:MM:SS")
        return value

    @property
    def seconds(self) -> int:
        """The wall time in seconds."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds

    @property
    def lifetime_s(self) -> int:
        """How long a worker takes work: a tenth of the wall time, at most ten minutes, is left."""
        return max(1, self.seconds - min(600, self.seconds // 10))

    @property
    def stagger_s(self) -> int:
        """How much sooner or later a worker ends, so that not all do at once: never too late."""
        return min(30, (self.seconds - self.lifetime_s) // 2)
