"""How a stage is run: none of it changes a value, so none of it is in a fingerprint."""

from pathlib import Path

from pydantic import Field, field_validator

from zarrloc.config.base import Config

CLUSTERS = ("auto", "serial", "local", "cuda")


class RunConfig(Config):
    """Where and how blocks are computed."""

    cluster: str = Field(
        default="auto",
        description="Where blocks run: auto, serial (this process), local (CPU processes), "
        "cuda (one process a GPU) or tcp://HOST:PORT (a running Dask scheduler).",
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
        if value in CLUSTERS or "://" in value:
            return value
        raise ValueError(f"expected one of {', '.join(CLUSTERS)} or tcp://HOST:PORT")
