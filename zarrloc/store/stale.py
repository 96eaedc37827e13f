"""What in a store no longer fits what it was made from, and why; from attributes and columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.store.digest import combine

AGAIN = "the same command brings it up to date"
ANEW = "make it again with --overwrite, or under another --name"


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
            yield f"{name}, which it was made from, was made anew with other settings; {ANEW}"
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
            how = ANEW if group.stage.get("stage") in ("split", "train") else AGAIN
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
    """Facts beside the pixels that it depends on: pixel size, labels or a target, the split."""
    fovs, config = groups["fovs"], group.stage.get("config", {})
    size = fovs.attrs.get("pixel_size_um")
    if "pixel_size_um" in config and config["pixel_size_um"] != size:
        yield f"it was made at {config['pixel_size_um']} um a pixel, now they are {size} um; {ANEW}"
    if learnt_from := group.attrs.get("labels_digest"):
        name = config.get("target") or "grade"
        if fovs.attrs.get("column_digests", {}).get(name) != learnt_from:
            what = "labels" if name == "grade" else f"coordinate '{name}'"
            yield f"the {what} of the fields changed since it was trained; {ANEW}"
    split = groups.get(f"splits/{config.get('split')}")
    own = group.columns.get("row_fold")
    if split is not None and own is not None:
        fold, of = split.columns["fold"], group.columns.get("fov_index")
        known = of is None or (len(of) > 0 and int(of.max()) < len(fold))
        now = fold if of is None else fold[of] if known else None
        if now is not None and len(now) == len(own) and not np.array_equal(now, own):
            yield f"split '{config['split']}' was made anew since; {ANEW}"
