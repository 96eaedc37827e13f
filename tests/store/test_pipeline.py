"""Shards are read by zarrs, where it is installed, and written by zarr-python."""

import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline

from zarrloc.errors import DamageError
from zarrloc.store import document, pipeline
from zarrloc.store.columns import array_of, decoded, fill_array, write_group
from zarrloc.store.location import Location
from zarrloc.store.template import Variable

VALUES = np.random.default_rng(0).integers(0, 4000, (5, 2, 30, 40)).astype(np.uint16)


@pytest.fixture
def zarrs() -> Iterator[Any]:
    """The library, looked for again."""
    found = pytest.importorskip("zarrs")
    pipeline.reader.cache_clear()
    yield found
    pipeline.reader.cache_clear()


def test_a_folder_of_that_name_is_not_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of stores beside the caller's script can be imported, and is empty."""
    (tmp_path / "zarrs").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "zarrs", raising=False)
    pipeline.reader.cache_clear()
    image = array_of(_group(tmp_path / "s"), "image")
    np.testing.assert_array_equal(decoded(image, slice(None)), VALUES)
    installed = any(one.name == "zarrs" for one in distributions())
    assert bool(pipeline.reader()) == installed
    pipeline.reader.cache_clear()
    sys.modules.pop("zarrs", None)


def _group(where: Any) -> zarr.Group:
    """A group with an image in shards of two rows, and a column of text."""
    location = Location.of(where)
    document.ensure_root(location)
    image = Variable(("fov", "channel", "y", "x"), "uint16", VALUES.shape, 0, 1, 2)
    names = np.array(list("abcde"), np.dtypes.StringDType())
    write_group(
        location, "g", {"image": (image, VALUES), "name": (Variable.like(("fov",), names), names)}
    )
    return location.group("g")


def _reader(array: "zarr.Array[Any]") -> str:
    return type(array.async_array.codec_pipeline).__name__


def test_shards_on_a_disk_are_read_by_zarrs(
    zarrs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = _group(tmp_path / "s")
    image = array_of(group, "image")
    assert _reader(image) == "ReadByZarrs"
    # Nothing falls back without a word.
    monkeypatch.setattr(BatchedCodecPipeline, "read", _never)
    for rows in (slice(0, 5), slice(2, 4), slice(1, 4), 3):
        np.testing.assert_array_equal(decoded(array_of(group, "image"), rows), VALUES[rows])
    monkeypatch.undo()
    assert _reader(array_of(group, "name")) == BatchedCodecPipeline.__name__
    assert decoded(array_of(group, "name"), slice(None)).tolist() == list("abcde")
    assert zarr.config.get("codec_pipeline.path").endswith(BatchedCodecPipeline.__name__)


async def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("this is the other's work")


def test_zarr_python_writes_what_zarrs_reads(
    zarrs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = _group(tmp_path / "s")
    monkeypatch.setattr(zarrs.ZarrsCodecPipeline, "write", _never)
    fill_array(array_of(group, "image"), VALUES[:2] + 1, 2)
    stored = (tmp_path / "s/g/image/c/1/0/0/0").read_bytes()
    monkeypatch.setattr(pipeline, "reader", lambda: "")
    other = _group(tmp_path / "other")
    assert _reader(array_of(other, "image")) == BatchedCodecPipeline.__name__
    fill_array(array_of(other, "image"), VALUES[:2] + 1, 2)
    assert (tmp_path / "other/g/image/c/1/0/0/0").read_bytes() == stored
    np.testing.assert_array_equal(decoded(array_of(group, "image"), slice(2, 4)), VALUES[:2] + 1)


def test_damage_and_holes_are_what_they_are_without_zarrs(zarrs: Any, tmp_path: Path) -> None:
    group = _group(tmp_path / "s")
    shard = tmp_path / "s/g/image/c/1/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 255]) + whole[101:])
    with pytest.raises(DamageError, match="'g/image' is damaged"):
        decoded(array_of(group, "image"), slice(0, 5))
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamageError, match="'g/image' is damaged"):
        decoded(array_of(group, "image"), 2)
    shard.unlink()
    found: npt.NDArray[Any] = decoded(array_of(group, "image"), slice(0, 5))
    assert not found[2:4].any()
    np.testing.assert_array_equal(found[:2], VALUES[:2])


def test_an_object_store_is_read_as_ever(zarrs: Any, tmp_path: Path) -> None:
    group = _group(f"memory://{tmp_path}")
    assert _reader(array_of(group, "image")) == BatchedCodecPipeline.__name__
    np.testing.assert_array_equal(decoded(array_of(group, "image"), slice(None)), VALUES)
