"""The training loop: a student, its moving average and an objective on the samples of a store.

In shapes: n samples of this process in a step, v views, c stored channels. Whatever is random in a
step (order, views, masks, stochastic depth) follows from the seed and the step's number alone: a
resumed run needs no generator's state and cannot drift.
"""

import contextlib
import copy
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.engine.cluster import cores
from zarrloc.errors import ConfigError
from zarrloc.models.device import ahead
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.augment import Draw, View, draw, multi_crop
from zarrloc.pretraining.data import ALONE, Beside, Pixels, Source, epochs, pooled, taken
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.inputs import Inputs
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.objective import Network, Objective
from zarrloc.pretraining.objectives import objective_of
from zarrloc.pretraining.schedule import freeze, parameter_groups, update_teacher

MOST_DECODERS = 8


@dataclass
class State:
    """All that a run continues from."""

    student: Network
    teacher: Network
    optimizer: torch.optim.Optimizer
    objective: Objective
    device: torch.device
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)  # since the last row of the log

    @classmethod
    def begin(
        cls,
        config: PretrainConfig,
        spec: BackboneSpec,
        student: nn.Module,
        teacher: nn.Module,
        device: torch.device,
    ) -> "State":
        """Two backbones of `spec` with the same weights, and one fresh head on both."""
        torch.manual_seed(config.seed)
        objective = objective_of(config, spec).to(device)
        head = objective.head()
        twin = copy.deepcopy(head)
        learner = objective.network(student, head).to(device).train()
        average = objective.network(teacher, twin).to(device).requires_grad_(False).eval()
        optimizer = torch.optim.AdamW(parameter_groups(learner), fused=True)
        return cls(learner, average, optimizer, objective, device)

    def pack(self) -> dict[str, Any]:
        """The state as plain values and tensors."""
        return {
            "student": self.student.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "step": self.step,
            "losses": self.losses,
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Continue from `packed`."""
        self.student.load_state_dict(packed["student"])
        self.teacher.load_state_dict(packed["teacher"])
        self.optimizer.load_state_dict(packed["optimizer"])
        self.objective.load_state_dict(packed["objective"])
        self.step = packed["step"]
        self.losses = packed["losses"]


@dataclass(frozen=True)
class Batch:
    """One step's share of this process, on its device."""

    pixels: Pixels
    protein: Tensor  # (n, c) bool
    draws: list[Draw]  # one a view
    drawn: Tensor  # (n, ...) what else the objective drew
    least: int = 0  # pixels along a side of any sample there is
    channels: list[Tensor] | None = None  # one a view, (n, c) bool, which are shown; None: all
    sibling: Pixels | None = None  # of another field, for the second view

    def part(self, rows: slice) -> "Batch":
        """Some of its samples."""
        draws = [d.rows(rows) for d in self.draws]
        return Batch(
            self.pixels[rows],
            self.protein[rows],
            draws,
            self.drawn[rows],
            self.least,
            None if self.channels is None else [shown[rows] for shown in self.channels],
            None if self.sibling is None else self.sibling[rows],
        )

    def views(self, wanted: list[View]) -> list[Tensor]:
        """What is shown, v x `(n, c, size, size)`; a channel that is not is NaN."""
        cut = 1 if self.sibling is not None else len(wanted)
        first, rest = (wanted[:cut], self.draws[:cut]), (wanted[cut:], self.draws[cut:])
        found = multi_crop(
            self.pixels.unit(), self.pixels.extents, self.protein, *first, self.least
        )
        if self.sibling is not None:
            of = self.sibling
            found += multi_crop(of.unit(), of.extents, self.protein, *rest, self.least)
        if self.channels is not None:
            found = [
                view.masked_fill(~shown[..., None, None], torch.nan)
                for view, shown in zip(found, self.channels, strict=True)
            ]
        return found


def batches(
    config: PretrainConfig,
    objective: Objective,
    source: Source,
    resident: Pixels | None,
    inputs: Inputs,
    steps: range,
    world: World,
    device: torch.device,
    beside: Beside = ALONE,
) -> Iterator[Batch]:
    """This process's batch of each step; `resident` is the source, decoded and on the device.

    Choices are drawn for the whole step and then cut to this process's contiguous share, so the
    views do not depend on how many processes there are.
    """
    share = slice(*(config.batch * rank // world.size for rank in (world.rank, world.rank + 1)))
    views, least = objective.views(), int(source.extents.min())
    is_protein = torch.tensor([role == "protein" for role in source.roles])
    step = steps.start
    for rows_of in epochs(source.shard, config.pool_shards, config.seed, config.batch, steps):
        mine = [rows[share] for rows in rows_of]
        found = (
            pooled(source, mine, decoders(world, device))
            if resident is None
            else (resident[torch.from_numpy(rows).to(device)] for rows in mine)
        )
        for rows, pixels in zip(rows_of, found, strict=True):
            random = torch.Generator().manual_seed(seed_of(config.seed, step, 0))
            protein = is_protein.expand(config.batch, -1)
            if inputs.replicate:  # one channel a sample, the same in all its views
                channel = torch.randint(len(source.roles), (config.batch,), generator=random)
                protein = is_protein[channel][:, None]
                pixels = pixels.channel(channel[share].to(pixels.images.device))
            others, sibling = rows, None
            if beside.siblings is not None:
                others = beside.siblings.drawn(rows, random)
                sibling = taken(source, resident, others[share])
                if inputs.replicate:
                    sibling = sibling.channel(channel[share].to(sibling.images.device))
            draws = []
            for i, view in enumerate(views):
                real = torch.from_numpy(source.extents[others if i else rows]).float()
                draws.append(draw(view, protein, real[:, 1] / real[:, 0], random))
            drawn = objective.draw(config.batch, random)
            channels = None
            if objective.spec.tokens == "channel":
                sampler = random if config.channel_sampling else None
                # One draw for both samples, of which each has the channels of its own store.
                both = beside.shown(np.concatenate([rows, others]), inputs.used, sampler)
                own, other = (shown[share].to(device) for shown in both.chunk(2))
                channels = [other if i else own for i in range(len(views))]
            yield Batch(
                pixels.to(device),
                protein[share].to(device),
                [each.rows(share).to(device) for each in draws],
                drawn[share].to(device),
                least,
                channels,
                None if sibling is None else sibling.to(device),
            )
            step += 1


def decoders(world: World, device: torch.device) -> int:
    """Threads that decode for one process: a quarter of its share of its node's cores."""
    processes = world.size
    if device.type == "cuda":  # a GPU each, so that more of them are on other nodes
        processes = min(processes, torch.cuda.device_count())
    return min(MOST_DECODERS, max(1, cores() // processes // 4))


def gradients(
    plan: Plan,
    state: State,
    network: nn.Module,
    batch: Batch,
    inputs: Inputs,
) -> tuple[Tensor, Tensor]:
    """Add the loss's gradients to the student's; returns the loss and the objective's tally.

    `network` is the student, in DistributedDataParallel where there are several processes.
    """
    n, device, objective = len(batch.pixels), state.device, state.objective
    loss, tally = torch.zeros((), device=device), torch.zeros((), device=device)
    cuts = [n * part // plan.parts for part in range(plan.parts + 1)]
    for start, stop in itertools.pairwise(cuts):
        part, weight = batch.part(slice(start, stop)), (stop - start) / n
        # v x (n, input, size, size)
        views = [inputs(view) for view in part.views(objective.views())]
        with _unsynchronised(network, stop < n):
            with torch.autocast(device.type, torch.bfloat16, enabled=plan.bfloat16):
                with torch.no_grad():
                    targets = objective.targets(state.teacher, views, part.drawn)
                answer = network(views, part.drawn)
            part_loss = weight * objective.loss(answer, targets, part.drawn)
            part_loss.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach()
        tally = tally + weight * objective.tally(targets).to(device)
    return loss, tally


def train_step(
    config: PretrainConfig,
    plan: Plan,
    state: State,
    network: nn.Module,
    batch: Batch,
    inputs: Inputs,
    world: World,
) -> Tensor:
    """One optimizer step; returns the loss, a mean over all samples of all processes."""
    rates = plan.rates(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rates.learning_rate
        if group["decays"]:
            group["weight_decay"] = rates.weight_decay

    state.optimizer.zero_grad(set_to_none=True)
    torch.manual_seed(seed_of(config.seed, state.step, 1 + world.rank))  # stochastic depth
    loss, tally = gradients(plan, state, network, batch, inputs)
    for parameter in state.student.parameters():
        clip_grad_norm_(parameter, config.clip)  # each by itself, as in the reference
    if rates.frozen:
        freeze(state.objective.frozen(state.student))
    state.optimizer.step()

    update_teacher(state.teacher, state.student, rates.momentum)
    state.objective.remember(world.mean(tally))
    state.step += 1
    return world.mean(loss)


def train(
    config: PretrainConfig,
    plan: Plan,
    state: State,
    source: Source,
    resident: Pixels | None,
    inputs: Inputs,
    world: World,
    log: Callable[[dict[str, float]], None],
    after_step: Callable[[], bool],
    beside: Beside = ALONE,
) -> bool:
    """Train from `state.step` to the plan's last step; True when it was reached.

    `log` gets a row every `log_steps`, with the mean loss since the last; `after_step` saves and
    checks as it sees fit, and ends the training by returning False.
    """
    device = state.device
    network: nn.Module = state.student
    if world.size > 1:
        network = DistributedDataParallel(
            state.student, device_ids=[device] if device.type == "cuda" else None
        )
    state.student.world = state.objective.world = world
    steps = range(state.step, plan.steps)
    arriving = ahead(
        batches(
            config, state.objective, source, resident, inputs, steps, world, device, beside,
        )
    )  # fmt: skip
    since, served, decoded = time.perf_counter(), 0, source.decodes
    for batch in arriving:
        state.losses.append(train_step(config, plan, state, network, batch, inputs, world))
        served += 1
        if state.step % config.log_steps == 0 or state.step == plan.steps:
            loss = float(torch.stack(state.losses).mean())
            if not np.isfinite(loss):
                raise ConfigError(
                    f"the loss became {loss} near step {state.step}; start again (--overwrite) "
                    "with a lower --learning-rate or --clip, or with --precision fp32"
                )
            log(
                {
                    "step": state.step,
                    "epoch": state.step / plan.steps_per_epoch,
                    "loss": loss,
                    "learning_rate": plan.rates(state.step - 1).learning_rate,
                    "images_per_s": served * config.batch / (time.perf_counter() - since),
                    "decodes_per_sample": (source.decodes - decoded) / served / len(batch.pixels),
                }
            )
            state.losses.clear()
            since, served, decoded = time.perf_counter(), 0, source.decodes
        pause = time.perf_counter()
        if not after_step():
            return False
        since += time.perf_counter() - pause
    return True


def parts_that_fit(trial: Callable[[int], None], plan: Plan, say: Callable[[str], None]) -> int:
    """The fewest parts, from the plan's on by doubling, in which a step's share fits in memory."""
    parts, share, most = plan.parts, plan.share, plan.most_parts
    while True:
        try:
            trial(parts)
        except torch.OutOfMemoryError:
            if parts >= most:
                few = "one sample's views"
                if most < share:
                    few = "the views of two samples, which are compared,"
                raise ConfigError(
                    f"{few} do not fit in the GPU's memory; use a smaller --arch, --size or "
                    "--local-views"
                ) from None
            parts = min(2 * parts, most)
            torch.cuda.empty_cache()
            say(f"GPU out of memory: accumulating over {parts} parts of {share / parts:g} samples")
        else:
            return parts


def seed_of(seed: int, step: int, stream: int) -> int:
    """A generator's seed for one step and one purpose."""
    return int(np.random.SeedSequence((seed, step, stream)).generate_state(1, np.uint64)[0] >> 1)


def _unsynchronised(network: nn.Module, more: bool) -> contextlib.AbstractContextManager[None]:
    """Gradients of all but a step's last part stay in this process."""
    if more and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()
