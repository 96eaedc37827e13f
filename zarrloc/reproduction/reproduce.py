"""`reproduce` and `plan`: a table's rows are planned, run as far as they can be, and compared."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.reproduce import ReproduceConfig, StandInsConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ConfigError, LockedError, WeightsError, ZarrlocError
from zarrloc.groups.fovs import Fovs
from zarrloc.reproduction.describe import Took, describe, sized, spent, time_note, too_long
from zarrloc.reproduction.draw import draw
from zarrloc.reproduction.estimate import Cost, Machine, cost, fetched, is_done
from zarrloc.reproduction.jobs import (
    Job,
    Task,
    alternative,
    read_stand_ins,
    read_table,
    task_of,
    with_stand_ins,
)
from zarrloc.reproduction.results import Alternative, Figure, Result, as_markdown, write
from zarrloc.stages.embed import embed
from zarrloc.stages.evaluate import evaluate
from zarrloc.stages.label import carry
from zarrloc.stages.pretrain import pretrain
from zarrloc.stages.segment import segment
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.location import Location

LOG = logging.getLogger("zarrloc")
MAX_HOURS = 24.0
WAIT_S = 5.0
"""Between two looks whether another run has let go of a stage."""

INCOMPLETE = 3
"""Exit code where some rows could not run."""


class CannotRun(ZarrlocError):
    """A job that this machine or this store cannot do."""


@dataclass
class Reproduction:
    """One table on one store."""

    table: ReproduceConfig
    location: Location
    out: Path
    stand_ins: StandInsConfig
    max_hours: float
    run: RunConfig | None
    say: Callable[[str], None]
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why a job is not done, by its key."""
    finished: set[tuple[str, str]] = field(default_factory=set)
    absent: dict[str, str] = field(default_factory=dict)
    """Why weights could not be had, by where they are published: tried once, not by every row."""
    machine: Machine | None = None
    took: list[Took] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fovs = Fovs.of(self.location)

    def tasks(self, table: ReproduceConfig) -> list[Task | Result]:
        """A task a row, or why there is none."""
        found: list[Task | Result] = []
        for row in table.rows:
            try:
                found.append(task_of(table, row, self.stand_ins, self.fovs, self.out))
            except ZarrlocError as error:
                found.append(Result(row.name, dict(row.paper), missing=str(error)))
        return found

    def choices(self) -> list[tuple[str, Any]]:
        """What the paper leaves open, and each value that the table has not."""
        return [
            (name, value)
            for name, values in self.table.choices.items()
            for value in values
            if value != getattr(self.table, name)
        ]

    def with_choice(self, name: str, value: Any) -> ReproduceConfig:
        """The table with one of these."""
        return alternative(self.table, name, value)

    # --- before ---

    def costs(self, tasks: Sequence[Task | Result]) -> list[tuple[Job, Cost | str]]:
        """Every job once, in order, with its cost or why it has none."""
        jobs = {
            job.key: job for task in tasks if isinstance(task, Task) for job in task.job.chain()
        }
        return [(job, self.cost(job)) for job in jobs.values()]

    def cost(self, job: Job) -> Cost | str:
        """What a job costs, or why that cannot be worked out."""
        self.machine = self.machine or Machine.measured()
        try:
            return cost(job, self.location, self.fovs, self.out, self.machine)
        except (ZarrlocError, RuntimeError, ValueError) as error:
            return str(error)

    def plan(self, sensitivity: bool = False) -> list[str]:
        """The plan, line by line: what is missing, what it takes, and what cannot run here."""
        tasks = self.tasks(self.table)
        rows = f"{len(tasks)} rows"
        if sensitivity:
            others = [self.with_choice(name, value) for name, value in self.choices()]
            rows += f", {len(others) + 1} times"
            tasks += [task for one in others for task in self.tasks(one) if isinstance(task, Task)]
        costs = self.costs(tasks)
        assert self.machine is not None or not costs
        lines = [self.table.title, f"store      {self.location.uri}: {self.fovs.rows} fields"]
        if self.machine:
            lines.append(
                f"machine    {self.machine.device}, {self.machine.flops / 1e9:.0f} GFLOP/s measured"
            )
        lines.append("")
        lines += [describe(job, found, self.max_hours) for job, found in costs]
        todo = [found for _, found in costs if isinstance(found, Cost) and not found.done]
        seconds, gpu = (sum(getattr(c, name) for c in todo) for name in ("seconds", "gpu_seconds"))
        lines += [
            "",
            f"to do      {len(todo)} of {len(costs)} stages for {rows}",
            f"time       {spent(seconds)} here, by estimate; on one data-centre GPU "
            f"{gpu / 3600:.2g} GPU-hours",
            f"storage    {sized(sum(c.bytes for c in todo))}, {sum(c.files for c in todo)} files",
        ]
        wanted = sorted({str(url) for job, _ in costs if (url := _fetched(job))})
        lines += [f"to fetch   {url}" for url in wanted]
        lines += [
            f"cannot run {task.name}: {task.missing}" for task in tasks if isinstance(task, Result)
        ]
        return lines

    # --- running ---

    def results(self, table: ReproduceConfig) -> list[Result]:
        """Run what is missing for a table, and score it; a row that fails costs itself alone."""
        found = []
        for number, task in enumerate(self.tasks(table), start=1):
            if isinstance(task, Task):
                self.say(f"[{number}/{len(table.rows)}] {task.row.name}")
                task = self._result(table, task)
            if task.missing:
                self.say(f"    could not run: {task.missing}")
            found.append(task)
        return found

    def _result(self, table: ReproduceConfig, task: Task) -> Result:
        row = task.row
        blank = Result(row.name, dict(row.paper), note=task.stand_in)
        try:
            for job in task.job.chain():
                self._do(job)
            measured = self._score(table, task.job)
        except ZarrlocError as error:
            return _without(blank, str(error))
        except Exception as error:  # whatever one row's weights or data do, the others are run
            return _without(blank, f"{type(error).__name__}: {error}")
        heads = {"head": task.job.name} if task.job.kind == "train" else {}
        embedding = task.job.settings.embedding if heads else task.job.name
        fraction = row.finetune.fraction if row.finetune else None
        return Result(
            row.name, dict(row.paper), measured, note=task.stand_in, embedding=embedding,
            fraction=fraction, **heads,
        )  # fmt: skip

    def _do(self, job: Job) -> None:
        """Do a job, once a process; one that failed fails again without being tried."""
        if job.key in self.finished:
            return
        if job.key in self.failed:
            raise CannotRun(self.failed[job.key])
        planned = None
        try:
            before = is_done(job, self.location, self.out)
            if not before:
                found = self.cost(job)
                planned = found.seconds if isinstance(found, Cost) else None
                if isinstance(found, Cost) and found.seconds > 3600 * self.max_hours:
                    raise CannotRun(too_long(job, found, self.machine, self.max_hours))
            source = _fetched(job)
            if source in self.absent:
                raise CannotRun(self.absent[source])
            began = time.perf_counter(), time.process_time()
            try:
                self._when_free(job)
            except WeightsError as error:
                if source is not None:
                    self.absent[source] = str(error)
                raise
        except Exception as error:
            own = (
                str(error)
                if isinstance(error, ZarrlocError)
                else f"{type(error).__name__}: {error}"
            )
            self.failed[job.key] = own
            raise
        self.finished.add(job.key)
        if not before:
            seconds = time.perf_counter() - began[0]
            cpu = time.process_time() - began[1]
            self.took.append(Took(job.kind, job.name, seconds, cpu, planned))

    def _when_free(self, job: Job) -> None:
        """Do a job once no other run is at it: that may be another table, doing the same job."""
        last = time.monotonic() + 3600 * self.max_hours
        waited = False
        while True:
            try:
                return self._carry_out(job)
            except LockedError as error:
                if time.monotonic() > last:
                    raise
                if not waited:
                    self.say(f"    waiting: {error}")
                waited = True
                time.sleep(WAIT_S)

    def _carry_out(self, job: Job) -> None:
        store, settings = self.location, job.settings
        self.say(f"    {job.kind} {job.name}")
        if job.kind == "split":
            split(store, settings, job.name)
        elif job.kind == "segment":
            if not is_done(job, store, self.out):
                config = SegmentConfig.of(settings["config"])
                table = {key: settings[key] for key in ("crop_um", "keep_percentile")}
                segment(self._path, config, job.name, run=self.run, **table)
            if job.name != self.table.cells:  # an alternative: the expert judged the same cells
                carry(store, self.table.cells, job.name)
        elif job.kind == "pretrain":
            folder = self.out / "backbones" / job.name
            code = pretrain(store, folder, settings, say=_silent)
            if code == 1:
                raise KeyboardInterrupt
            if code:
                raise CannotRun(f"its training collapsed; {folder} holds the log")
        elif job.kind == "embed":
            summary = embed(self._path, settings, job.name, run=self.run)
            if summary.exit_code:
                self.say(f"    some rows have no embedding: `zarrloc info {store.uri} --errors`")
        else:
            train(store, settings, job.name)

    @property
    def _path(self) -> str:
        return self.location.uri

    def _score(self, table: ReproduceConfig, job: Job) -> dict[str, Figure]:
        if job.kind == "train":
            given = EvaluateConfig(head=job.name, baselines=False, bootstrap=0)
            scores = evaluate(self.location, given)[table.part]["macro_f1"]
            if scores["mean"] is None:
                raise CannotRun(f"no labelled row in the {table.part} part")
            each = tuple(value for value in scores["each"] if value is not None)
            return {"macro_f1": Figure(scores["mean"], scores["sd"], each)}
        given = EvaluateConfig(
            embedding=job.name, knn=table.knn, labels=table.labels, weak=table.weak,
            baselines=False, bootstrap=0,
        )  # fmt: skip
        by_k = evaluate(self.location, given)["knn"]
        if any(scores["macro_f1"] is None for scores in by_k.values()):
            raise CannotRun(f"no cell with a label by labels: {table.labels}, weak: {table.weak}")
        return {f"k={k}": Figure(scores["macro_f1"]) for k, scores in by_k.items()}


def plan(
    file: str | Path,
    store: str | Path | Location,
    *,
    out: str | Path | None = None,
    stand_ins: str | Path | None = None,
    max_hours: float = MAX_HOURS,
) -> list[str]:
    """What `reproduce` would do, line by line: stages, time, GPU-hours, bytes. Runs nothing.

    Raises
    ------
    ConfigError, StoreError
        The file is no table, or the store has no fields.
    """
    return _open(file, store, out, stand_ins, max_hours, None, LOG.info).plan()


def reproduce(
    file: str | Path,
    store: str | Path | Location,
    *,
    out: str | Path | None = None,
    stand_ins: str | Path | None = None,
    max_hours: float = MAX_HOURS,
    sensitivity: bool = False,
    run: RunConfig | None = None,
    say: Callable[[str], None] = LOG.info,
) -> int:
    """Run a table of a paper on `store`, and write it beside the paper's figures.

    Stages are shared between rows and files, and what is done is not done again: a run that was
    killed continues. A row that cannot run says why, and the others do.

    Parameters
    ----------
    file
        The table, as `examples/paper/table1.yaml`.
    store
        A store with fields and labels.
    out
        Folder for the backbones that are trained and the tables; `<store>.reproduce` if not given.
    stand_ins
        File of small backbones to be taken instead of the paper's.
    max_hours
        The longest that one stage may take, by estimate.
    sensitivity
        Also run the alternatives to what the paper leaves open.

    Returns
    -------
    int
        0, or 3 where some rows could not run.

    Raises
    ------
    ConfigError, StoreError
        The file is no table, or the store has no fields.
    """
    what = _open(file, store, out, stand_ins, max_hours, run, say)
    for line in what.plan(sensitivity):
        say(line)
    say("")
    results = what.results(what.table)
    notes = _notes(what)
    others = _alternatives(what) if sensitivity else []
    stem = Path(file).stem
    folder = what.out / "tables"
    figure = None
    try:
        figure = draw(what.table.figure, results, what.location, folder, stem)
    except (ZarrlocError, ValueError) as error:
        notes.append(f"the figure could not be drawn: {error}")
    if what.took:
        notes.append(time_note(what.took))
    stages = [asdict(took) for took in what.took]
    written = write(folder, stem, what.table.title, results, notes, figure, stages, others)
    say("\n" + as_markdown(what.table.title, results, notes, others))
    say("written: " + ", ".join(map(str, [*written, *([figure] if figure else [])])))
    return INCOMPLETE if any(result.missing for result in results) else 0


def _open(
    file: str | Path,
    store: str | Path | Location,
    out: str | Path | None,
    stand_ins: str | Path | None,
    max_hours: float,
    run: RunConfig | None,
    say: Callable[[str], None],
) -> Reproduction:
    table = read_table(Path(file))
    given = read_stand_ins(None if stand_ins is None else Path(stand_ins))
    location = Location.of(store)
    if out is None and location.path is None:
        raise ConfigError(f"{location.uri} is no local store: say with --out where tables go")
    folder = Path(out) if out is not None else Path(f"{location.path}.reproduce")
    return Reproduction(
        with_stand_ins(table, given), location, folder.resolve(), given, max_hours, run, say
    )


def _notes(what: Reproduction) -> list[str]:
    table = what.table
    part = "the test set" if table.part == "test" else "the validation folds"
    if table.level == "cell":
        scored = f"leave-one-out neighbours of cells by {table.labels} labels"
    else:
        scored = f"mean and sd over {table.folds} folds' heads on {part}, split by {table.group}"
    notes = [
        f"measured: {scored}; `differs` is more than two sd of the difference",
        *(
            f"{name} is {getattr(table, name)}, as the stand-ins want it"
            if name in what.stand_ins.table
            else f"{name} is {getattr(table, name)}: {why}"
            for name, why in table.reasons.items()
        ),
    ]
    if what.stand_ins.backbones:
        notes.append(
            "small stand-ins took the backbones' place: orders can be compared, values not"
        )
    return notes


def _alternatives(what: Reproduction) -> list[Alternative]:
    """What the rows score with each other choice, one setting at a time."""
    found = []
    for name, value in what.choices():
        what.say(f"\n{name}: {getattr(what.table, name)} -> {value}")
        results = what.results(what.with_choice(name, value))
        found.append(Alternative(name, str(value), results))
    return found


def _silent(text: str) -> None:
    """Say nothing; a function of the module, which processes of their own can be given."""


def _without(blank: Result, reason: str) -> Result:
    return Result(blank.name, blank.paper, missing=" ".join(reason.split())[:500], note=blank.note)


def _fetched(job: Job) -> str | None:
    return fetched(job) if job.kind in ("pretrain", "embed") else None
