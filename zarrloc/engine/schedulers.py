"""Schedulers that run elsewhere: reached, checked before any work, or started through Slurm."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zarrloc.config.run import RunConfig
from zarrloc.config.settings_file import read_settings
from zarrloc.config.slurm import SlurmConfig
from zarrloc.errors import ClusterError, ConfigError, WorkerError

LOG = logging.getLogger("zarrloc")

CONNECT_S = 10.0
"""How long a running scheduler may take to answer."""

WORKERS_S = 60.0
"""How long a running scheduler may be without any worker."""

TELL_S = 3.0
"""How long to wait in silence before saying what for."""

CHECKED = ("zarrloc", "zarr", "numcodecs", "distributed")
"""Packages whose versions must be the same everywhere: the first decides what is computed, the
others how it is sent and stored."""


def is_shared(kind: str) -> bool:
    """Whether a cluster is a running scheduler, which may serve others, too."""
    return "://" in kind or kind.endswith(".json")


def connect(stack: ExitStack, address: str) -> Any:
    """A client of the scheduler at `tcp://` or `tls://`, or of a scheduler file.

    Raises
    ------
    WorkerError
        Where nothing answers, no worker comes, or a version differs.
    """
    from distributed import Client

    options: dict[str, Any] = {"timeout": CONNECT_S}
    if address.endswith(".json"):
        _check_file(Path(address))
        options["scheduler_file"] = address
    else:
        options["address"] = address
    try:
        client = stack.enter_context(Client(**options))
    except (TypeError, RuntimeError) as error:
        if not address.startswith("tls"):
            raise
        raise ClusterError(
            f"{address} needs certificates ({error}): set "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..__TLS__CLIENT__CERT and ..__TLS__CLIENT__KEY, "
            "or the same in Dask's configuration file"
        ) from error
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {address}: {error}; is it running, and can this machine "
            "reach it?"
        ) from error
    wait_for_workers(client, address, WORKERS_S)
    refuse_other_versions(client)
    return client


def _check_file(path: Path) -> None:
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        str(found["address"])
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no scheduler file {path}: `dask scheduler --scheduler-file {path}` writes it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no scheduler file, such as `dask scheduler --scheduler-file` writes"
        ) from error


def wait_for_workers(client: Any, where: str, limit_s: float) -> None:
    """Wait until there is a worker, and say so. Raises `WorkerError` after `limit_s`."""
    begin, announced = time.monotonic(), False
    while not client.nthreads():
        waited = time.monotonic() - begin
        if waited > limit_s:
            raise WorkerError(
                f"the scheduler at {where} has no worker, {limit_s:.0f} s long: start some with "
                "`dask worker ADDRESS`, and give the same command again"
            )
        if waited > TELL_S and not announced:
            announced = True
            LOG.info("waiting for a worker of %s, up to %.0f s", where, limit_s)
        time.sleep(0.2)


def refuse_other_versions(client: Any) -> None:
    """Refuse a scheduler or worker without zarrloc, or with other versions than here.

    Raises
    ------
    WorkerError
        Naming each, and both versions.
    """
    found = client.get_versions(packages=["zarrloc", "zarr", "numcodecs"])
    here = found["client"]["packages"]
    others = {"the scheduler": found["scheduler"], **found["workers"]}
    differ: Counter[str] = Counter()
    for who, about in others.items():
        there = (about or {}).get("packages", {})
        for name in CHECKED:
            if there.get(name) != here.get(name):
                place = who if who == "the scheduler" else "workers"
                version = there.get(name) or "is missing"
                differ[f"{name} {version} on {place}, {here.get(name)} here"] += 1
    if differ:
        listed = "; ".join(
            f"{what} ({count} of them)" if "workers" in what and count > 1 else what
            for what, count in differ.items()
        )
        raise WorkerError(
            f"versions differ: {listed}. Install the same zarrloc in the scheduler's and the "
            "workers' environment, and start them again"
        )


def own_threads(client: Any) -> int:
    """Compute threads of a block: a worker's own cores, shared with others on the same cores."""
    found: dict[str, tuple[str, tuple[int, ...], int]] = client.run(_cores)
    sharing = Counter((host, which) for host, which, _ in found.values())
    return min(max(1, count // sharing[host, which]) for host, which, count in found.values())


def _cores() -> tuple[str, tuple[int, ...], int]:
    """The machine a worker runs on, its cores there, and how many it may use at once."""
    import socket

    from dask.system import cpu_count

    which = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    return socket.gethostname(), which, int(cpu_count())


# --- Slurm --------------------------------------------------------------------------------------


def slurm_settings(run: RunConfig) -> SlurmConfig:
    """The settings file of `--cluster-config`; defaults without one. `ConfigError`."""
    if run.cluster_config is None:
        return SlurmConfig()
    return SlurmConfig.of(read_settings(run.cluster_config))


def slurm_options(settings: SlurmConfig, run: RunConfig, prefetch: int) -> dict[str, Any]:
    """What dask-jobqueue is given. A job has one worker of `prefetch` blocks in flight."""
    directives = list(settings.directives)
    if settings.gpus:
        directives.append(f"--gpus={settings.gpus}")
    scheduler: dict[str, Any] = {"dashboard_address": run.dashboard}
    if settings.host is not None:
        scheduler["host"] = settings.host
    # A block that was cut off is done again, so a worker in its last minutes takes no new one.
    lifetime = ["--lifetime", f"{settings.lifetime_s}s"]
    lifetime += ["--lifetime-stagger", f"{settings.stagger_s}s"]
    options = {
        "queue": settings.queue,
        "account": settings.account,
        "cores": prefetch,
        "job_cpu": settings.cores,
        "processes": 1,
        "memory": settings.memory,
        "walltime": settings.walltime,
        "interface": settings.interface,
        "job_script_prologue": list(settings.prologue),
        "job_extra_directives": directives,
        "worker_extra_args": [*lifetime, "--preload", "zarrloc.engine.worker"],
        "scheduler_options": scheduler,
        "python": settings.python,
    }
    return {name: value for name, value in options.items() if value is not None}


def start_slurm(
    stack: ExitStack,
    run: RunConfig,
    jobs: int,
    prefetch: int,
    close: Callable[[Any], None],
) -> Any:
    """A client of a scheduler in this process, whose workers are Slurm jobs.

    Raises
    ------
    ClusterError
        Where dask-jobqueue or Slurm is missing, or refuses.
    WorkerError
        Where no job starts in time.
    """
    import shutil

    settings = slurm_settings(run)
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "--cluster slurm needs `sbatch`, which is not on this machine's PATH: run it on a "
            "login node, or start a Dask scheduler and give its address"
        )
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ClusterError(
            "--cluster slurm needs dask-jobqueue: pip install 'zarrloc[slurm]'"
        ) from error
    from distributed import Client

    try:
        cluster = SLURMCluster(**slurm_options(settings, run, prefetch))
        stack.callback(close, cluster)
        # Adaptive, so that jobs that reached their wall time are followed by new ones.
        cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs, interval="5s")
        client = stack.enter_context(Client(cluster))
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        raise ClusterError(f"Slurm refuses: {error}; check --cluster-config") from error
    wait_for_workers(client, "Slurm", settings.wait_s)
    refuse_other_versions(client)
    return client
