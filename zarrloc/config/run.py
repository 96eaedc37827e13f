"""How a stage is run: none of it changes a value, so none of it is in a fingerprint."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from zarrloc.config.base import Config

CLUSTERS = ("auto", "serial", "local", "cuda", "slurm")


class RunConfig(Config):
    """Where and how blocks are computed."""

    SECTION: ClassVar[str] = "Where it runs"

    cluster: str = Field(
        default="auto",
        description="Where blocks run: auto, serial (this process), local (CPU processes), "
        "cuda (one process a GPU), slurm (a job a worker), or a running Dask scheduler: "
        "tcp://HOST:PORT, tls://HOST:PORT, or its scheduler file, FILE.json.",
    )
    cluster_config: Path | None = Field(
        default=None,
        description="YAML file of settings for --cluster slurm: queue, account, cores, memory, "
        "gpus, walltime.",
    )
    workers: int | None = Field(
        default=None, ge=1, description="Worker processes; default: one a core, or one a GPU."
    )
    memory_limit: str = Field(
        default="auto",
        description="Memory of one local worker, such as 8GB; beyond it the worker is restarted.",
    )
    dashboard: str = Field(
        default=":8787", description="Address of the Dask dashboard of a local cluster."
    )
    profile: Path | None = Field(
        default=None, description="Save Dask's performance report of the run to this HTML file."
    )
    retry_failed: bool = Field(
        default=False, description="Do blocks again that hold rows with an error."
    )

    @field_validator("cluster")
    @classmethod
    def _known(cls, value: str) -> str:
        scheduler = value.startswith(("tcp://", "tls://", "ucx://", "ws://", "wss://"))
        if value in CLUSTERS or scheduler or value.endswith(".json"):
            return value
        raise ValueError(
            f"expected one of {', '.join(CLUSTERS)}, tcp://HOST:PORT, tls://HOST:PORT or a "
            "scheduler file, FILE.json"
        )
