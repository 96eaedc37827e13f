"""Who am I among how many: as torchrun and srun say it, or as started here."""

import os

import pytest

from zarrloc.errors import ConfigError
from zarrloc.pretraining.launch import World, detect, first_host, launch

SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[003-004],gpu9",
}


def test_torchrun_and_srun_are_recognised() -> None:
    """A batch script that is not inside srun is one process by itself."""
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h"}
    assert detect(torchrun) == (World(3, 4, 1), "env://")
    assert detect(SRUN) == (World(5, 8, 1), "tcp://gpu003:24711")
    batch = {name: value for name, value in SRUN.items() if "STEP" not in name}
    assert detect(batch) is None
    assert detect({}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu003", "gpu003"), ("a[01-07],b", "a01"), ("n-1,n-2", "n-1"), ("x[7,9]", "x7")],
)
def test_first_host_of_a_compressed_list(nodes: str, first: str) -> None:
    """SLURM's own notation."""
    assert first_host(nodes) == first


def _code(world: World, low: int) -> int:
    return low + world.rank


def _fail(world: World) -> int:
    raise ValueError(f"rank {world.rank} of {world.size} broke")


def test_one_process_runs_here() -> None:
    """No process is started for one, and its code comes back."""
    assert launch(_code, (3,), 1, "cpu") == 3
    assert launch(_code, (3,), 0, "cpu") == 3


def test_processes_are_started_and_their_failures_reported() -> None:
    """The worst code comes back, and an error with its own text."""
    assert launch(_code, (0,), 2, "cpu") == 1
    with pytest.raises(Exception, match="broke"):
        launch(_fail, (), 2, "cpu")


def test_processes_beside_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is torchrun's."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(ConfigError, match="--processes 3, but 2 were started"):
        launch(_code, (0,), 3, "cpu")
