"""Info: what a store holds, how far its stages are, what failed. Plain values, ready for JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.store import objects
from zarrloc.store.columns import read_columns
from zarrloc.store.document import groups, read_root
from zarrloc.store.location import Location
from zarrloc.store.lock import live_holder, lock_name
from zarrloc.store.read import need
from zarrloc.store.remote import snapshot
from zarrloc.store.template import PENDING


def info(store: str | Path, *, errors: bool = False) -> dict[str, Any]:
    """Describe a store; with `errors`, name every row that failed and why.

    Raises `StoreError` where there is none, or one of a newer format.
    """
    location = Location.of(store)
    with snapshot():
        root = read_root(location)
        paths = groups(location)
        locks = objects.names(location.beside)
        described = objects.each(location, lambda path: _describe(location, path, errors), paths)
    found = dict(zip(paths, described, strict=True))
    for path in paths:
        who = live_holder(location, path) if lock_name(path) in locks else None
        if who is not None:
            found[path]["held_by"] = str(who)
    return {"store": location.uri, "format": root["attributes"]["format"], "groups": found}


def _describe(location: Location, path: str, errors: bool) -> dict[str, Any]:
    group = need(location, path, "ingest")
    wanted = ("channel", "label", "block_output", "block_bytes", "error", *(["fov"] * errors))
    held = read_columns(group, [name for name in wanted if name in group])
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
    return described


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
    """The same for people."""
    text = [f"{described['store']} (format {described['format']})"]
    for path, group in described["groups"].items():
        grid = [
            f"{name} ({', '.join(f'{d} {n}' for d, n in zip(a['dims'], a['shape'], strict=True))})"
            for name, a in group["arrays"].items()
            if name in ("image", "mask", "embedding", "probability", "fold", "grade")
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
        if "held_by" in group:
            text.append(f"  being written by {group['held_by']}")
    return text
