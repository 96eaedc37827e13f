"""What in a store no longer fits what it was made from, and why; from attributes and columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.store.attrs import CHANNEL_OF, WINDOW_UM
from zarrloc.store.columns import column_digest
from zarrloc.store.digest import combine

COPIED = ("protein", "ensg", "cell_line")
"""Coordinates of the fields that masks, cells and embeddings hold, too."""

AGAIN = "the same command brings it up to date"
REMAKE = "make it again with --overwrite, or under another --name"


@dataclass(frozen=True)
class Held:
    """One group: its attributes, the shapes of its arrays by name, and some of its columns."""

    attrs: Mapping[str, Any]
    dims: Mapping[str, tuple[tuple[str, int], ...]]
    columns: Mapping[str, npt.NDArray[Any]]

    @property
    def stage(self) -> Mapping[str, Any]:
        """How it was made."""
        found: Mapping[str, Any] = self.attrs.get("zarrloc", {})
        return found

    def rows(self, dim: str) -> int | None:
        """How many fields, or cells, it knows; None where it is not of these."""
        found = [dict(dims)[dim] for dims in self.dims.values() if dims and dims[0][0] == dim]
        return max(found, default=None)


def stale(groups: Mapping[str, Held]) -> dict[str, list[str]]:
    """Why each group that is stale is so, in the order of the store."""
    found: dict[str, list[str]] = {}
    for path, group in groups.items():
        reasons = list(dict.fromkeys(_reasons(path, group, groups)))
        on = [name for name in group.stage.get("inputs", {}) if name in found]
        reasons += [f"it stands on {name}, which is stale" for name in on if not reasons]
        if reasons:
            found[path] = reasons
    return found


def _reasons(path: str, group: Held, groups: Mapping[str, Held]) -> Iterator[str]:
    fovs = groups.get("fovs")
    if fovs is None or path == "fovs":
        return
    for name, made_from in group.stage.get("inputs", {}).items():
        if name != "fovs" and "/" not in name:
            continue
        if name not in groups:
            yield f"{name}, which it was made from, is gone"
        elif groups[name].stage.get("fingerprint") != made_from:
            yield f"{name}, which it was made from, was made again with other settings; {REMAKE}"
    yield from _too_few(group, groups)
    yield from _other_pixels(path, group, fovs)
    yield from _other_facts(group, groups)


def _too_few(group: Held, groups: Mapping[str, Held]) -> Iterator[str]:
    """Rows that came after it."""
    whole = [(groups["fovs"], "fov", "fields")]
    whole += [
        (groups[name], "cell", "cells")
        for name in group.stage.get("inputs", {})
        if name.startswith("cells/") and name in groups
    ]
    for of, dim, word in whole:
        mine, all_of_them = group.rows(dim), of.rows(dim)
        if mine is not None and all_of_them is not None and mine != all_of_them:
            how = REMAKE if group.stage.get("stage") in ("split", "train") else AGAIN
            yield f"it knows {mine} of {all_of_them} {word}; {how}"


def _other_pixels(path: str, group: Held, fovs: Held) -> Iterator[str]:
    """Fields whose images changed since, block by block."""
    if not path.startswith(("segmentations/", "embeddings/")) or group.rows("cell") is not None:
        return
    made, output = group.columns.get("block_input"), fovs.columns.get("block_output")
    if made is None or output is None or len(made) != len(output):
        return
    done = group.columns["block_output"] != 0
    now = [combine([group.stage["fingerprint"], int(one)]) for one in output]
    changed = int((done & (made != np.array(now, np.uint64))).sum())
    if changed:
        yield f"the images of {changed} of its {len(made)} blocks changed; {AGAIN}"


def _other_facts(group: Held, groups: Mapping[str, Held]) -> Iterator[str]:
    """Facts that it depends on: pixel size, channels, labels or a target, names, the split."""
    fovs, config = groups["fovs"], group.stage.get("config", {})
    size = fovs.attrs.get("pixel_size_um")
    if "pixel_size_um" in config and config["pixel_size_um"] != size:
        then = config["pixel_size_um"]
        yield f"it was made at {then} um a pixel, now they are {size} um; {REMAKE}"
    yield from _other_window(group, size)
    yield from _other_channels(group, groups)
    if learnt_from := group.attrs.get("labels_digest"):
        name = config.get("target") or "grade"
        if fovs.attrs.get("column_digests", {}).get(name) != learnt_from:
            what = "labels" if name == "grade" else f"coordinate '{name}'"
            yield f"the {what} of the fields changed since it was trained; {REMAKE}"
    yield from _other_columns(group, fovs)
    split = groups.get(f"splits/{config.get('split')}")
    own = group.columns.get("row_fold")
    if split is not None and own is not None:
        fold, of = split.columns["fold"], group.columns.get("fov_index")
        known = of is None or (len(of) > 0 and int(of.max()) < len(fold))
        now = fold if of is None else fold[of] if known else None
        if now is not None and len(now) == len(own) and not np.array_equal(now, own):
            yield f"split '{config['split']}' was made again since; {REMAKE}"


def _how(group: Held) -> str:
    """What brings it up to date: masks and their table are made again by the same command."""
    return AGAIN if group.stage.get("stage") in ("segment", "cells") else REMAKE


def _other_window(group: Held, size: float | None) -> Iterator[str]:
    """Windows that were to be so many micrometres wide, and are not: of even px, within one."""
    config = group.stage.get("config", {})
    window, um = config.get("window_px"), config.get(WINDOW_UM)
    if window and um and size and abs(window * size - um) > size * (1 + 1e-9):
        yield (
            f"its windows of {window} px are {window * size:.3g} um since the size of a pixel "
            f"changed, and were to be {um:g} um; {_how(group)}"
        )


def _other_channels(group: Held, groups: Mapping[str, Held]) -> Iterator[str]:
    """Roles that moved to other channels since, and names of channels that it holds."""
    now = list(map(str, groups["fovs"].columns.get("channel", ())))
    read = group.stage.get("config", {}).get(CHANNEL_OF, {})
    for role, channel in read.items():
        if role in now and now.index(role) != channel:
            yield (
                f"it read channel {channel + 1} as {role}, which is channel {now.index(role) + 1} "
                f"now; {_how(group)}"
            )
    learnt = group.attrs.get("embedding", {}).get(CHANNEL_OF)
    made_from = [groups[name] for name in group.stage.get("inputs", {}) if name in groups]
    if learnt and any(one.stage["config"].get(CHANNEL_OF, learnt) != learnt for one in made_from):
        yield f"the embedding was made from other channels since; {REMAKE}"
    if _differ("channel", group, groups["fovs"]):
        yield f"the channels were renamed since; {AGAIN}"


def _other_columns(group: Held, fovs: Held) -> Iterator[str]:
    """Coordinates that it was made by, or holds a copy of, and that changed since."""
    if group.rows("fov") not in (None, fovs.rows("fov")):
        return  # new fields bring new values, and are reported elsewhere
    digests = fovs.attrs.get("column_digests", {})
    for name, before in group.attrs.get("made_by", {}).items():
        if digests.get(name, before) != before:
            yield f"the fields' coordinate '{name}' changed since the folds were dealt; {REMAKE}"
    of = group.columns.get("fov_index")
    for name in COPIED:
        if group.rows("cell") is None:
            other = _differ(name, group, fovs)
        elif of is None or name not in fovs.columns or not len(of):
            continue
        else:
            own, values = group.attrs.get("column_digests", {}).get(name), fovs.columns[name]
            known = own is not None and int(of.max()) < len(values)
            other = known and column_digest(values[of]) != own
        if other:
            yield f"the fields' coordinate '{name}' changed, and it holds a copy; {AGAIN}"


def _differ(name: str, one: Held, other: Held) -> bool:
    """Whether both hold this column, with other values."""
    digests = [held.attrs.get("column_digests", {}).get(name) for held in (one, other)]
    return None not in digests and digests[0] != digests[1]
