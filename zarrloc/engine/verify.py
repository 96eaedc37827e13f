"""Verify: is the store what its documents and receipts say; if not, what heals and what is lost.

Documents are compared with their digests and with the root's copy of them, arrays' metadata with
the documents; `checks.py` compares columns and blocks, `repair.py` mends a group.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zarrloc.config.run import RunConfig
from zarrloc.engine.checks import Finding, check_blocks, check_columns
from zarrloc.engine.cluster import Cluster
from zarrloc.engine.repair import repair_group
from zarrloc.engine.run import new_run_id
from zarrloc.errors import StoreError
from zarrloc.store import document, objects
from zarrloc.store.document import Document, Found, State
from zarrloc.store.location import Location
from zarrloc.store.lock import hold

__all__ = ["Finding", "verify"]


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
    check_columns(location, group, found.document, finding, deep=cluster is not None)
    if "block_output" in group:
        check_blocks(location, group, found.document, finding, cluster)
    finding.debris += _debris(location, found.path)
    if repair:
        repair_group(location, found.path, found.document, group, finding)
    return finding


def _metadata(location: Location, path: str, whole: Document, finding: Finding) -> None:
    for name, metadata in whole.arrays.items():
        if document.read_json(location, f"{path}/{name}/zarr.json") != metadata:
            finding.damaged[f"{name}/zarr.json"] = "is not what the group's document says"
    if not document.is_published(location, path, whole):
        finding.damaged["the root's copy"] = "is not the group's document"


def _debris(location: Location, path: str) -> list[str]:
    if location.path is None:
        return []
    return sorted(str(file) for file in (location.path / path).rglob("*.partial"))
