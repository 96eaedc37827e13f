"""Who am I among how many: as torchrun and srun say it, or as started here."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException

from zarrloc.errors import ClusterError, ConfigError
from zarrloc.pretraining import launch as module
from zarrloc.pretraining.launch import World, detect, first_host, launch, on_stop

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
    meets = {
        detect({**SRUN, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)})
        for job in range(4711, 4721)
        for step in range(10)
    }
    assert len(meets) == 100  # steps and jobs that share a node meet apart
    assert (World(5, 8, 1), "tcp://gpu003:24711") in meets
    del torchrun["LOCAL_RANK"]  # of one node, and who is alone on it need not say so
    assert detect(torchrun) == (World(3, 4, 0), "env://")
    batch = {name: value for name, value in SRUN.items() if "STEP" not in name}
    assert detect({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None
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


def _fail(world: World, how: str) -> int:
    if how == "refused" and world.rank == 1:
        raise ConfigError("--batch 7 does not fit")
    if how == "killed" and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "interrupted":
        raise KeyboardInterrupt
    if how == "broken":
        raise ValueError(f"rank {world.rank} of {world.size} broke")
    return 0


def test_a_value_is_made_of_what_each_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone nobody is asked; here another process has 7, and the first says "first"."""

    def all_reduce(held: torch.Tensor, how: object = dist.ReduceOp.SUM) -> None:
        if how == dist.ReduceOp.MAX:
            held.clamp_(min=7)
        else:
            held += 7

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(
        dist, "broadcast_object_list", lambda held, source: held.__setitem__(source, "first")
    )
    met: list[int] = []
    monkeypatch.setattr(dist, "barrier", lambda: met.append(1))
    cpu, two, alone = torch.device("cpu"), World(0, 2), World()
    alone.barrier()
    assert met == []
    two.barrier()
    assert met == [1]
    for own in (3, 9):
        assert two.largest(own, cpu) == max(own, 7)
        assert float(two.highest(torch.tensor(float(own)))) == max(own, 7)
        assert float(two.total(torch.tensor(float(own)))) == own + 7
        assert float(two.mean(torch.tensor(float(own)))) == (own + 7) / 2
        assert alone.largest(own, cpu) == own
        for ask in (alone.highest, alone.total, alone.mean):
            assert float(ask(torch.tensor(float(own)))) == own
    assert (two.shared("mine"), alone.shared("mine")) == ("first", "mine")


def test_rows_are_gathered_and_their_gradients_come_back_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This is the second of two processes; the first has tens, and its loss weighs rows by 7."""

    def all_gather(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        parts[0].fill_(10)
        parts[1].copy_(own)

    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "all_reduce", lambda held: held.add_(7))
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    whole = World(1, 2).gathered(rows)
    assert whole.tolist() == [[10, 10], [10, 10], [1, 2], [3, 4]]
    weights = torch.arange(8.0).reshape(4, 2)
    (whole * weights).sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, weights[2:] + 7)
    assert World().gathered(rows) is rows


def test_a_process_whose_parent_died_while_it_started_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if it were asked to stop, before it begins to work; the parent's Ctrl-C is not its own."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda *given: asked.append(given))
    monkeypatch.setattr(module, "_member", lambda *given: len(asked))
    before = signal.getsignal(signal.SIGINT)
    try:
        for parent, expected in ((os.getppid(), 0), (-1, 1)):
            codes: dict[int, int] = {}
            module._spawned(1, World(size=2), parent, "", "cpu", _code, (0,), codes, None)
            assert codes == {1: expected}
            signal.raise_signal(signal.SIGINT)
            assert asked == [(os.getpid(), signal.SIGTERM)] * 2 * expected
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_process_has_the_gpu_of_its_place_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one; the CPU is taken if asked for, or where there is none."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=there: found)
        expected = torch.device("cuda", 2) if there else torch.device("cpu")
        assert World(9, 16, 6).device("auto") == expected
        assert World(9, 16, 6).device("cpu") == torch.device("cpu")
        assert chosen == [torch.device("cuda", 2)], "and no other work goes to the first"
    with pytest.raises(ConfigError, match="--device cuda, but torch finds no GPU"):
        World().device("cuda")
    assert (World(0, 4).first, World(1, 4).first) == (True, False)


def test_a_member_meets_the_others_works_waits_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves after a failure too, and then waits for nobody."""
    told: list[object] = []
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **given: told.append((backend, given))
    )
    monkeypatch.setattr(dist, "barrier", lambda: told.append("waited"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: told.append("left"))

    def work(world: World, code: int) -> int:
        told.append(world)
        return code // (code - 1)

    given = {"init_method": "tcp://h:1", "rank": 1, "world_size": 4, "device_id": None}
    world, met = World(1, 4), ("gloo", given)
    assert module._member(world, "tcp://h:1", "cpu", work, (3,)) == 1
    assert told == [met, world, "waited", "left"]
    told.clear()
    with pytest.raises(ZeroDivisionError):
        module._member(world, "tcp://h:1", "cpu", work, (1,))
    assert told == [met, world, "left"]
    told.clear()
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(World, "device", lambda self, name: gpu)
    assert module._member(world, "tcp://h:1", "cuda", work, (3,)) == 1
    assert told[0] == ("nccl", {**given, "device_id": gpu})


@pytest.mark.parametrize("gpus", [0, 1, 3])
def test_there_is_a_process_for_each_gpu(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless their number is given; one of them needs no other process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(module, "_spawn", lambda processes, *_: 100 * processes)
    started = [launch(_code, (7,), 0, device) for device in ("auto", "cuda", "cpu")]
    assert started == [300 if gpus == 3 else 7] * 2 + [7]
    assert [launch(_code, (7,), n, "cpu") for n in (1, 2)] == [7, 200]


def test_one_process_runs_here() -> None:
    """No process is started for one, and its code comes back."""
    assert launch(_code, (3,), 1, "cpu") == 3
    assert launch(_code, (3,), 0, "cpu") == 3


def test_processes_are_started_and_their_codes_come_back() -> None:
    """The worst of them; a process that ends without one has not finished."""
    assert launch(_code, (0,), 2, "cpu") == 1
    assert launch(_fail, ("interrupted",), 2, "cpu") == 1


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("broken", Exception, "broke"),
        ("refused", ConfigError, "^--batch 7 does not fit$"),
        ("killed", ClusterError, "process 1 of 2 died .SIGKILL: out of memory"),
    ],
)
def test_failures_of_processes_are_reported(how: str, error: type[Exception], message: str) -> None:
    """What one refuses is refused in its own words; a death is no traceback of torch's."""
    with pytest.raises(error, match=message):
        launch(_fail, (how,), 2, "cpu")


@pytest.mark.parametrize("asked", [True, False])
def test_a_process_that_was_asked_to_stop_before_it_could_save_is_no_fault(
    asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is passed on to those that live; one that died of itself is reported."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(module.os, "kill", lambda *given: sent.append(given))

    class Child(NamedTuple):
        pid: int
        is_alive: Callable[[], bool]

    class Children:
        processes = (Child(11, lambda: True), Child(12, lambda: False))
        joined = 0

        def join(self, grace_period: float) -> bool:
            self.joined += 1
            if self.joined == 1:
                return False
            if asked:
                signal.raise_signal(signal.SIGTERM)
                assert sent == [(11, signal.SIGTERM)]
            raise ProcessExitedException("died", 1, 12, 3)

    monkeypatch.setattr(module, "start_processes", lambda *_, **__: Children())
    with pytest.raises(
        KeyboardInterrupt if asked else ClusterError, match=None if asked else "1 of 2"
    ):
        module._spawn(2, "cpu", _code, (0,))
    assert sent[-1] == (11, module.KILL), "nobody is left behind"


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(
    number: signal.Signals, ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where SIGINT was ignored at the start; afterwards everything is as it was."""
    monkeypatch.setattr(module, "SAME_REQUEST_S", 0.05)
    before = signal.getsignal(signal.SIGINT)
    inherited = signal.signal(signal.SIGINT, signal.SIG_IGN) if ignored else before
    try:
        asked: list[int] = []
        with on_stop(lambda: asked.append(1)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # a launcher that passes on what the terminal sent too
            time.sleep(0.1)
            assert asked == [1]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(signal.SIGINT) == (signal.SIG_IGN if ignored else before)
    finally:
        signal.signal(signal.SIGINT, inherited)


WAITING = """
import sys, threading, time
from pathlib import Path
from zarrloc.pretraining.launch import launch, on_stop

def work(world, folder):
    stop = threading.Event()
    with on_stop(stop.set, world.stops):
        Path(folder, f"ready-{world.rank}").touch()
        while not stop.is_set():
            time.sleep(0.02)
        if Path(folder, "stubborn").exists():
            time.sleep(60)
    Path(folder, f"saved-{world.rank}").touch()
    return 1

if __name__ == "__main__":
    try:
        sys.exit(launch(work, (sys.argv[1],), 2, "cpu"))
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


@pytest.mark.slow
@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminals_interrupt_ends_all_processes_cleanly(
    tmp_path: Path, ignored: bool, stubborn: bool
) -> None:
    """The first lets them save; the second ends them; neither prints a traceback."""
    script = tmp_path / "script.py"
    script.write_text(WAITING)
    if stubborn:
        (tmp_path / "stubborn").touch()
    ignore = "trap '' INT; " if ignored else ""
    process = subprocess.Popen(
        ["sh", "-c", f'{ignore}exec "$0" "$@"', sys.executable, str(script), str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    if stubborn:
        time.sleep(module.SAME_REQUEST_S + 0.5)
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert len(list(tmp_path.glob("saved-*"))) == (0 if stubborn else 2)


def test_handlers_are_set_in_the_main_thread_alone_and_put_back() -> None:
    """Elsewhere Python allows none, and the work goes on without."""

    def found(one: AbstractContextManager[None]) -> object:
        with one:
            return signal.getsignal(signal.SIGINT)

    def elsewhere() -> None:
        seen.extend([found(module._interrupts_ignored()), found(on_stop(lambda: None))])

    before = signal.getsignal(signal.SIGINT)
    assert found(module._interrupts_ignored()) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is before
    assert found(on_stop(lambda: None)) not in (before, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before
    seen: list[object] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before, before]


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    """As if they were asked to stop."""
    script = tmp_path / "script.py"
    script.write_text(WAITING)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    while len(list(tmp_path.glob("saved-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_inside_torchrun_this_process_is_one_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "h"}
    monkeypatch.setattr(module.os, "environ", theirs)
    monkeypatch.setattr(module, "_member", lambda *given: given)
    given = (World(3, 4, 1), "env://", "cpu", _code, (7,))
    for processes in (0, 4):
        assert launch(_code, (7,), processes, "cpu") == given


def test_processes_beside_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is torchrun's."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with pytest.raises(ConfigError, match="--processes 3, but 2 were started"):
        launch(_code, (0,), 3, "cpu")
