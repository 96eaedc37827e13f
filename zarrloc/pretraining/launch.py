"""One process a device: started here, by torchrun or by srun.

Lightning Fabric was left out: `torch.distributed` reads torchrun's variables itself, srun's are
the few below, and Fabric starts processes by running the user's script again.
"""

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from zarrloc.errors import ClusterError, ConfigError, WorkerError, ZarrlocError

STOPS = (signal.SIGINT, signal.SIGTERM)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no other
SAME_REQUEST_S = 1.0
GRACE_S = 10.0
"""How long the other processes may take to end after one has failed."""
UNFINISHED = 1
"""Exit code of a process that ended without giving one."""


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`; `local` numbers those of one node."""

    rank: int = 0
    size: int = 1
    local: int = 0
    stops: tuple[signal.Signals, ...] = STOPS
    """The signals that ask this process to end."""

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

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def highest(self, value: Tensor) -> Tensor:
        """The largest over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def gathered(self, values: Tensor) -> Tensor:
        """The rows of all processes, which have equally many, in the order of the processes.

        A gradient goes back to the process that a row is of, summed over the processes.
        """
        if self.size == 1:
            return values
        found: Tensor = _Gathered.apply(values, self)  # type: ignore[no-untyped-call]
        return found

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


class _Gathered(torch.autograd.Function):
    """All processes' rows; PyTorch's own (`torch.distributed.nn`) sends them back one by one."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, world: World) -> Tensor:
        ctx.world, ctx.rows = world, len(values)
        parts = [torch.empty_like(values) for _ in range(world.size)]
        dist.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        whole = ctx.world.total(gradients[0].clone())
        return whole[ctx.world.rank * ctx.rows :][: ctx.rows], None


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
    # Steps of one job, and jobs in a row, may share a node.
    step = int(environ.get("SLURM_STEP_ID", 0))
    port = 20000 + (int(environ["SLURM_JOB_ID"]) + 7919 * step) % 20000
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
    rank: int,
    world: World,
    parent: int,
    meet: str,
    device: str,
    work: Callable[..., int],
    rest: tuple[Any, ...],
    codes: Any,
    refusals: Any,
) -> None:
    def interrupted(number: int = 0, frame: FrameType | None = None) -> None:
        # A terminal's Ctrl-C reaches every process; the parent passes it on as SIGTERM. torch lets
        # the kernel send SIGINT when the parent has died.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, interrupted)
    interrupted()
    try:
        codes[rank] = _member(replace(world, rank=rank, local=rank), meet, device, work, rest)
    except ZarrlocError as error:
        refusals.put(error)
        raise


def _spawn(
    processes: int, device: str, work: Callable[..., int], arguments: tuple[Any, ...]
) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    context = get_context("spawn")
    codes = context.Array("i", [UNFINISHED] * processes)
    refusals = context.SimpleQueue()
    world = World(size=processes, stops=(signal.SIGTERM,))
    stopped = threading.Event()
    with _interrupts_ignored():  # which children inherit, until they have a handler of their own
        children = start_processes(  # type: ignore[no-untyped-call]
            _spawned,
            (world, os.getpid(), meet, device, work, arguments, codes, refusals),
            processes,
            join=False,
            start_method="spawn",
        )

    def end(number: int) -> None:
        for child in children.processes:
            if child.is_alive():
                os.kill(child.pid, number)

    def stop() -> None:
        stopped.set()
        end(signal.SIGTERM)

    try:
        with on_stop(stop):
            while not children.join(grace_period=GRACE_S):
                pass
    except ProcessRaisedException:
        if refusals.empty():
            raise
        raise refusals.get() from None
    except ProcessExitedException as error:
        if stopped.is_set():  # before it had a handler: there was nothing to save
            raise KeyboardInterrupt from error
        raise WorkerError(
            f"process {error.error_index} of {processes} died ({_cause(error)}); the same command "
            "continues from the last checkpoint"
        ) from error
    finally:
        end(KILL)
    worst: int = max(codes[:])
    return worst


def _cause(error: ProcessExitedException) -> str:
    if error.signal_name == "SIGKILL":
        return "SIGKILL: out of memory, or stopped from outside"
    return error.signal_name or f"exit code {error.exit_code}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def on_stop(
    first: Callable[[], None], signals: tuple[signal.Signals, ...] = STOPS
) -> Iterator[None]:
    """Meanwhile, the first of `signals` calls `first`, and a later one interrupts at once.

    Also where SIGINT was ignored at the start, as under nohup. What follows within a second is
    the same request: a terminal and a launcher both send it. Nothing changes outside the main
    thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: float | None = None

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
            first()
        elif time.monotonic() - asked > SAME_REQUEST_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
