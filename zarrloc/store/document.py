"""A group's document: its own `zarr.json`, with the consolidated metadata of its arrays.

The document is the group: what it does not say did not happen. Replacing it is the commit, so a
reader finds the state before a run or the state after it. It holds digests of itself and of the
columns that stand still, and the root's document holds a copy of every committed group: what is
damaged is noticed, and rebuilt from the other copy.

xarray opens a group through the root and warns where that is not consolidated. The root's copy is
that index too, rewritten at every commit under a lock of its own.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import xxhash

from zarrloc.errors import StoreError
from zarrloc.store import objects
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location
from zarrloc.store.lock import rewrite

FORMAT = 2
"""Version of the layout, in the root's attributes. A newer one is refused by number."""

KINDS = ("fovs", "segmentations", "cells", "embeddings", "splits", "heads")
"""The groups of a store, in the order of the work. All but the first hold groups by name."""

NEXT = "~next"
"""Behind the path of a group that is to replace a committed one, until it is complete."""

Json = dict[str, Any]


class State(Enum):
    """What stands at a group's path."""

    ABSENT = "absent"
    UNFINISHED = "unfinished"
    """Allocated, and never committed: a run died within its first second. May be replaced."""
    COMMITTED = "committed"
    UNREADABLE = "unreadable"
    """Its document is missing, cut off, changed or foreign. Nothing is written over it."""


@dataclass
class Document:
    """A group's attributes and the metadata of its arrays, by name (`weights/mean` is nested)."""

    attributes: Json
    arrays: dict[str, Json]

    @property
    def stage(self) -> StageAttrs:
        """How the group's values came to be."""
        return StageAttrs.model_validate(self.attributes["zarrloc"])

    def to_json(self) -> Json:
        """The document as it is stored, with its digest."""
        document: Json = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {**self.attributes, "document_digest": ""},
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": self.arrays,
            },
        }
        document["attributes"]["document_digest"] = digest_of(document)
        return document

    @classmethod
    def from_json(cls, document: Json) -> "Document":
        """The parts of a document that was checked."""
        attributes = {k: v for k, v in document["attributes"].items() if k != "document_digest"}
        return cls(attributes, dict(document["consolidated_metadata"]["metadata"]))


@dataclass(frozen=True)
class Found:
    """What stands at a group's path, and what is wrong with it."""

    path: str
    state: State
    document: Document | None = None
    problem: str = ""


def digest_of(document: Json) -> str:
    """16 hex digits of a document, its own digest left out."""
    bare = {**document, "attributes": {**document["attributes"], "document_digest": ""}}
    return f"{xxhash.xxh3_64_intdigest(json.dumps(bare, sort_keys=True).encode()):016x}"


# --- the root -----------------------------------------------------------------------------------


def read_root(location: Location) -> Json:
    """The root's document, checked.

    Raises
    ------
    StoreError
        Where there is no store, its document is damaged, or its format is another.
    """
    raw = objects.read(location, "zarr.json")
    if raw is None and kinds_there(location):
        raw = objects.read(location, "zarr.json")  # another run may have made it since
        if raw is None:
            raise _damaged(location, "zarr.json", "is missing")
    if raw is None:
        raise StoreError(
            f"no store at {location.uri}; `zarrloc ingest SOURCE {location.shown}` makes one"
        )
    document, problem = _parsed(raw)
    if document is not None and "format" not in document["attributes"] and not problem:
        raise StoreError(
            f"{location.uri} is a Zarr group but not a zarrloc store (its root has no `format`)"
        )
    if document is None or problem:
        raise _damaged(location, "zarr.json", problem)
    found = document["attributes"]["format"]
    if found != FORMAT:
        cure = "upgrade zarrloc" if found > FORMAT else "ingest its images again"
        raise StoreError(f"{location.uri} has store format {found}, not {FORMAT}: {cure}")
    return document


def kinds_there(location: Location) -> list[str]:
    """Which kinds of groups have anything in the store."""
    there = set(objects.children(location))
    return [kind for kind in KINDS if kind in there]


def check_target(location: Location) -> None:
    """Refuse, before anything is written, what cannot become or is not a store of this format.

    Raises
    ------
    StoreError
        Where `location` is a file, a folder of something else, or a damaged store.
    """
    path = location.path
    if path is not None and path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; name a store that is new, or a zarrloc one")
    raw = objects.read(location, "zarr.json")
    if raw is not None or kinds_there(location):
        read_root(location)
    elif path is not None and path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is a folder but not a Zarr store; name a store that is new")


def need_writable(location: Location) -> None:
    """Refuse, before any work, a local store in which nothing may be written.

    Raises
    ------
    StoreError
        Where the file system is read-only, or the folder is another's.
    """
    path = location.path
    if path is not None and path.exists() and not os.access(path, os.W_OK | os.X_OK):
        raise StoreError(
            f"nothing may be written in {path}: it is another's, or its file system is read-only; "
            "check who may write there"
        )


def need_there(location: Location) -> None:
    """Before a write into a store that a run works on: see that it has not gone away.

    Raises
    ------
    StoreError
        Where a local store was removed, moved or unmounted: a write would make a stump of a store.
    """
    if location.path is not None and not (location.path / "zarr.json").exists():
        raise StoreError(
            f"{location.uri} has gone away (removed, moved or unmounted) while it was worked on; "
            "once it is back, the same command continues"
        )


def is_store(location: Location) -> bool:
    """Whether there is a root."""
    return objects.read(location, "zarr.json") is not None


def ensure_root(location: Location) -> None:
    """Make the root group where there is none."""
    if not is_store(location):
        try:
            objects.write(location, "zarr.json", dumped(root_document({})))
        except OSError as error:
            raise StoreError(f"cannot write {location.uri}: {error.strerror or error}") from error


def root_document(index: Json) -> Json:
    """The root's document around an index of groups and arrays.

    Children of one group stand together: zarr loses those that do not.
    """
    return Document({"format": FORMAT}, dict(sorted(index.items(), key=_parent))).to_json()


def publish(location: Location, path: str, document: Json) -> None:
    """Put a group's document into the root's index, in place of what it said of the group."""

    def indexed() -> bytes:
        root = read_root(location)
        index = root["consolidated_metadata"]["metadata"]
        kept = {k: v for k, v in index.items() if k != path and not k.startswith(f"{path}/")}
        return dumped(root_document({**kept, **index_entries(path, document)}))

    rewrite(location, "zarr.json", indexed)


def index_entries(path: str, document: Json) -> Json:
    """What the root's index says of one group: its parents, itself, its arrays."""
    leaf = {key: value for key, value in document.items() if key != "consolidated_metadata"}
    arrays = document["consolidated_metadata"]["metadata"]
    parents = {parent: bare_group() for parent in _parents(path)}
    return {**parents, path: leaf, **{f"{path}/{name}": array for name, array in arrays.items()}}


def from_index(root: Json, path: str) -> Json | None:
    """A group's document as the root's index has it, or None where it does not or has it wrong."""
    index = root["consolidated_metadata"]["metadata"]
    if path not in index:
        return None
    arrays = {
        name.removeprefix(f"{path}/"): array
        for name, array in index.items()
        if name.startswith(f"{path}/")
    }
    metadata = {"kind": "inline", "must_understand": False, "metadata": arrays}
    document = {**index[path], "consolidated_metadata": metadata}
    return document if digest_of(document) == document["attributes"]["document_digest"] else None


def bare_group() -> Json:
    """The document of a group that only holds others."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def _parent(entry: tuple[str, Any]) -> str:
    return entry[0].rpartition("/")[0]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


# --- groups -------------------------------------------------------------------------------------


def look(location: Location, path: str, root: Json | None = None) -> Found:
    """What stands at `path`: its state, its document, and what is wrong where it is unreadable."""
    index = (root or read_root(location))["consolidated_metadata"]["metadata"]
    raw = objects.read(location, f"{path}/zarr.json")
    if raw is None:
        if path not in index and not objects.holds_any(location, path):
            return Found(path, State.ABSENT)
        raw = objects.read(location, f"{path}/zarr.json")  # another run may have begun it since
    if raw is None:
        return Found(path, State.UNREADABLE, problem="is missing")
    document, problem = _parsed(raw)
    if document is None:
        return Found(path, State.UNREADABLE, problem=problem)
    if not document.get("consolidated_metadata"):
        if path in index or "document_digest" in document["attributes"]:
            return Found(path, State.UNREADABLE, problem="has lost its consolidated metadata")
        return Found(path, State.UNFINISHED)
    if problem:
        return Found(path, State.UNREADABLE, problem=problem)
    return Found(path, State.COMMITTED, Document.from_json(document))


def readable(location: Location, found: Found) -> Found:
    """The same, or a `StoreError` with the cure where it is unreadable."""
    if found.state is State.UNREADABLE:
        raise _damaged(location, f"{found.path}/zarr.json", found.problem)
    return found


def groups(location: Location) -> list[str]:
    """Paths of the committed groups, in the order of the work."""
    return [found.path for found in survey(location) if found.state is State.COMMITTED]


def survey(location: Location) -> list[Found]:
    """Every group that is there or that the root's index knows, in the order of the work."""
    if objects.read(location, "zarr.json") is None and not kinds_there(location):
        return []
    root = read_root(location)
    return objects.each(location, lambda path: look(location, path, root), paths(location, root))


def paths(location: Location, root: Json) -> list[str]:
    """Paths at which a group is, or should be by the root's index, in the order of the work."""
    found = []
    there = kinds_there(location)
    named = [kind for kind in there if kind != "fovs"]
    within = objects.each(location, lambda kind: objects.children(location, kind), named)
    children = dict(zip(named, within, strict=True))
    index = root["consolidated_metadata"]["metadata"]
    for kind in KINDS:
        if kind == "fovs":
            names = [kind] if kind in there or kind in index else []
        else:
            listed: set[str] = set(children.get(kind, ()))
            known = {
                path.split("/")[1]
                for path, entry in index.items()
                if path.startswith(f"{kind}/") and path.count("/") == 1
                if entry["node_type"] == "group"
            }
            names = [f"{kind}/{name}" for name in sorted(listed | known) if not name.endswith(NEXT)]
        found += names
    return found


def begin(location: Location, path: str, attributes: Mapping[str, Any]) -> None:
    """Make a group that is not committed yet, and the groups above it."""
    for parent in _parents(path):
        if objects.read(location, f"{parent}/zarr.json") is None:
            objects.write(location, f"{parent}/zarr.json", dumped(bare_group()))
    objects.write(
        location, f"{path}/zarr.json", dumped({**bare_group(), "attributes": dict(attributes)})
    )


def commit(location: Location, path: str, document: Document) -> None:
    """Replace the group's document: from here on the group is what `document` says."""
    whole = document.to_json()
    objects.write(location, f"{path}/zarr.json", dumped(whole))
    if not path.endswith(NEXT):
        publish(location, path, whole)


def is_published(location: Location, path: str, document: Document) -> bool:
    """Whether the root's index says the same of the group."""
    return from_index(read_root(location), path) == document.to_json()


def write_array(location: Location, path: str, name: str, metadata: Json) -> None:
    """Write one array's metadata. It counts from the commit on."""
    objects.write(location, f"{path}/{name}/zarr.json", dumped(metadata))


def align(location: Location, path: str, document: Document) -> None:
    """Make the arrays' own metadata what the document says, and remove arrays it does not know.

    Before a change this undoes what a run left that died before its commit; after a commit it
    brings up readers that do not use consolidated metadata.
    """

    def mend(array: tuple[str, Json]) -> None:
        if read_json(location, f"{path}/{array[0]}/zarr.json") != array[1]:
            write_array(location, path, *array)

    objects.each(location, mend, document.arrays.items())
    tops = {name.split("/")[0] for name in document.arrays}
    for name in set(objects.children(location, path)) - tops:
        objects.remove(location, f"{path}/{name}")


def switch(location: Location, path: str) -> None:
    """Put the complete `<path>~next` in the place of `path`, and publish it."""
    objects.move(location, path + NEXT, path)
    found = look(location, path)
    assert found.document is not None, f"{path} was complete before it was moved"
    publish(location, path, found.document.to_json())


def finish_switch(location: Location, path: str) -> None:
    """Finish a switch that was cut off."""
    if is_half_switched(location, path):
        switch(location, path)


def is_half_switched(location: Location, path: str) -> bool:
    """Whether a run was killed in its last step: the old group gone, the new not in its place."""
    if objects.read(location, f"{path}/zarr.json") is not None:
        return False
    waiting = objects.read(location, f"{path}{NEXT}/zarr.json")
    return waiting is not None and _parsed(waiting)[1] == ""


def read_json(location: Location, key: str) -> Json | None:
    """A JSON object of the store, or None where it is missing or not one."""
    raw = objects.read(location, key)
    try:
        found = None if raw is None else json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _parsed(raw: bytes) -> tuple[Json | None, str]:
    """A group's document, and what is wrong with it."""
    if not raw.strip(b"\0 \n"):
        return None, "is empty"
    try:
        document = json.loads(raw)
    except ValueError:
        return None, "is not JSON: cut off or damaged"
    if not isinstance(document, dict) or document.get("node_type") != "group":
        return None, "is not the metadata of a Zarr group"
    attributes = document.get("attributes")
    if not isinstance(attributes, dict):
        return None, "is not the metadata of a Zarr group"
    if not document.get("consolidated_metadata"):
        return document, ""
    if attributes.get("document_digest") != digest_of(document):
        return document, "was changed by something other than zarrloc, or damaged"
    return document, ""


def dumped(document: Json) -> bytes:
    """The document as bytes."""
    return json.dumps(document, indent=1).encode()


def _damaged(location: Location, key: str, problem: str) -> StoreError:
    return StoreError(
        f"{location.uri}/{key} {problem}; `zarrloc verify {location.shown} --repair` rebuilds it, "
        "or says what is lost. Nothing was changed"
    )
