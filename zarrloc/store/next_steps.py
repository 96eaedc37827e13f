"""What can be done next with a store, as commands; from what `info` describes."""

from collections.abc import Iterator, Mapping
from typing import Any

NO_TARGETS = frozenset({"protein", "ensg", "cell_line", "plate", "well", "site"})
"""Coordinates that say where a field comes from, not what was done to it."""


def next_steps(store: str, groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line a step: what for, and the command."""
    return list(_steps(store, groups))


def _steps(store: str, groups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    fovs = groups.get("fovs")
    if fovs is None:
        yield f"read images: zarrloc ingest SOURCE {store}"
        return
    for path, group in groups.items():
        blocks = group.get("blocks", {"total": 0, "done": 0})
        if blocks["done"] < blocks["total"]:
            yield f"finish {path}: the command that began it continues"
    failed = sum(group.get("rows", {}).get("failed", 0) for group in groups.values())
    if failed:
        yield f"see what failed, and why: zarrloc info {store} --errors"
    if fovs.get("pixel_size_um") is None:
        yield f"say how large a pixel is: zarrloc annotate {store} --pixel-size-um X"
    labels, target = fovs.get("labels", []), _target(fovs)
    if not labels and target is None:
        yield (
            f"say what fields show or what was done to them: zarrloc annotate {store} --labels "
            "TABLE, or --conditions TABLE"
        )
    yield from _learning(store, groups, "" if labels or not target else f" --target {target}",
                         bool(labels or target))  # fmt: skip


def _learning(
    store: str, groups: Mapping[str, Mapping[str, Any]], target: str, known: bool
) -> Iterator[str]:
    def names(kind: str) -> list[str]:
        return [path.split("/")[1] for path in groups if path.startswith(f"{kind}/")]

    embeddings, splits, heads = names("embeddings"), names("splits"), names("heads")
    if not names("segmentations"):
        yield f"find single cells: zarrloc segment {store} --model watershed --name ws"
    if not embeddings:
        yield f"make features: zarrloc embed {store} --backbone dino-vits8 --name dino"
        return
    if known and not splits:
        yield f"make folds: zarrloc split {store} --name honest{target}"
    if known and splits and not heads:
        yield (
            f"learn: zarrloc train {store} --embedding {embeddings[0]} --split {splits[0]} "
            f"--name head{target}"
        )
    if heads:
        yield f"score a head: zarrloc evaluate {store} --head {heads[0]}"
    yield f"see it all: zarrloc report {store} --out report.html"


def _target(fovs: Mapping[str, Any]) -> str | None:
    """A coordinate that could be learnt: several classes, of several fields."""
    for name, coord in fovs.get("coords", {}).items():
        if name not in NO_TARGETS and 2 <= coord["values"] < coord["fields"]:
            return str(name)
    return None
