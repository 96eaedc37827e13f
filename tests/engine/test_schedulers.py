"""Schedulers that run elsewhere: real `dask scheduler` and `dask worker` processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.toys import GROUP, run_toy
from tests.objects import assert_same
from tests.s3 import free_port
from zarrloc.config.run import RunConfig
from zarrloc.config.slurm import SlurmConfig
from zarrloc.engine import schedulers
from zarrloc.errors import ClusterError, ConfigError, WorkerError

QUIET = ["--no-dashboard"]


@contextmanager
def _process(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def scheduler_file(tmp_path: Path) -> Iterator[Path]:
    """A running scheduler, by its file."""
    path = tmp_path / "scheduler.json"
    port = str(free_port())
    arguments = ("--host", "127.0.0.1", "--port", port, "--scheduler-file", str(path))
    with _process("dask_scheduler", *arguments, *QUIET):
        end = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        yield path


def _worker(file: Path, **environment: str) -> Any:
    arguments = ("--scheduler-file", str(file), "--nthreads", "2", "--no-nanny", *QUIET)
    return _process("dask_worker", *arguments, **environment)


def test_a_scheduler_file_runs_a_stage_with_the_workers_own_threads(
    scheduler_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(cluster=str(scheduler_file))
    with _worker(scheduler_file):
        summary = run_toy(tmp_path / "there", config=config)
        assert (summary.exit_code, summary.blocks_run) == (0, 5)
        with ExitStack() as stack:
            client = schedulers.connect(stack, str(scheduler_file))
            count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            assert schedulers.own_threads(client) == (count or schedulers.own_threads(client))
            with _worker(scheduler_file):
                client.wait_for_workers(2, timeout=60)
                # Two workers on the same cores share them.
                assert schedulers.own_threads(client) == max(1, count // 2)
        assert run_toy(tmp_path / "there", config=config).blocks_run == 0
    run_toy(tmp_path / "here")
    assert_same(tmp_path / "there", tmp_path / "here", GROUP)
    assert "Dask dashboard" not in capfd.readouterr().out  # there is none


def test_a_scheduler_without_workers_is_reported_and_given_up(
    scheduler_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "zarrloc")
    monkeypatch.setattr(schedulers, "WORKERS_S", 1.0)
    monkeypatch.setattr(schedulers, "TELL_S", 0.2)
    with pytest.raises(WorkerError, match=r"has no worker, 1 s long: start some with"):
        run_toy(tmp_path / "s", config=RunConfig(cluster=str(scheduler_file)))
    assert "waiting for a worker" in caplog.text


class _Cluster:
    """A client that answers `get_versions` as a scheduler would."""

    def __init__(self, scheduler: dict[str, str], *workers: dict[str, str]) -> None:
        self.scheduler, self.workers = scheduler, workers

    def get_versions(self, packages: list[str]) -> dict[str, Any]:
        there = {f"tcp://{at}": {"packages": about} for at, about in enumerate(self.workers)}
        client = {"packages": dict.fromkeys(schedulers.CHECKED, "2")}
        return {"client": client, "scheduler": {"packages": self.scheduler}, "workers": there}


def test_other_versions_are_refused_with_both_named() -> None:
    same = dict.fromkeys(schedulers.CHECKED, "2")
    schedulers.refuse_other_versions(_Cluster(same, same, same))
    without = {name: version for name, version in same.items() if name != "zarrloc"}
    with pytest.raises(WorkerError, match=r"zarrloc is missing on the scheduler, 2 here"):
        schedulers.refuse_other_versions(_Cluster(without, same))
    older = {**same, "zarrloc": "1"}
    with pytest.raises(WorkerError, match=r"zarrloc 1 on workers, 2 here \(2 of them\).*Install"):
        schedulers.refuse_other_versions(_Cluster(same, older, same, older))


def test_workers_without_zarrloc_are_refused_before_any_work(
    scheduler_file: Path, tmp_path: Path
) -> None:
    """Their environment has no metadata of zarrloc: as where it is not installed."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "def version(name):\n"
        "    if name == 'zarrloc': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    config = RunConfig(cluster=str(scheduler_file))
    with (
        _worker(scheduler_file, PYTHONPATH=path),
        pytest.raises(WorkerError, match=r"zarrloc is missing on workers, .* here"),
    ):
        run_toy(tmp_path / "s", config=config)
    assert not list((tmp_path / "s").rglob("value/c"))


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "there is no scheduler file"), ("{}", "is no scheduler file"), ("x", "no scheduler")],
)
def test_a_scheduler_file_that_is_none(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "s.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=words):  # noqa: SIM117
        with ExitStack() as stack:
            schedulers.connect(stack, str(file))


def test_tls_without_certificates_says_what_to_set() -> None:
    with pytest.raises(ClusterError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):  # noqa: SIM117
        with ExitStack() as stack:
            schedulers.connect(stack, f"tls://127.0.0.1:{free_port()}")


def test_only_addresses_of_schedulers_are_taken() -> None:
    for address in ("tcp://h:1", "tls://h:1", "s.json", "slurm"):
        assert RunConfig(cluster=address).cluster == address
    for address in ("http://h", "s3://b/k", "s.yaml", "cloud"):
        with pytest.raises(ConfigError, match="scheduler file"):
            RunConfig(cluster=address)


# --- Slurm --------------------------------------------------------------------------------------


def test_a_job_asks_for_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "slurm.yaml"
    file.write_text("queue: gpu\naccount: lab\ncores: 8\ngpus: 1\nwalltime: 1-02:00:00\n")
    run = RunConfig(cluster="slurm", cluster_config=file, dashboard=":0")
    settings = schedulers.slurm_settings(run)
    assert (settings.seconds, settings.lifetime_s) == (26 * 3600, 26 * 3600 - 600)
    options = schedulers.slurm_options(settings, run, prefetch=2)
    assert (options["queue"], options["account"], options["job_cpu"]) == ("gpu", "lab", 8)
    assert "--gpus=1" in options["job_extra_directives"]
    assert options["worker_extra_args"][:2] == ["--lifetime", f"{26 * 3600 - 600}s"]
    assert options["worker_extra_args"][2:4] == ["--lifetime-stagger", "30s"]
    assert SlurmConfig(walltime="00:20:00").lifetime_s == 1080
    for short in ("00:00:01", "00:01:00", "00:04:00"):  # the latest still ends within its job
        one = SlurmConfig(walltime=short)
        assert 0 <= one.stagger_s <= 30
        assert one.lifetime_s + one.stagger_s <= one.seconds
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(**options) as cluster:
        script = cluster.job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH -A lab", "#SBATCH --cpus-per-task=8", "--gpus=1"):
        assert line in script
    assert "--nthreads 2" in script


def test_slurm_where_there_is_none_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="needs `sbatch`, which is not on"):
        run_toy(tmp_path / "s", config=RunConfig(cluster="slurm"))
    (tmp_path / "bad.yaml").write_text("queues: x\n")
    bad = RunConfig(cluster="slurm", cluster_config=tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="queues"):
        run_toy(tmp_path / "s", config=bad)


# --- the scheduler lost -------------------------------------------------------------------------


def test_a_lost_scheduler_ends_the_run_with_a_message_and_it_continues(tmp_path: Path) -> None:
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    slow = {"nap": 0.3}
    with _process("dask_scheduler", "--host", "127.0.0.1", "--port", str(port), *QUIET) as server:
        arguments = (address, "--nthreads", "1", "--no-nanny", "--death-timeout", "5", *QUIET)
        with _process("dask_worker", *arguments):
            script = (
                "import sys\nfrom tests.engine.toys import GROUP, run_toy\n"
                "from zarrloc.config.run import RunConfig\n"
                "from zarrloc.errors import ZarrlocError\n"
                "try:\n    run_toy(sys.argv[1], config=RunConfig(cluster=sys.argv[2]), **SLOW)\n"
                "except ZarrlocError as error:\n    print('TOLD', error)\n"
            ).replace("**SLOW", "rows=80, " + ", ".join(f"{k}={v}" for k, v in slow.items()))
            with subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / "s"), address],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as run:
                end = time.monotonic() + 90
                while not list((tmp_path / "s").rglob("value/c/*/0")):
                    assert time.monotonic() < end
                    time.sleep(0.1)
                server.send_signal(signal.SIGKILL)
                out, _ = run.communicate(timeout=120)
    assert "TOLD" in out, out[-2000:]
    assert "Traceback" not in out.partition("TOLD")[2]
    assert run_toy(tmp_path / "s", rows=80).exit_code == 0


def test_the_scheduler_file_s_address_is_the_one_it_listens_at(scheduler_file: Path) -> None:
    assert json.loads(scheduler_file.read_text())["address"].startswith("tcp://127.0.0.1:")
