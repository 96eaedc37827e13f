"""What `verify --repair` does to a group: debris goes, columns are rebuilt, bad blocks undone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zarrloc.engine.block import object_key, stored_bytes
from zarrloc.engine.checks import SIZES, Column, Finding, copy_of, readable
from zarrloc.errors import RemoteError
from zarrloc.store import document, objects
from zarrloc.store.columns import array_of, put_columns
from zarrloc.store.document import Document
from zarrloc.store.location import Location
from zarrloc.store.template import Variable


def repair_group(
    location: Location, path: str, whole: Document, group: zarr.Group, finding: Finding
) -> None:
    for file in finding.debris:
        Path(file).unlink(missing_ok=True)
    columns = dict(_rebuilt(location, group, whole, finding))
    if finding.bad:
        output = columns.get("block_output", readable(group, "block_output"))
        output[list(finding.bad)] = 0
        columns["block_output"] = output
        if whole.stage.array is not None:
            _remove_objects(location, array_of(group, whole.stage.array), finding)
    if columns:
        dims = {name: tuple(whole.arrays[name]["dimension_names"]) for name in columns}
        put_columns(
            location,
            path,
            whole,
            {
                name: (
                    Variable.like(
                        dims[name],
                        values,
                        fill=array_of(group, name).metadata.fill_value,
                        attrs=whole.arrays[name]["attributes"],
                    ),
                    values,
                )
                for name, values in columns.items()
            },
        )
        document.commit(location, path, whole)
        document.align(location, path, whole)


def _rebuilt(
    location: Location, group: zarr.Group, whole: Document, finding: Finding
) -> Iterator[tuple[str, Column]]:
    """Damaged columns from their copies, or as far as they can be read: the next run does more."""
    for name in finding.damaged:
        if name == SIZES and whole.stage.array is not None:
            array, output = array_of(group, whole.stage.array), readable(group, "block_output")
            sizes = [
                stored_bytes(location, array, block) if done else 0
                for block, done in enumerate(output)
            ]
            yield name, np.asarray(sizes, array_of(group, name).dtype)
        elif name in whole.attributes.get("column_digests", {}):
            copy = copy_of(location, whole, name)
            yield name, readable(group, name) if copy is None else copy


def _remove_objects(location: Location, array: zarr.Array[Any], finding: Finding) -> None:
    """Remove objects that are cut off: a writer reads the old shard's index first, and fails."""
    for block, problem in finding.bad.items():
        if "bytes, its receipt says" in problem or "cannot be decoded" in problem:
            key = f"{array.path}/{object_key(array, block)}"
            if not _any_row(array, block):
                objects.remove_one(location, key)


def _any_row(array: zarr.Array[Any], block: int) -> bool:
    """Whether any row of a damaged shard can still be decoded: it may be the only copy."""
    step = (array.shards or array.chunks)[0]
    for row in range(block * step, min((block + 1) * step, array.shape[0])):
        try:
            array[row]
        except RemoteError:
            raise
        except Exception:
            continue
        return True
    return False
