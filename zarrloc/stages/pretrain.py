"""`pretrain`: sets a run up, watches it, saves it, and continues it."""

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.engine.run import new_run_id
from zarrloc.errors import WeightsError
from zarrloc.models.vit import Backbone
from zarrloc.models.weights import (
    EXPORT_FILE,
    SPEC_FILE,
    check_export,
    export_facebook,
    fill,
    save_backbone,
)
from zarrloc.pretraining import checkpoint, folder
from zarrloc.pretraining.baselines import neighbour_baselines
from zarrloc.pretraining.data import Pixels, Source
from zarrloc.pretraining.estimate import Plan, describe, fitted
from zarrloc.pretraining.guard import (
    Guard,
    Health,
    collapse,
    unmeasurable,
    whole_images,
    worse,
)
from zarrloc.pretraining.inputs import Inputs, affine_of
from zarrloc.pretraining.launch import World, launch, on_stop
from zarrloc.pretraining.log import Log, write_baselines, write_checks
from zarrloc.pretraining.loop import State, batches, gradients, parts_that_fit, train
from zarrloc.pretraining.objectives import objective_of
from zarrloc.pretraining.samples import Data, cached, open_data, refuse_blank
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec
from zarrloc.store.location import Location
from zarrloc.store.lock import hold

LOG = logging.getLogger("zarrloc")

STOPPED = 1
"""Exit code of a run that a signal ended early: the same command continues it."""

COLLAPSED = 3
"""Exit code of a run that its guard ended: the embedding no longer tells images apart."""


def plan(store: str | Path | Location, config: PretrainConfig) -> str:
    """What `pretrain` would do, as text: data, steps, views, rates, memory. Trains nothing.

    Raises what `pretrain` raises for settings that cannot work.
    """
    data = open_data(Location.of(store), config)
    config = fitted(config, len(data.protein))
    spec = start_spec(config, data.source.roles)
    channels = start_channels(config, spec, data.source.roles)
    refuse_blank(data, channels)
    device = World().device(config.device).type
    made = Plan.of(config, len(data.protein), max(1, config.processes), device)
    student, _, _ = start_backbones(config, spec)
    objective = objective_of(config, spec)
    detail = data.detail(config)
    return describe(
        config, made, spec, channels, student, objective, data.fields, data.held_out, detail
    )


def pretrain(
    store: str | Path | Location,
    out: str | Path,
    config: PretrainConfig,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = LOG.info,
) -> int:
    """Train a backbone on `store` without labels, into the folder `out`; returns an exit code.

    `out` gets the teacher's backbone (`zarrloc embed --backbone OUT`), the best one by the guard
    under `best/`, `teacher.pth` in facebookresearch's layout, `log.jsonl`, the guard's `checks.csv`
    and `baselines.json` (`zarrloc report --runs OUT` draws them), and checkpoints. The same call
    continues a run that was ended; one that is complete is left as it is.

    Returns
    -------
    int
        0 where the backbone is trained, 1 where a signal ended the run and the same call continues
        it, 3 where training collapsed.

    Raises
    ------
    ConfigError, StoreError, ChannelError, WeightsError
        For what cannot work; also `LockedError` while another process writes to `out`, and
        `ClusterError` where a process of several died.
    """
    location, out = Location.of(store), Path(out)
    # All that can be refused is refused before a process is started or the folder taken.
    for each in (location, *map(Location.of, config.also)):
        folder.check(out, each, overwrite=overwrite, inputs=(config.start, config.weights))
    data = open_data(location, config)
    config = fitted(config, len(data.protein))
    spec = start_spec(config, data.source.roles)
    refuse_blank(data, start_channels(config, spec, data.source.roles))
    start_backbones(config, spec)
    return launch(_member, (location, out, config, overwrite, say), config.processes, config.device)


def _member(
    world: World,
    location: Location,
    out: Path,
    config: PretrainConfig,
    overwrite: bool,
    say: Callable[[str], None],
) -> int:
    """One process's part of a run."""
    device = world.device(config.device)
    data = open_data(location, config)
    run = Run(world, out, config, data, say if world.first else _silent)
    with hold(Location.of(out), "pretrain", new_run_id()) if world.first else nullcontext():
        return _train(run, location, device, overwrite)


def _train(run: "Run", location: Location, device: torch.device, overwrite: bool) -> int:
    world, out, config, data = run.world, run.out, run.config, run.data
    run.open(overwrite)
    if run.complete():
        run.say(f"{out}: nothing to do, all {run.plan.steps} steps are done")
        return 0
    run.begin(device, location)
    if run.ended_by_guard:
        return run.say_collapsed()
    source, resident = cached(config, data.source, location, world, device)
    run.fit_memory(device, source, resident)
    log = _unlogged
    if world.first:
        log = run.log = Log(out, config, run.plan, run.state.step, run.say)
        if run.state.step == 0:
            run.log.checked(run.checks, run.baselines)
    with on_stop(run.stop.set, world.stops):
        done = train(
            config, run.plan, run.state, source, resident, run.inputs, world, log, run.after,
            data.beside,
        )  # fmt: skip
    if run.ended_by_guard:
        return run.say_collapsed()
    if not done:
        run.say(f"stopped at step {run.state.step}; the same command continues from there")
        return STOPPED
    if world.first:
        run.export(out)
        size = run.embedding_size()
        run.say(f"{out}: trained; embed with `zarrloc embed STORE --backbone {out}{size}`")
    world.barrier()
    return 0


@dataclass
class Run:
    """One run: its state, and what happens between steps."""

    world: World
    out: Path
    config: PretrainConfig
    data: Data
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    checks: list[dict[str, Any]] = field(default_factory=list)
    """The guard's rows so far, the first at the start."""
    warnings: list[str] = field(default_factory=list)
    """What the last of them complained of."""
    baselines: dict[str, float | None] = field(default_factory=dict)
    """What other features' neighbours score on the guard's samples."""
    log: Log | None = None
    """The first process's, once the training begins."""
    collapsed: bool = False
    """Whether the guard's last check found a collapse."""

    def __post_init__(self) -> None:
        roles, device = self.data.source.roles, self.world.device(self.config.device)
        self.spec = start_spec(self.config, roles)
        self.channels = start_channels(self.config, self.spec, roles)
        self.plan = Plan.of(self.config, len(self.data.protein), self.world.size, device.type)
        self.student, self.teacher, self.origin = start_backbones(self.config, self.spec)

    # --- setting up ---

    def open(self, overwrite: bool) -> None:
        """Take the folder: fresh, or one that holds this same run."""
        if self.world.first:
            folder.take(self.out, self.identity(), overwrite=overwrite)
        self.world.barrier()

    def identity(self) -> dict[str, Any]:
        """What the trained weights depend on; those it starts from by hash, not by path."""
        data = f"{self.data.source.digest:016x}"
        return {**self.config.result(), "weights": self.origin, "data": data}

    def complete(self) -> bool:
        """Whether an earlier run of the same came to its end, and what it wrote is whole."""
        if not (self.out / SPEC_FILE).exists():
            return False
        try:
            check_export(self.out)
        except WeightsError as error:
            self.say(f"{error}; written again from the last checkpoint")
            return False
        return True

    def begin(self, device: torch.device, location: Location) -> None:
        """State, inputs and guard: fresh, or as the last checkpoint holds them."""
        self.state = State.begin(self.config, self.spec, self.student, self.teacher, device)
        packed = self._last_saved(device)
        rows = self.data.some(self.config.guard_samples, self.config.seed)
        images = torch.empty(0)
        if self.world.first:
            images = whole_images(self.data.source, rows, self.config.size)
            if self.data.beside.present is not None:
                images[torch.from_numpy(~self.data.beside.present[rows])] = torch.nan
        absent = torch.nan if self.spec.tokens == "channel" else 0.0
        if packed is None:
            own = affine_of(self.channels, images.float()) if self.world.first else None
            mean, sd = self.world.shared(own)
            self.inputs = Inputs(self.channels, mean, sd, absent)
            self.say(
                f"{self.channels.describe()}; {self.plan.steps} steps of {self.config.batch} of "
                f"{self.plan.samples} samples; "
                f"held out: {self.data.held_out}"
            )
        else:
            self.state.unpack(packed)
            self.plan = self.plan.resumed(**packed["settled"])
            mean, sd = map(tuple, packed["affine"])
            self.inputs = Inputs(self.channels, mean, sd, absent)
            self.checks, self.warnings = packed["checks"], packed["warnings"]
            self.collapsed = packed["collapsed"]
            self.say(f"continuing from step {self.state.step} of {self.plan.steps}")
        graded = self.data.grade[rows], self.data.protein[rows]
        self.guard = Guard(images, *graded, self.inputs)
        if packed is None:
            self._check()
            if self.checks and self.checks[0]["knn_macro_f1"] is not None:
                self.baselines = neighbour_baselines(location, self.config, self.data, rows)
                write_baselines(self.out / "baselines.json", self.baselines)
            if self.checks and self.checks[0]["knn_macro_f1"] is None:
                self.say(
                    f"the guard cannot score neighbours, since {unmeasurable(*graded)}: no best/ "
                    "will be written, and a run that gets worse than its start goes unnoticed"
                )

    def _last_saved(self, device: torch.device) -> dict[str, Any] | None:
        """The state to continue from; the first process chooses the checkpoint for all."""
        where = self.out / "checkpoints"
        found = checkpoint.newest(where, device, self.say) if self.world.first else None
        step = self.world.shared(found and found["step"])
        if found is None and step is not None:
            found = checkpoint.load(checkpoint.path_of(where, step), device)
        return found

    def fit_memory(self, device: torch.device, source: Source, resident: Pixels | None) -> None:
        """Cut the step into as many parts as the GPU needs; the same on all processes."""
        if device.type != "cuda":
            return
        (batch, *_) = batches(
            self.config, self.state.objective, source, resident, self.inputs, range(1),
            self.world, device, self.data.beside,
        )  # fmt: skip
        student = self.state.student
        # What DDP will hold from the first step on, and the optimizer, if it does not yet.
        copies = 1 if self.state.optimizer.state else 3
        held = [torch.empty_like(p) for p in student.parameters() for _ in range(copies)]
        buffers = [(buffer, buffer.clone()) for buffer in student.buffers()]

        def trial(parts: int) -> None:
            student.zero_grad(set_to_none=True)
            trial_plan = replace(self.plan, parts=parts)
            gradients(trial_plan, self.state, student, batch, self.inputs)
            student.zero_grad(set_to_none=True)

        parts = parts_that_fit(trial, self.plan, self.say)
        del held
        for buffer, before in buffers:  # running statistics, which the trials have moved
            buffer.copy_(before)
        self.plan = replace(self.plan, parts=self.world.largest(parts, device))

    # --- between steps ---

    def after(self) -> bool:
        """Check, save, and say whether to go on."""
        step, last = self.state.step, self.state.step == self.plan.steps
        every = self.checks_every
        checked = bool(every) and (step % every == 0 or last)
        if checked:
            self._check()
        ending = False
        if self.world.size == 1 or step % self.config.log_steps == 0:
            ending = bool(self.world.largest(self.stop.is_set(), self.state.device))
        if checked or ending or last or step % self.config.checkpoint_steps == 0:
            self._save()
        return not self.ended_by_guard and (not ending or last)

    @property
    def checks_every(self) -> int:
        """Steps between the guard's checks; 0: none."""
        by_epoch = self.config.guard_epochs * self.plan.steps_per_epoch
        return self.config.eval_every or by_epoch

    @property
    def ended_by_guard(self) -> bool:
        """Whether the run has collapsed and was not asked to go on."""
        return self.collapsed and not self.config.keep_going

    def say_collapsed(self) -> int:
        """What to do about it; returns the exit code."""
        best = f" The best backbone so far is in {self.out / 'best'}."
        self.say(
            f"ended at step {self.state.step}, since training has collapsed; start again with "
            "other settings and --overwrite, or go on with --keep-going."
            + best
            * (self.out / "best" / SPEC_FILE).exists()
        )
        return COLLAPSED

    def _check(self) -> None:
        if self.world.first and self.checks_every:
            now = self.guard.check(self.state.teacher, self.state.objective, self.state.step)
            best = max((row["knn_macro_f1"] or 0.0 for row in self.checks[1:]), default=-1.0)
            self.checks.append(now.as_dict())
            write_checks(self.out / "checks.csv", self.checks)
            if self.log is not None:
                self.log.checked(self.checks[-1:])
            start = Health(**self.checks[0])
            self.say(f"guard at step {now.step}: {now}" + f"; at first: {start}" * (now.step > 0))
            fallen = collapse(start, now) if now.step else None
            self.collapsed = fallen is not None
            said = (fallen, worse(start, now)) if now.step else ()
            self.warnings = [text for text in said if text]
            for text in self.warnings:
                self.say(f"\n*** {text}\n")
            if now.step and now.knn_macro_f1 is not None and now.knn_macro_f1 > best:
                self.export(self.out / "best")
        self.collapsed = self.world.shared(self.collapsed)

    def _save(self) -> None:
        if self.world.first:
            packed = {
                **self.state.pack(),
                "settled": {"parts": self.plan.parts, "bfloat16": self.plan.bfloat16},
                "affine": (list(self.inputs.mean), list(self.inputs.sd)),
                "checks": self.checks,
                "warnings": self.warnings,
                "collapsed": self.collapsed,
            }
            checkpoint.save(self.out / "checkpoints", self.state.step, packed, self.config.keep)
        self.world.barrier()

    def embedding_size(self) -> str:
        """The flag by which an embedding shows the detail that was learned; none for native."""
        longer = int(self.data.source.extents.max())
        size = self.data.detail(self.config).size(longer, self.data.pixel_size_um)
        return "" if size == "native" else f" --size {size}"

    def export(self, where: Path) -> None:
        """The teacher's backbone as it is now, in zarrloc's and in facebookresearch's layout."""
        # Embedding asks for no channels again: the trained ones become the backbone's own.
        default = self.channels.as_config()
        backbone = Backbone(replace(self.spec, name=self.out.name, default_channels=default))
        trained = self.state.teacher.backbone
        assert isinstance(trained, Backbone)
        fill(backbone.vit, trained.vit.state_dict(), "the teacher")
        where.mkdir(parents=True, exist_ok=True)
        export_facebook(where / EXPORT_FILE, backbone.vit.state_dict())
        save_backbone(
            where,
            backbone,
            normalisation=self.inputs.record(self.config.size),
            lineage={
                "objective": self.config.objective,
                "from": self.config.start,
                "from_weights": self.origin,
                "channels": self.channels.describe(),
                **({"views": self.config.views} if self.config.views != "sample" else {}),
                "fields": self.data.fields,
                "samples": self.plan.samples,
                "held_out": self.data.held_out,
                "detail": self.data.detail(self.config)._asdict(),
                "step": self.state.step,
                "steps": self.plan.steps,
                "guard": self.checks,
                "warnings": self.warnings,
                "settings": self.identity(),
            },
        )


# --- helpers ------------------------------------------------------------------------------------


def _silent(text: str) -> None:
    """Only the first process speaks."""


def _unlogged(row: dict[str, float]) -> None:
    """Only the first process keeps the log."""
