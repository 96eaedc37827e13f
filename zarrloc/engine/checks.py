"""What is wrong with the columns and blocks of a group: the comparisons that `verify` makes.

Columns are compared with their digests, stored objects with their receipts' sizes and, with workers
to do it, decoded rows with their digests.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.engine.block import object_key, stored_bytes
from zarrloc.engine.cluster import Cluster, Load
from zarrloc.engine.ledger import RECEIPTS
from zarrloc.engine.run import new_run_id
from zarrloc.errors import DamageError, RemoteError, WorkerError
from zarrloc.groups.receipts import ROW_DIGEST, check_array, digest_of_rows
from zarrloc.store import document
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.document import Document
from zarrloc.store.location import Location
from zarrloc.store.template import COLUMN_CHUNK

Column = npt.NDArray[Any]

SIZES = "block_bytes"

WINDOW = 64
"""Blocks in flight."""

DECODE_S = 0.3
"""About how long a core takes to fetch, decode and digest a block."""


@dataclass
class Finding:
    """What was found in one group."""

    group: str
    blocks: int = 0
    undone: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    """Block -> what is wrong with it. Repairing marks it as not done."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Metadata or column -> what is wrong with it. Repairing rebuilds it."""
    lost: dict[str, str] = field(default_factory=dict)
    """Metadata or column -> why it cannot be rebuilt, and what to do."""
    debris: list[str] = field(default_factory=list)
    """Left-over files of killed writes, and objects that belong to no block."""

    @property
    def faults(self) -> int:
        """How many things are not as they should be."""
        return len(self.bad) + len(self.damaged) + len(self.lost) + len(self.debris)


# --- columns ------------------------------------------------------------------------------------


def check_columns(
    location: Location, group: zarr.Group, whole: Document, finding: Finding, *, deep: bool
) -> None:
    output = readable(group, "block_output") if deep and whole.stage.block_rows else None
    for name in whole.attributes.get("column_digests", {}):
        problem = _wrong_in(location, group, whole, name, deep, output)
        if not problem:
            continue
        if _is_made_again(whole, name) or copy_of(location, whole, name) is not None:
            finding.damaged[name] = problem
        else:
            finding.lost[name] = f"{problem}; make '{group.path}' again with --overwrite"


def _wrong_in(
    location: Location,
    group: zarr.Group,
    whole: Document,
    name: str,
    deep: bool,
    output: Column | None,
) -> str:
    try:
        array = array_of(group, name)
        read_column(group, name)
    except RemoteError:
        raise
    except (DamageError, OSError) as error:
        return str(error).rpartition("): ")[2]
    chunks = _chunks(array, whole, name, output) if deep else ()
    if not all(stored_bytes(location, array, at) for at in chunks):
        return "an object of it is missing"
    return ""


def _chunks(
    array: zarr.Array[Any], whole: Document, name: str, output: Column | None
) -> Iterator[int]:
    """Chunks of a column that must be there, though they may hold nothing but the fill value.

    What a run fills is written when the first block of a chunk is done.
    """
    stage, step, of_blocks = whole.stage, array.chunks[0], name in RECEIPTS
    if not _is_made_again(whole, name):
        output = None
    for chunk in range(-(-array.shape[0] // step) if array.size else 0):
        start, stop = chunk * step, (chunk + 1) * step
        if not of_blocks and output is not None:
            start, stop = start // stage.block_rows, -(-stop // stage.block_rows)
        if output is None or output[start:stop].any():
            yield chunk


def copy_of(location: Location, whole: Document, name: str) -> Column | None:
    """The values of a column, from any other of the store that is sound and has its digest.

    Names and labels stand in every group that was made from the fields.
    """
    wanted = whole.attributes["column_digests"][name]
    for other in document.survey(location):
        digests = other.document.attributes.get("column_digests", {}) if other.document else {}
        for twin in (column for column, has in digests.items() if has == wanted):
            with suppress(DamageError, OSError):
                return read_column(location.group(other.path, mode="r"), twin)
    return None


def _is_made_again(whole: Document, name: str) -> bool:
    """Whether the stage's next run writes this column, from receipts or from the fields'."""
    stage = whole.stage
    if not stage.block_rows:
        return False
    from_blocks = {*stage.digested, ROW_DIGEST, *RECEIPTS, "error", "keep"}
    from_blocks |= {"source_digest", "source_hash"}
    if stage.stage == "ingest":
        return name in from_blocks
    return not name.startswith("expert_") and name != "label"


def readable(group: zarr.Group, name: str) -> Column:
    """A column as it can be read: the fill value where its chunk is damaged."""
    array = array_of(group, name)
    try:
        return np.asarray(array[:])
    except RemoteError:  # no damage: nothing may be rebuilt from this
        raise
    except Exception:  # codecs raise what they like on damaged bytes
        values = np.full(array.shape, array.metadata.fill_value, array.dtype)
        for start in range(0, len(values), COLUMN_CHUNK):
            part = slice(start, start + COLUMN_CHUNK)
            try:
                values[part] = array[part]
            except RemoteError:
                raise
            except Exception:
                continue
        return values


# --- blocks -------------------------------------------------------------------------------------


def check_blocks(
    location: Location,
    group: zarr.Group,
    whole: Document,
    finding: Finding,
    cluster: Cluster | None,
) -> None:
    stage = whole.stage
    held = {name: readable(group, name) for name in (*RECEIPTS, *_digested(whole))}
    output = held["block_output"]
    sizes = None if SIZES in finding.damaged else held[SIZES]  # then digests alone judge the rows
    finding.blocks, finding.undone = len(output), int((output == 0).sum())
    array = None if stage.array is None else array_of(group, stage.array)
    if array is not None:
        finding.debris += _strangers(location, array, len(output))
    columns = {name: held[name] for name in _digested(whole)}
    sound: list[tuple[int, tuple[Any, ...]]] = []
    for block in np.flatnonzero(output).tolist():
        start, stop = block * stage.block_rows, (block + 1) * stage.block_rows
        problem = ""
        if array is not None:
            there = stored_bytes(location, array, block)
            if not there:
                problem = "its object is missing"
            elif sizes is not None and there != int(sizes[block]):
                problem = f"its object has {there} bytes, its receipt says {sizes[block]}"
        if not problem and digest_of_rows(columns, start, stop) != int(output[block]):
            problem = "its columns differ from its receipt's digest"
        if problem:
            finding.bad[block] = problem
        elif stage.array is not None:
            digests = columns[ROW_DIGEST][start:stop]
            sound.append((block, (location, group.path, stage.array, digests, start)))
    if cluster is not None:
        finding.bad.update(_undecodable(cluster, sound))


def _digested(whole: Document) -> list[str]:
    stage = whole.stage
    return [*stage.digested, *([ROW_DIGEST] if stage.array else [])]


def _undecodable(cluster: Cluster, blocks: Sequence[tuple[int, tuple[Any, ...]]]) -> dict[int, str]:
    """Which of the blocks cannot be decoded to what was written, and why, found on the workers."""
    if not blocks:
        return {}
    pool, _ = cluster.executor(Load(len(blocks), block_s=DECODE_S))
    run, waiting, flying = new_run_id(), deque(blocks), dict[str, int]()
    problems = {}
    while waiting or flying:
        batch = [waiting.popleft() for _ in range(min(len(waiting), WINDOW - len(flying)))]
        keys = {f"verify-{run}-{block}": (block, call) for block, call in batch}
        if keys:
            flying.update({key: block for key, (block, _) in keys.items()})
            pool.submit([(key, call) for key, (_, call) in keys.items()], _decode)
        for end in pool.completed():
            block = flying.pop(end.key)
            if end.killed:
                raise WorkerError(
                    f"a worker died while it decoded block {block}: give it more memory "
                    "(--memory-limit, fewer --workers)"
                )
            if end.error is not None:
                raise end.error
            if end.value:
                problems[block] = str(end.value)
    return problems


def _decode(location: Location, path: str, name: str, digests: Column, start: int) -> str:
    """What is wrong with the rows of a grid array from `start` on; "" where nothing is."""
    group = location.group(path, mode="r")
    try:
        rows = read_column(group, name, start + len(digests), start)
        check_array(group.path, rows, digests, start)
    except RemoteError:
        raise
    except (DamageError, OSError) as error:
        row = str(error).partition(" of ")[0] if "row " in str(error) else ""
        return f"{row} differs from its digest".strip() if row else "it cannot be decoded"
    return ""


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
