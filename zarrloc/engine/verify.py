"""Verify: is the store what its receipts say, and if not, which blocks have to be done again."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zarrloc.engine.block import object_key, output_digest, stored_bytes
from zarrloc.engine.ledger import Ledger
from zarrloc.engine.run import new_run_id
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.template import (
    StageAttrs,
    array_of,
    check_store,
    commit,
    groups,
    need,
    read_column,
    stage_attrs,
)


@dataclass
class Finding:
    """What was found in one stage's group."""

    group: str
    blocks: int
    undone: int
    bad: dict[int, str] = field(default_factory=dict)
    """Block -> what is wrong with it."""
    debris: list[str] = field(default_factory=list)
    """Left-over files of killed writes, and objects that belong to no block."""


def verify(store: str | Path, *, deep: bool = False, repair: bool = False) -> list[Finding]:
    """Compare every stage's stored objects with their receipts.

    Names and sizes always; with `deep` every block is decoded and its digest compared. With
    `repair`, bad blocks are marked as not done, so that the stage's next run does them again, and
    debris is removed. Raises `StoreError` without a store, `LockedError` while a stage is written.
    """
    location = Location.of(store)
    check_store(location)
    found = []
    for path in groups(location):
        group = need(location, path, "ingest")
        if "block_output" not in group:
            continue
        if repair:
            with hold(location, path, new_run_id()):
                finding = _verify_group(location, path, group, deep)
                _repair(location, finding, stage_attrs(group).block_rows)
        else:
            finding = _verify_group(location, path, group, deep)
        found.append(finding)
    return found


def _verify_group(location: Location, path: str, group: zarr.Group, deep: bool) -> Finding:
    output = read_column(group, "block_output")
    sizes = read_column(group, "block_bytes")
    attrs = stage_attrs(group)
    finding = Finding(path, len(output), int((output == 0).sum()), debris=_debris(location, path))
    array = None if attrs.array is None else array_of(group, attrs.array)
    if array is not None:
        finding.debris += _strangers(location, array, len(output))
    for block in np.flatnonzero(output):
        if array is not None:
            there = stored_bytes(array, int(block))
            if there != int(sizes[block]):
                finding.bad[int(block)] = (
                    f"its object has {there} bytes, its receipt says {sizes[block]}"
                    if there
                    else "its object is missing"
                )
                continue
        if deep:
            problem = _decode(group, attrs, int(block), int(output[block]))
            if problem:
                finding.bad[int(block)] = problem
    return finding


def _decode(group: zarr.Group, attrs: StageAttrs, block: int, expected: int) -> str:
    name = attrs.array
    start, stop = block * attrs.block_rows, (block + 1) * attrs.block_rows
    try:
        columns = {column: read_column(group, column, stop, start) for column in attrs.digested}
        array = None if name is None else read_column(group, name, stop, start)
    except Exception as error:  # codecs raise what they like on damaged bytes
        return f"it cannot be decoded: {type(error).__name__}: {error}"
    if output_digest(name, array, columns) != expected:
        return "its values differ from its receipt's digest"
    return ""


def _debris(location: Location, path: str) -> list[str]:
    if location.path is None:
        return []
    return sorted(str(file) for file in (location.path / path).rglob("*.partial"))


def _strangers(location: Location, array: zarr.Array[Any], blocks: int) -> list[str]:
    """Objects under the array that no block of it writes."""
    if location.path is None:
        return []
    folder = location.path / array.path
    known = {folder / key for key in map(partial(object_key, array), range(blocks))}
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(
        str(file)
        for file in files
        if file not in known and file.name != "zarr.json" and file.suffix != ".partial"
    )


def _repair(location: Location, finding: Finding, block_rows: int) -> None:
    for file in finding.debris:
        Path(file).unlink(missing_ok=True)
    if finding.bad:
        rows = len(read_column(location.group(finding.group), "error"))
        Ledger(location, finding.group, ("error",), rows, block_rows).forget(finding.bad)
        commit(location, finding.group)
