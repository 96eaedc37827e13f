"""One way from a stage's plan to its group, followed once from top to bottom.

Take the lock, read under it what stands there, refuse other settings, allocate or grow
(allocate.py), run the blocks whose input changed (drive.py), commit, and release.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from zarrloc.config.run import RunConfig
from zarrloc.engine.allocate import prepare, unchanged
from zarrloc.engine.cluster import Cluster
from zarrloc.engine.drive import all_done, drive, in_motion, todo_of
from zarrloc.engine.ledger import Ledger
from zarrloc.engine.plan import AnyPlan, Before, Outcome, refuse_other_settings
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.store import document, retry
from zarrloc.store.columns import OnDemand
from zarrloc.store.document import NEXT, State
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.remote import present, snapshot


def carry_out(
    location: Location,
    path: str,
    make: Callable[[Before], AnyPlan],
    run: RunConfig | Cluster | None = None,
    *,
    overwrite: bool = False,
    creates: bool = False,
) -> Outcome:
    """Make group `path` what the plan says, and commit it.

    `make` is called under the lock with what stands there, and says what the group is and how a
    block of it is made. With `overwrite` a committed group stays until its successor, made beside
    it, is complete. `creates` makes the store, too. A `Cluster` in the place of `run` is left
    running, for the next plan.

    Raises
    ------
    ConfigError
        Where the name stands for a group of other settings.
    StoreError
        Where the store, the group or what `make` reads is damaged or absent.
    LockedError
        Where another run holds the group.
    """
    with snapshot():
        if creates:
            document.check_target(location)
        else:
            document.read_root(location)
        if location.path is None and not overwrite:
            settings = run.run if isinstance(run, Cluster) else run
            done = _nothing_to_do(location, path, make, settings or RunConfig())
            if done is not None:
                return done
    document.need_writable(location)
    with present(), hold(location, path, new_run_id()) as token:
        target, there, plan = _target(location, path, make, overwrite)
        document.ensure_root(location)
        found, changed = prepare(location, target, plan, there)
        if plan.work is None:
            summary, columns = Summary(path, 0, 0), dict(plan.coords)
        else:
            with retry.patient(), ExitStack() as stack:
                if not isinstance(run, Cluster):
                    run = stack.enter_context(Cluster(run))
                summary, ledger = drive(location, target, found, plan, there, run, token)
            summary.group, columns = path, ledger.columns
        if target != path and not summary.failures:
            document.switch(location, path)
    return Outcome(summary, columns, changed or bool(summary.blocks_run))


def complete(location: Location, path: str) -> None:
    """Put the group in its place where a run was killed in its last step.

    For a stage that has to read its own group before `carry_out`. Raises `LockedError`.
    """
    if document.is_half_switched(location, path):
        with hold(location, path, new_run_id()):
            document.finish_switch(location, path)


def _nothing_to_do(
    location: Location, path: str, make: Callable[[Before], AnyPlan], run: RunConfig
) -> Outcome | None:
    """The outcome where all is done already, found without a lease and without a write.

    In an object store the lease and the many looks at metadata cost seconds; here each object is
    fetched once. None where there is work, or may be.
    """
    if not document.is_store(location):
        return None
    before = _before(location, path)
    if before.group is None or before.attrs is None:
        return None
    plan = make(before)
    if plan.rebuild or not plan.attrs.reads_as(before.attrs):
        return None
    refuse_other_settings(path, before.attrs, plan.attrs)
    found = unchanged(location, path, plan)
    if found is None:
        return None
    if plan.work is None:
        return Outcome(Summary(path, 0, 0), dict(plan.coords), made=False)
    if in_motion(found, plan):
        return None
    ledger = Ledger.glance(before.group, plan.rows, plan.attrs.block_rows)
    if todo_of(ledger, plan, run):
        return None
    return Outcome(all_done(path, ledger), OnDemand(before.group, plan.from_workers), made=False)


class Target(NamedTuple):
    """Where a plan is carried out."""

    path: str
    """The group itself, or `<path>~next` beside it, which takes its place when it is complete."""
    there: Before
    plan: AnyPlan


def _target(
    location: Location, path: str, make: Callable[[Before], AnyPlan], overwrite: bool
) -> Target:
    """Where the plan goes, read under the lock; refuses a group of other settings."""
    before = Before()
    if document.is_store(location):
        document.finish_switch(location, path)
        before = _before(location, path)
    if overwrite and before.group is not None:
        return _begun(location, path + NEXT, make)
    plan = make(before)
    if plan.rebuild and before.group is not None:
        return Target(path + NEXT, Before(), plan)
    if before.attrs is not None:
        refuse_other_settings(path, before.attrs, plan.attrs)
        if not plan.attrs.reads_as(before.attrs):  # roles moved to other channels
            return _begun(location, path + NEXT, make)
    return Target(path, before, plan)


def _begun(location: Location, path: str, make: Callable[[Before], AnyPlan]) -> Target:
    """A group made beside another, with what a killed run left of it, if it fits."""
    plan, waiting = make(Before()), _before(location, path)
    if waiting.attrs is None or waiting.attrs.fingerprint != plan.attrs.fingerprint:
        return Target(path, Before(), plan)
    if not waiting.attrs.reads_as(plan.attrs):
        return Target(path, Before(), plan)
    return Target(path, waiting, make(waiting))


def _before(location: Location, path: str) -> Before:
    found = document.readable(location, document.look(location, path))
    if found.state is not State.COMMITTED or found.document is None:
        return Before()
    return Before(location.group(path, mode="r"), found.document.stage)
