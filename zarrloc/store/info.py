"""Info: what a store holds, how far its stages are, what failed. Plain values, ready for JSON."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.store import objects
from zarrloc.store.columns import column_digest, read_columns
from zarrloc.store.document import groups, read_root
from zarrloc.store.location import Location
from zarrloc.store.lock import live_holder, lock_name
from zarrloc.store.next_steps import next_steps
from zarrloc.store.read import need
from zarrloc.store.remote import snapshot
from zarrloc.store.stale import Held, stale
from zarrloc.store.template import PENDING

MOST_VALUES = 12
"""A coordinate with at most this many values has them listed, with their counts."""


def info(store: str | Path, *, errors: bool = False) -> dict[str, Any]:
    """Describe a store; with `errors`, name every row that failed and why.

    Of the fields: their coordinates, labels and how many have each. Of every group: its arrays,
    settings, blocks and rows, and why it is `stale`, where it is. `next` are commands to go on.
    Raises `StoreError` where there is none, or one of a newer format.
    """
    location = Location.of(store)
    with snapshot():
        root = read_root(location)
        paths = groups(location)
        locks = objects.names(location.beside)
        described = objects.each(location, lambda path: _describe(location, path, errors), paths)
    found = {path: one for path, (one, _) in zip(paths, described, strict=True)}
    held = {path: one for path, (_, one) in zip(paths, described, strict=True)}
    for path, reasons in stale(held).items():
        found[path]["stale"] = reasons
    for path in paths:
        who = live_holder(location, path) if lock_name(path) in locks else None
        if who is not None:
            found[path]["held_by"] = str(who)
    return {
        "store": location.uri,
        "format": root["attributes"]["format"],
        "groups": found,
        "next": next_steps(location.uri, found),
    }


def known_roles(group: zarr.Group) -> dict[str, npt.NDArray[Any]]:
    """The channels' roles without a request, where they are still those of the settings."""
    attrs: Any = group.attrs
    roles = np.array(attrs["zarrloc"]["config"].get("channels", []), np.dtypes.StringDType())
    same = attrs.get("column_digests", {}).get("channel") == column_digest(roles)
    return {"channel": roles} if same else {}


def _describe(location: Location, path: str, errors: bool) -> tuple[dict[str, Any], Held]:
    group = need(location, path, "ingest")
    texts = _texts(group) if path == "fovs" else []
    further = {
        "fovs": ["channel", "grade", *texts],
        "segmentations": ["block_input"],
        "cells": ["fov_index"],
        "embeddings": ["block_input", "fov_index"],
        "splits": ["fold"],
        "heads": ["row_fold", "fov_index"],
    }
    wanted = ("label", "block_output", "block_bytes", "error", *(["fov"] * errors))
    names = dict.fromkeys((*wanted, *further.get(path.split("/")[0], ())))
    held = known_roles(group) if path == "fovs" else {}
    held |= read_columns(group, [name for name in names if name in group and name not in held])
    attrs: dict[str, Any] = dict(group.attrs)
    stage = attrs.get("zarrloc", {})
    arrays = {
        name: {
            "dims": list(array.metadata.dimension_names or ()),  # type: ignore[union-attr]
            "shape": list(array.shape),
            "dtype": "string" if array.dtype.kind == "T" else array.dtype.name,
        }
        for name, array in sorted(group.arrays())
    }
    described: dict[str, Any] = {
        "stage": stage.get("stage"),
        "config": stage.get("config", {}),
        "fingerprint": stage.get("fingerprint"),
        "execution": stage.get("execution", {}),
        "versions": stage.get("versions", {}),
        "arrays": arrays,
    }
    for name in ("pixel_size_um", "shard_fovs", "block_cells"):
        if name in attrs:
            described[name] = attrs[name]
    if "channel" in held:
        described["channels"] = list(map(str, held["channel"]))
    if "label" in held:
        described["labels"] = list(map(str, held["label"]))
    if "block_output" in held:
        output = held["block_output"]
        described["blocks"] = {"total": len(output), "done": int((output != 0).sum())}
        described["bytes"] = int(held["block_bytes"].sum())
    if "error" in held:
        described["rows"] = _rows(held, errors)
    if path == "fovs":
        described["coords"] = _coords({name: held[name] for name in texts})
    if path == "fovs" and "grade" in held:
        grade = held["grade"]
        described["labelled"] = int((grade > 0).any(axis=1).sum())
        described["label_counts"] = {
            label: {str(level): int((column == level).sum()) for level in (3, 2, 1)}
            for label, column in zip(described["labels"], grade.T, strict=True)
        }
    dims = {
        name: tuple(zip(array["dims"], array["shape"], strict=True))
        for name, array in arrays.items()
    }
    return described, Held(attrs, dims, held)


def _texts(group: zarr.Group) -> list[str]:
    """Coordinates of the fields that are text, but for names, addresses and errors.

    What goes with the protein's name is left out, too: each costs a request.
    """
    return [
        name
        for name, array in sorted(group.arrays())
        if array.dtype.kind == "T"
        and array.metadata.dimension_names == ("fov",)  # type: ignore[union-attr]
        and name not in ("fov", "source", "error", "ensg", "cell_line")
    ]


def _coords(texts: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """How many values each has and of how many fields; each value's fields, where they are few."""
    found = {}
    for name, values in texts.items():
        counts = Counter(str(value) for value in values.tolist() if str(value))
        if counts:
            found[name] = {
                "values": len(counts),
                "fields": counts.total(),
                "counts": dict(sorted(counts.items())) if len(counts) <= MOST_VALUES else {},
            }
    return found


def _rows(held: Mapping[str, npt.NDArray[Any]], errors: bool) -> dict[str, Any]:
    error = held["error"]
    pending, failed = error == PENDING, (error != "") & (error != PENDING)
    rows: dict[str, Any] = {
        "total": len(error),
        "failed": int(failed.sum()),
        "pending": int(pending.sum()),
    }
    if errors:
        names = held.get("fov", np.arange(len(error)))
        rows["errors"] = [
            {"row": int(row), "fov": str(names[row]), "error": str(error[row])}
            for row in np.flatnonzero(failed)
        ]
    return rows


def lines(described: dict[str, Any]) -> list[str]:
    """The same, as lines of text."""
    text = [f"{described['store']} (format {described['format']})"]
    for path, group in described["groups"].items():
        grid = [
            f"{name} ({', '.join(f'{d} {n}' for d, n in zip(a['dims'], a['shape'], strict=True))})"
            for name, a in group["arrays"].items()
            if name in ("image", "mask", "area_px", "embedding", "probability", "fold", "grade")
        ]
        text.append(f"{path}: {'; '.join(grid)}")
        if "blocks" in group:
            text.append(
                f"  {group['blocks']['done']} of {group['blocks']['total']} blocks done, "
                f"{group['bytes'] / 1e6:.1f} MB stored"
            )
        if "rows" in group and (group["rows"]["failed"] or group["rows"]["pending"]):
            text.append(
                f"  {group['rows']['failed']} rows failed, {group['rows']['pending']} pending"
            )
        text += [f"    {e['fov']}: {e['error']}" for e in group.get("rows", {}).get("errors", ())]
        settings = ", ".join(
            f"{k} {v}"
            for k, v in group["config"].items()
            if v not in (None, "") and not isinstance(v, Mapping)
        )
        text.append(f"  {settings}")
        text += [f"  STALE: {reason}" for reason in group.get("stale", ())]
        if "held_by" in group:
            text.append(f"  being written by {group['held_by']}")
        if path == "fovs":
            text += _facts(group)
    return [*text, "next:", *(f"  {step}" for step in described["next"])]


def _facts(fovs: Mapping[str, Any]) -> list[str]:
    """What is known of the fields beside their pixels."""
    size = fovs.get("pixel_size_um")
    text = [
        f"  channels: {', '.join(fovs['channels'])}",
        f"  pixel size: {'not known' if size is None else f'{size} um'}",
    ]
    rows = fovs["rows"]["total"]
    for name, coord in fovs["coords"].items():
        counts = ", ".join(f"{value} ({n})" for value, n in coord["counts"].items())
        some = "" if coord["fields"] == rows else f", {rows - coord['fields']} fields without"
        text.append(f"  {name}: {coord['values']} values{some}{': ' * bool(counts)}{counts}")
    if "label_counts" in fovs:
        counts = ", ".join(
            f"{label} ({n['3']}{f' + {weak} weak' if (weak := n['2'] + n['1']) else ''})"
            for label, n in fovs["label_counts"].items()
        )
        text.append(f"  labels: {fovs['labelled']} of {rows} fields have some: {counts}")
    else:
        text.append("  labels: none")
    return text
