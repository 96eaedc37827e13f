"""Annotate: change what a store says beside its pixels, in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zarrloc.engine.plan import Before, Plan, carry_out
from zarrloc.errors import ConfigError
from zarrloc.groups.fovs import GROUP
from zarrloc.images.roles import role_of
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location
from zarrloc.store.read import need
from zarrloc.store.template import Variable


@dataclass(frozen=True)
class AnnotateSummary:
    """What changed, each as `name: before -> after`."""

    changes: list[str] = field(default_factory=list)
    exit_code: int = 0

    def lines(self) -> list[str]:
        """For a terminal."""
        return self.changes or ["nothing to do: the store says so already"]


def annotate(
    store: str | Path | Location,
    *,
    pixel_size_um: float | None = None,
    channels: Sequence[str] = (),
) -> AnnotateSummary:
    """Set the pixel size or the channels' roles of a store, whose pixels stay as they are.

    Images, masks and embeddings stay valid, unless they were made by this very fact: a cell table
    whose window was given in micrometres, an embedding of size `um:...`.

    Parameters
    ----------
    store
        Path or address of the store.
    pixel_size_um
        Side of a pixel in micrometres.
    channels
        A role for each channel, in their order, such as `["nucleus", "protein"]`.

    Raises
    ------
    ConfigError
        Where nothing is given, the pixel size is not positive, or the roles are not one for each
        channel, all different.
    StoreError
        Where there is no store.
    LockedError
        While it is being ingested into.

    Examples
    --------
    >>> annotate("my.zarr", pixel_size_um=0.325).changes  # doctest: +SKIP
    ['pixel_size_um: None -> 0.325']
    """
    location = Location.of(store)
    need(location, GROUP, "ingest SOURCE STORE")
    if pixel_size_um is None and not channels:
        raise ConfigError("nothing to change: give pixel_size_um, channels, or both")
    if pixel_size_um is not None and not 0 < pixel_size_um < float("inf"):
        raise ConfigError(f"pixel_size_um is {pixel_size_um}; expected a positive number")
    roles = [role_of(name) for name in channels]
    changes: list[str] = []

    def make(before: Before) -> Plan:
        assert before.group is not None, "the fields were there before the lock"
        assert before.attrs is not None
        attrs: StageAttrs = before.attrs
        template, coords, about = {}, {}, {}
        if roles:
            had = [str(role) for role in before.column("channel")]  # type: ignore[union-attr]
            if len(roles) != len(had) or len(set(roles)) != len(roles) or "" in roles:
                raise ConfigError(
                    f"channels {', '.join(channels)} for {len(had)} channels ({', '.join(had)}); "
                    "expected a different role for each"
                )
            if roles != had:
                changes.append(f"channels: {', '.join(had)} -> {', '.join(roles)}")
                coords["channel"] = np.array(roles, np.dtypes.StringDType())
                template["channel"] = Variable.like(("channel",), coords["channel"])
        size: Any = before.group.attrs["pixel_size_um"]
        if pixel_size_um is not None and pixel_size_um != size:
            changes.append(f"pixel_size_um: {size} -> {pixel_size_um}")
            about["pixel_size_um"] = pixel_size_um
        return Plan(attrs, template, coords, about=about)

    carry_out(location, GROUP, make)
    return AnnotateSummary(changes)
