"""What is stored, to compare one store with another."""

import json
from pathlib import Path

import xarray as xr

METADATA = "zarr.json"


def chunk_objects(store: Path, group: str = "") -> dict[str, bytes]:
    """Every stored object that counts, but the metadata, by array and place.

    Of a column that was replaced, the objects it had before may still lie there.
    """
    found = {}
    for metadata in sorted((store / group).rglob(METADATA)):
        array = json.loads(metadata.read_bytes())
        if array["node_type"] == "array":
            home, separator = (
                metadata.parent,
                array["chunk_key_encoding"]["configuration"]["separator"],
            )
            pattern = "c/**/*" if separator == "/" else "c.*"
            for file in sorted(home.glob(pattern)):
                if file.is_file():
                    place = str(file.relative_to(home)).replace(separator, "/")
                    found[f"{home.relative_to(store)}/{place}"] = file.read_bytes()
    return found


def opened(store: Path, group: str) -> xr.Dataset:
    """The group as a user opens it."""
    return xr.open_zarr(store, group=group)


def assert_same(store: Path, other: Path, group: str) -> None:
    """Values and stored objects of a group are those of an undisturbed store's."""
    xr.testing.assert_identical(
        opened(store, group).drop_attrs().load(), opened(other, group).drop_attrs().load()
    )
    mine, theirs = chunk_objects(store, group), chunk_objects(other, group)
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if mine[key] != theirs[key]] == []


def assert_nothing_but_zarr(store: Path) -> None:
    """Every file is metadata, or a chunk of an array of the store."""
    arrays = {
        path.parent
        for path in store.rglob(METADATA)
        if json.loads(path.read_bytes())["node_type"] == "array"
    }
    for file in store.rglob("*"):
        if file.is_file() and file.name != METADATA:
            home = next(parent for parent in file.parents if parent in arrays)
            assert str(file.relative_to(home)).startswith("c"), file
