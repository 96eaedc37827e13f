"""`--cluster slurm` on a real one-node Slurm, which `slurm.sh` starts; skipped where it can't."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.toys import GROUP, run_toy
from tests.objects import assert_same
from zarrloc.config.run import RunConfig
from zarrloc.config.slurm import SlurmConfig

SCRIPT = Path(__file__).with_name("slurm.sh")
CONF = Path("/etc/slurm/slurm.conf")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm with one node, this machine."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: Debian's slurm-wlm and munge")
    if os.getuid() != 0:
        pytest.skip("needs root, to start Slurm's daemons")
    if CONF.exists() and "ClusterName=one\n" not in CONF.read_text():
        pytest.skip("this machine has a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    if subprocess.run(["sinfo", "-h"], capture_output=True, check=False).returncode:
        subprocess.run([SCRIPT, "start", folder], check=True, timeout=120)
    yield
    subprocess.run([SCRIPT, "stop", folder], check=False)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Two jobs of one core each."""
    monkeypatch.chdir(tmp_path)  # Slurm writes its jobs' output here
    file = tmp_path / "slurm.yaml"
    file.write_text(
        "queue: main\ncores: 1\nmemory: 2GB\nwalltime: '00:10:00'\ninterface: lo\n"
        "host: '127.0.0.1:0'\nwait_s: 300\n"
    )
    return RunConfig(cluster="slurm", cluster_config=file, workers=2, dashboard=":0")


def _jobs() -> list[str]:
    listed = subprocess.run(
        ["squeue", "-h", "-t", "PD,R", "-o", "%i"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


@pytest.mark.usefixtures("slurm")
def test_a_stage_runs_in_jobs_and_they_end_with_it(config: RunConfig, tmp_path: Path) -> None:
    summary = run_toy(tmp_path / "there", rows=40, config=config, nap=0.1)
    assert (summary.exit_code, summary.blocks_run) == (0, 10)
    run_toy(tmp_path / "here", rows=40)
    assert_same(tmp_path / "there", tmp_path / "here", GROUP)
    end = time.monotonic() + 60
    while _jobs():
        assert time.monotonic() < end, "jobs outlive the run"
        time.sleep(1)


@pytest.mark.usefixtures("slurm")
def test_workers_that_reach_their_wall_time_are_followed_by_new_ones(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SlurmConfig, "lifetime_s", 15)
    monkeypatch.setattr(SlurmConfig, "stagger_s", 2)
    one = config.model_copy(update={"workers": 1})
    begin = time.monotonic()
    summary = run_toy(tmp_path / "s", rows=160, config=one, nap=2.0)
    assert (summary.exit_code, summary.blocks_run, summary.failures) == (0, 40, [])
    assert time.monotonic() - begin > 40, "it ended within one worker's life"
    ids = {file.name for file in tmp_path.glob("slurm-*.out")}
    assert len(ids) >= 2, "a second job took over"
