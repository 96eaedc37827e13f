"""One process a device: started here, by torchrun or by srun.

Lightning Fabric was left out: `torch.distributed` reads torchrun's variables itself, srun's are
the few below, and Fabric starts processes by running the user's script again.
"""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from zarrloc.errors import ClusterError, ConfigError


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`; `local` numbers those of one node."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process logs and writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """This process's device: `auto` takes a GPU where there is one."""
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and not torch.cuda.is_available():
            raise ConfigError("--device cuda, but torch finds no GPU; use --device cpu")
        if name != "cuda":
            return torch.device(name)
        device = torch.device("cuda", self.local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def largest(self, value: int, device: torch.device) -> int:
        """The largest over all processes."""
        if self.size == 1:
            return value
        held = torch.tensor(value, device=device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def shared(self, value: Any) -> Any:
        """The first process's value, on all."""
        held = [value]
        if self.size > 1:
            dist.broadcast_object_list(held, 0)
        return held[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def detect(environ: Mapping[str, str]) -> tuple[World, str] | None:
    """The world that torchrun or srun started this process in, and where its processes meet."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environ.keys():
        local = int(environ.get("LOCAL_RANK", 0))
        return World(int(environ["RANK"]), int(environ["WORLD_SIZE"]), local), "env://"
    # Only srun sets a step's task count: a batch script by itself has SLURM_NTASKS too.
    size = int(environ.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return None
    world = World(int(environ["SLURM_PROCID"]), size, int(environ["SLURM_LOCALID"]))
    port = 20000 + int(environ["SLURM_JOB_ID"]) % 20000
    return world, f"tcp://{first_host(environ['SLURM_STEP_NODELIST'])}:{port}"


def first_host(nodes: str) -> str:
    """The first of SLURM's compressed list: `gpu[003-005,9],login` -> `gpu003`."""
    found = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if found is None:
        raise ClusterError(f"cannot read SLURM's list of nodes, {nodes!r}")
    return found[1] + (found[2] or "")


def launch(
    work: Callable[..., int], arguments: tuple[Any, ...], processes: int, device: str
) -> int:
    """Run `work(world, *arguments) -> exit code` in every process; returns the code.

    Inside torchrun or srun this process is one of theirs. Otherwise `processes` are spawned here,
    0 meaning one for each GPU; one runs in this very process.
    """
    found = detect(os.environ)
    if found is not None:
        if processes not in (0, found[0].size):
            raise ConfigError(
                f"--processes {processes}, but {found[0].size} were started around zarrloc; "
                "leave --processes out"
            )
        return _member(found[0], found[1], device, work, arguments)
    if processes == 0:
        every = device in ("auto", "cuda")
        processes = max(1, torch.cuda.device_count()) if every else 1
    if processes == 1:
        return work(World(), *arguments)
    return _spawn(processes, device, work, arguments)


def _member(
    world: World, meet: str, device: str, work: Callable[..., int], arguments: tuple[Any, ...]
) -> int:
    own = world.device(device)
    backend, bound = ("nccl", own) if own.type == "cuda" else ("gloo", None)
    dist.init_process_group(
        backend, init_method=meet, rank=world.rank, world_size=world.size, device_id=bound
    )
    try:
        code = work(world, *arguments)
        dist.barrier()  # who leaves early takes the others' connections down
        return code
    finally:
        dist.destroy_process_group()


def _spawned(
    rank: int, size: int, meet: str, device: str, work: Callable[..., int], rest: Any, codes: Any
) -> None:
    codes[rank] = _member(World(rank, size, rank), meet, device, work, rest)


def _spawn(
    processes: int, device: str, work: Callable[..., int], arguments: tuple[Any, ...]
) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    codes = get_context("spawn").Array("i", processes)
    children = start_processes(  # type: ignore[no-untyped-call]
        _spawned,
        (processes, meet, device, work, arguments, codes),
        processes,
        join=False,
        start_method="spawn",
    )

    def forward(number: int, frame: FrameType | None) -> None:
        for child in children.processes:
            if child.is_alive():
                os.kill(child.pid, number)

    with on_signal(signal.SIGTERM, forward):
        while not children.join():
            pass
    worst: int = max(codes[:])
    return worst


@contextlib.contextmanager
def on_signal(number: int, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handler` for signal `number` meanwhile; nothing where this is not the main thread."""
    try:
        before = signal.signal(number, handler)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(number, before)
