"""Verify: is the store what its documents and receipts say; if not, what heals and what is lost.

Documents are compared with their digests and with the root's copy of them, arrays' metadata with
the documents, columns with their digests, stored objects with their receipts' sizes and, with
`deep`, decoded rows with their digests.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.config.run import RunConfig
from zarrloc.engine.block import object_key, stored_bytes
from zarrloc.engine.cluster import Cluster, Load
from zarrloc.engine.ledger import RECEIPTS
from zarrloc.engine.run import new_run_id
from zarrloc.errors import DamageError, RemoteError, StoreError, WorkerError
from zarrloc.groups.receipts import ROW_DIGEST, check_array, digest_of_rows
from zarrloc.store import document, objects
from zarrloc.store.columns import array_of, put_columns, read_column
from zarrloc.store.document import Document, Found, State
from zarrloc.store.location import Location
from zarrloc.store.lock import hold
from zarrloc.store.template import COLUMN_CHUNK, Variable

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


def verify(
    store: str | Path,
    *,
    deep: bool = False,
    repair: bool = False,
    run: RunConfig | None = None,
) -> list[Finding]:
    """Compare a store with what was written into it.

    Parameters
    ----------
    store
        Path or address of the store.
    deep
        Decode every block and compare its rows' digests, not only names and sizes.
    repair
        Rebuild what a second copy allows, mark bad blocks as not done, so that the stage's next
        run does them again, and remove debris. What cannot be rebuilt is left as it is.
    run
        Where blocks are decoded.

    Returns
    -------
    list of Finding
        One a group, and one of the root where that is damaged.

    Raises
    ------
    StoreError
        Where there is no store.
    LockedError
        While a stage of it is being written.
    """
    with Cluster(run) as cluster:
        return _verify(Location.of(store), cluster if deep else None, repair)


def _verify(location: Location, cluster: Cluster | None, repair: bool) -> list[Finding]:
    findings = []
    if root := _root(location, repair):
        findings.append(root)
        if not repair:
            return findings
    groups = document.survey(location)
    findings += _kinds(location, [found.path for found in groups], repair)
    for found in groups:
        if repair:
            with hold(location, found.path, new_run_id()):
                document.finish_switch(location, found.path)
                findings.append(
                    _group(location, document.look(location, found.path), cluster, True)
                )
        else:
            findings.append(_group(location, found, cluster, False))
    return findings


def _root(location: Location, repair: bool) -> Finding | None:
    """What is wrong with the root's document; it is rebuilt from the groups' own."""
    try:
        document.read_root(location)
    except StoreError as error:
        there = document.kinds_there(location)
        raw = document.read_json(location, "zarr.json")
        foreign = raw is not None and raw.get("node_type") == "group" and "attributes" in raw
        other = foreign and raw["attributes"].get("format", 0) != document.FORMAT  # type: ignore[index]
        if not there or (other and "document_digest" not in raw["attributes"]):  # type: ignore[index]
            raise
        finding = Finding("the root", damaged={"zarr.json": str(error).partition(";")[0]})
    else:
        return None
    if repair:
        index: dict[str, Any] = {}
        empty = document.root_document({})
        for path in document.paths(location, empty):
            found = document.look(location, path, empty)
            if found.document is not None:
                index.update(document.index_entries(path, found.document.to_json()))
            elif found.state is State.UNREADABLE:
                finding.lost[f"{path}/zarr.json"] = f"{found.problem}, and so is the root's copy"
        objects.write(location, "zarr.json", document.dumped(document.root_document(index)))
    return finding


def _kinds(location: Location, paths: list[str], repair: bool) -> Iterator[Finding]:
    """What is wrong with the documents of groups that only hold others, such as `cells`."""
    for kind in dict.fromkeys(path.rpartition("/")[0] for path in paths if "/" in path):
        if document.read_json(location, f"{kind}/zarr.json") != document.bare_group():
            yield Finding(kind, damaged={"zarr.json": "is not that of a group of groups"})
            if repair:
                objects.write(location, f"{kind}/zarr.json", document.dumped(document.bare_group()))


def _group(location: Location, found: Found, cluster: Cluster | None, repair: bool) -> Finding:
    finding = Finding(found.path)
    if found.state is State.UNREADABLE:
        copy = document.from_index(document.read_root(location), found.path)
        if copy is None:
            finding.lost["zarr.json"] = (
                f"{found.problem}, and the root has no copy; make the group again under another "
                "name"
            )
            return finding
        finding.damaged["zarr.json"] = found.problem
        if not repair:
            return finding
        objects.write(location, f"{found.path}/zarr.json", document.dumped(copy))
        found = document.look(location, found.path)
    if found.document is None:
        return finding
    _metadata(location, found.path, found.document, finding)
    if repair and finding.damaged:
        document.align(location, found.path, found.document)
        document.publish(location, found.path, found.document.to_json())
    group = location.group(found.path, mode="r")
    _columns(location, group, found.document, finding, deep=cluster is not None)
    if "block_output" in group:
        _blocks(location, group, found.document, finding, cluster)
    finding.debris += _debris(location, found.path)
    if repair:
        _repair(location, found.path, found.document, group, finding)
    return finding


def _metadata(location: Location, path: str, whole: Document, finding: Finding) -> None:
    for name, metadata in whole.arrays.items():
        if document.read_json(location, f"{path}/{name}/zarr.json") != metadata:
            finding.damaged[f"{name}/zarr.json"] = "is not what the group's document says"
    if not document.is_published(location, path, whole):
        finding.damaged["the root's copy"] = "is not the group's document"


def _columns(
    location: Location, group: zarr.Group, whole: Document, finding: Finding, *, deep: bool
) -> None:
    output = _readable(group, "block_output") if deep and whole.stage.block_rows else None
    for name in whole.attributes.get("column_digests", {}):
        problem = _wrong_in(location, group, whole, name, deep, output)
        if not problem:
            continue
        if _is_made_again(whole, name) or _copy_of(location, whole, name) is not None:
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


def _copy_of(location: Location, whole: Document, name: str) -> Column | None:
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


def _blocks(
    location: Location,
    group: zarr.Group,
    whole: Document,
    finding: Finding,
    cluster: Cluster | None,
) -> None:
    stage = whole.stage
    held = {name: _readable(group, name) for name in (*RECEIPTS, *_digested(whole))}
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


def _readable(group: zarr.Group, name: str) -> Column:
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


def _repair(
    location: Location, path: str, whole: Document, group: zarr.Group, finding: Finding
) -> None:
    for file in finding.debris:
        Path(file).unlink(missing_ok=True)
    columns = dict(_rebuilt(location, group, whole, finding))
    if finding.bad:
        output = columns.get("block_output", _readable(group, "block_output"))
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
            array, output = array_of(group, whole.stage.array), _readable(group, "block_output")
            sizes = [
                stored_bytes(location, array, block) if done else 0
                for block, done in enumerate(output)
            ]
            yield name, np.asarray(sizes, array_of(group, name).dtype)
        elif name in whole.attributes.get("column_digests", {}):
            copy = _copy_of(location, whole, name)
            yield name, _readable(group, name) if copy is None else copy


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
