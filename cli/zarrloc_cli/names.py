"""Tab completion: names that are in the store that the command line has so far."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

KIND = {
    "embedding": "embeddings",
    "cells": "cells",
    "segmentation": "segmentations",
    "split": "splits",
}
"""Option -> the kind of group whose names it takes."""

MADE = {"segment": "segmentations", "embed": "embeddings", "split": "splits", "train": "heads"}
"""Command -> the kind of group that its `--name` names: one that is there is continued."""

WORDS = {
    "cluster": ("auto", "cuda", "local", "serial", "slurm"),
    "device": ("auto", "cpu", "cuda"),
    "exclude_same": ("auto", "fov", "none"),
    "group": ("auto", "image"),
    "grow": ("none",),
    "model": ("cpsam", "cyto2", "cyto3", "nuclei", "watershed"),
}
"""Option -> words that it takes, beside what the store has."""

KINDS = ("segmentations", "cells", "embeddings", "splits", "heads")


def completer(option: str, command: str = "") -> Complete | None:
    """The completion for an option's value; None if there is none."""
    if option in KIND:
        return lambda ctx, _, begun: _items(_names(_store(ctx), KIND[option]), begun)
    if option in WORDS:
        return lambda ctx, _, begun: _words(ctx, option, begun)
    return {
        "head": _heads,
        "name": _own_names,
        "target": lambda ctx, _, begun: _items(_coordinates(ctx), begun),
        "what": _groups,
        "channels": _channels,
        "backbone": _backbones,
        "start": _backbones,
        "protein": _proteins,
        "store": _folders,
    }.get(option)


def _items(names: list[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _store(ctx: click.Context) -> Path | None:
    # Behind an option that still lacks its value, click has left the arguments as they came.
    given = ctx.params.get("store") or next(iter(ctx.args), None)
    return Path(given).expanduser() if given and "://" not in str(given) else None


def _names(store: Path | None, kind: str) -> list[str]:
    """Names of the groups of a kind, by the store's folders: nothing heavy is loaded."""
    if store is None or not (store / kind).is_dir():
        return []
    with os.scandir(store / kind) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.endswith("~next"))


def _heads(ctx: click.Context, _: Any, begun: str) -> list[CompletionItem]:
    if ctx.info_name != "predict":
        return _items(_names(_store(ctx), "heads"), begun)
    store = Path(begun.partition("/heads")[0])
    return _items([f"{store}/heads/{name}" for name in _names(store, "heads")], begun)


def _groups(ctx: click.Context, _: Any, begun: str) -> list[CompletionItem]:
    store = _store(ctx)
    found = [f"{kind}/{name}" for kind in KINDS for name in _names(store, kind)]
    return _items(["fovs", *found], begun)


def _own_names(ctx: click.Context, _: Any, begun: str) -> list[CompletionItem]:
    kind = MADE.get(ctx.info_name or "")
    return _items(_names(_store(ctx), kind), begun) if kind else []


def _words(ctx: click.Context, option: str, begun: str) -> list[CompletionItem]:
    found = list(WORDS[option])
    if option in ("exclude_same", "group"):
        found += _coordinates(ctx)
    if option == "grow":
        found += _column(ctx, "channel")
    paths = [CompletionItem(begun, type="file")] if option in ("cluster", "model") else []
    return [*_items(found, begun), *paths]


def _coordinates(ctx: click.Context) -> list[str]:
    """Names of the texts that stand beside the fields, such as protein, well, condition."""
    store = _store(ctx)
    found = []
    for file in sorted((store / "fovs").glob("*/zarr.json")) if store is not None else ():
        told = json.loads(file.read_text(encoding="utf-8"))
        text = told.get("data_type") == "string" and told.get("dimension_names") == ["fov"]
        if text and file.parent.name not in ("fov", "source", "error"):
            found.append(file.parent.name)
    return found


def _channels(ctx: click.Context, __: Any, begun: str) -> list[CompletionItem]:
    before, mark, _ = begun.rpartition(",")
    roles = [role for role in _column(ctx, "channel") if role not in before.split(",")]
    return _items([before + mark + role for role in roles], begun)


def _proteins(ctx: click.Context, _: Any, begun: str) -> list[CompletionItem]:
    return _items(sorted(set(_column(ctx, "protein")) - {""}), begun)


def _column(ctx: click.Context, name: str) -> list[str]:
    store = _store(ctx)
    if store is None or not (store / "fovs" / name).is_dir():
        return []
    from zarrloc.errors import ZarrlocError
    from zarrloc.store.columns import read_column
    from zarrloc.store.location import Location

    try:
        return [str(v) for v in read_column(Location.of(store).group("fovs", mode="r"), name)]
    except (ZarrlocError, OSError):
        return []


def _backbones(_: click.Context, __: Any, begun: str) -> list[CompletionItem]:
    from zarrloc.models.specs import SPECS

    return [*_items(sorted(SPECS), begun), CompletionItem(begun, type="dir")]


def _folders(_: click.Context, __: Any, begun: str) -> list[CompletionItem]:
    return [CompletionItem(begun, type="dir")]
