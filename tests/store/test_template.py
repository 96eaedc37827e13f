import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.engine.toys import GROUP, run_toy
from tests.image_files import write_label_tables, write_opencell
from tests.objects import assert_nothing_but_zarr, opened
from tests.written import revise
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.verify import verify
from zarrloc.errors import ConfigError, DamageError, StoreError
from zarrloc.stages.ingest import ingest
from zarrloc.store import document, objects
from zarrloc.store.attrs import StageAttrs, check_name
from zarrloc.store.columns import array_of, read_column, write_group
from zarrloc.store.document import (
    FORMAT,
    Document,
    State,
    begin,
    check_target,
    ensure_root,
    groups,
    look,
    read_root,
)
from zarrloc.store.location import Location
from zarrloc.store.read import committed, need, open_store, stage_attrs
from zarrloc.store.template import Variable

WORDS = np.array(["a", "", "longer than any fixed width would have been"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_opencell(folder / "raw", 8)
    annotations, cell_lines = write_label_tables(folder)
    ingest(
        folder / "raw", folder / "s", IngestConfig(shard_fovs=4), labels=annotations,
        cell_lines=cell_lines, run=RunConfig(cluster="serial"),
    )  # fmt: skip
    run_toy(folder / "s", do={3: "raise"})
    return folder / "s"


def _small(location: Location, path: str = "splits/a", **attrs: Any) -> None:
    ensure_root(location)
    variables = {"fold": (("fov",), np.arange(3, dtype=np.int8)), "fov": (("fov",), WORDS)}
    values = {n: (Variable.like(dims, v), v) for n, (dims, v) in variables.items()}
    write_group(location, path, values, coordinates="fov", **attrs)


# --- as xarray sees it --------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize("consolidated", [None, False])
def test_every_group_opens_without_a_warning(store: Path, chunks: Any, consolidated: Any) -> None:
    paths = groups(Location.of(store))
    assert paths == ["fovs", GROUP]
    for path in paths:
        data = xr.open_zarr(store, group=path, chunks=chunks, consolidated=consolidated)
        assert "error" in data.coords
        data.load()
    assert_nothing_but_zarr(store)


def test_text_coordinates_survive_what_xarray_does_with_them(store: Path) -> None:
    # With numpy below 2.2.6 `where` and a deep copy of StringDType kill the process.
    data = xr.open_zarr(store, group="fovs").load()
    assert data["protein"].dtype == np.dtypes.StringDType()
    assert data.where(data["protein"] == "P01", drop=True).sizes["fov"] == 2
    xr.testing.assert_identical(data.copy(deep=True), data)
    means = data["background"].groupby("protein").mean()
    assert means.sizes["protein"] == 4
    np.testing.assert_allclose(means[0], data["background"][:2].mean("fov"))
    frame = data[["grade", "height"]].to_dataframe()
    assert set(frame["height"]) == {24}
    assert data.sel(fov="FID00000003")["protein"].item() == "P01"
    assert data.set_xindex("protein").sel(protein="P02").sizes["fov"] == 2


def test_a_string_of_any_length_and_a_large_integer_come_back(store: Path) -> None:
    data = xr.open_zarr(store, group=GROUP)
    group = zarr.open_group(store, path=GROUP, mode="r")
    output = np.asarray(group["block_output"])
    assert output.dtype == np.uint64
    assert output.max() > 2**53  # a float would have rounded it
    np.testing.assert_array_equal(data["block_output"], output)


def test_the_whole_store_is_one_tree(store: Path) -> None:
    tree = open_store(store)
    assert tree["fovs"].to_dataset().sizes["fov"] == 8
    assert tree[GROUP]["value"].shape == (20, 3)


def test_a_grown_group_is_seen_at_its_new_length(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", rows=8)
    assert opened(tmp_path / "s", GROUP).sizes["row"] == 8
    run_toy(tmp_path / "s", rows=13)
    assert opened(tmp_path / "s", GROUP).sizes["row"] == 13
    assert xr.open_zarr(tmp_path / "s", group=GROUP, consolidated=False).sizes["row"] == 13


def test_a_store_in_an_object_store(tmp_path: Path) -> None:
    location = Location.of(f"memory://{tmp_path}")
    run_toy(location, rows=10)
    assert groups(location) == [GROUP]
    data = xr.open_zarr(location.store(read_only=True), group=GROUP)
    np.testing.assert_array_equal(data["value"][:, 0], np.arange(10))
    assert run_toy(location, rows=10).blocks_run == 0
    assert run_toy(location, rows=10, settings={"a": 1}, overwrite=True).blocks_run == 3


# --- what is refused ----------------------------------------------------------------------------


def test_a_newer_format_is_refused_by_number(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    newer = Document({"format": FORMAT + 1}, {}).to_json()
    objects.write(location, "zarr.json", document.dumped(newer))
    for check in (read_root, check_target, open_store):
        with pytest.raises(StoreError, match=rf"format {FORMAT + 1}, not {FORMAT}: upgrade"):
            check(Location.of(tmp_path / "s"))


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine.txt").write_text("mine")
    zarr.create_group(tmp_path / "other")
    for name, words in [
        ("file", "is a file"),
        ("folder", "not a Zarr store"),
        ("other", "no `format`"),
    ]:
        with pytest.raises(StoreError, match=words):
            check_target(Location.of(tmp_path / name))
    check_target(Location.of(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    with pytest.raises(StoreError, match=r"no store at .*new; `zarrloc ingest SOURCE new`"):
        read_root(Location.of(tmp_path / "new"))


def test_an_absent_group_is_refused_with_what_makes_it(store: Path) -> None:
    with pytest.raises(StoreError, match=r"the store has embeddings/toy; make it with `zarrloc em"):
        need(Location.of(store), "embeddings/none", "embed STORE")
    with pytest.raises(StoreError, match="no 'heads/none'"):
        need(Location.of(store), "heads/none", "train STORE")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "a\n", "é"])
def test_names_that_cannot_be_groups(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a group"):
        check_name(name)
    assert check_name("dino-vits8_224.v2") == "dino-vits8_224.v2"


# --- allocation and commit ----------------------------------------------------------------------


def test_a_group_is_there_once_it_is_committed(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    ensure_root(location)
    begin(location, "splits/a", {})
    assert look(location, "splits/a").state is State.UNFINISHED
    assert committed(location, "splits/a") is None
    assert groups(location) == []
    _small(location)
    assert look(location, "splits/a").state is State.COMMITTED
    assert list(opened(tmp_path / "s", "splits/a")["fov"].values) == list(WORDS)
    assert look(location, "splits/b").state is State.ABSENT


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\0" * 64])
def test_a_document_that_cannot_be_read_is_never_taken_for_an_absent_group(
    tmp_path: Path, content: bytes | None
) -> None:
    run_toy(tmp_path / "s")
    before = opened(tmp_path / "s", GROUP).load()
    file = tmp_path / "s" / GROUP / "zarr.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"zarr\.json .*`zarrloc verify s --repair`"):
            run_toy(tmp_path / "s", overwrite=overwrite)
    (found,) = verify(tmp_path / "s", repair=True)
    assert found.damaged
    assert run_toy(tmp_path / "s").blocks_run == 0
    xr.testing.assert_identical(opened(tmp_path / "s", GROUP).load(), before)


def test_what_a_killed_first_write_left_is_no_group(tmp_path: Path) -> None:
    document.ensure_root(Location.of(tmp_path / "s"))
    (tmp_path / "s" / GROUP).mkdir(parents=True)
    (tmp_path / "s" / GROUP / "zarr.json.0a1b.partial").write_bytes(b"{")
    assert look(Location.of(tmp_path / "s"), GROUP).state is State.ABSENT
    assert run_toy(tmp_path / "s").blocks_run


def test_columns_change_in_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the commit, a reader finds every old value; afterwards, every new one."""
    location = Location.of(tmp_path / "s")
    _small(location)
    new = np.arange(3, dtype=np.int8) + 5
    for dies in (True, False):
        with monkeypatch.context() as patch:
            if dies:
                patch.setattr(document, "commit", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt) if dies else nullcontext():
                revise(location, "splits/a", fold=(("fov",), new))
        values = opened(tmp_path / "s", "splits/a")["fold"].values
        np.testing.assert_array_equal(values, np.arange(3) if dies else new)


def test_a_group_is_replaced_when_its_successor_is_whole(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", rows=8)
    before = opened(tmp_path / "s", GROUP).load()
    summary = run_toy(tmp_path / "s", rows=8, settings={"a": 1}, overwrite=True, do={-1: "open"})
    assert summary.failures
    xr.testing.assert_identical(opened(tmp_path / "s", GROUP).load(), before)
    assert run_toy(tmp_path / "s", rows=8).blocks_run == 0
    assert run_toy(tmp_path / "s", rows=8, settings={"a": 1}, overwrite=True).blocks_run == 2
    assert groups(Location.of(tmp_path / "s")) == [GROUP]
    assert not list((tmp_path / "s.runs").glob("removed-*"))
    assert_nothing_but_zarr(tmp_path / "s")


def test_rows_are_never_cut(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", rows=8)
    with pytest.raises(StoreError, match="holds 8 rows and will not be cut to 4"):
        run_toy(tmp_path / "s", rows=4)
    assert opened(tmp_path / "s", GROUP).sizes["row"] == 8


def test_a_damaged_column_is_noticed_by_whoever_reads_it(tmp_path: Path) -> None:
    run_toy(tmp_path / "s")
    (tmp_path / "s" / GROUP / "double/c/0").unlink()
    group = Location.of(tmp_path / "s").group(GROUP, mode="r")
    with pytest.raises(DamageError, match=r"double' is damaged .*not those that were written"):
        read_column(group, "double")


def test_the_root_lists_every_committed_group(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    _small(location)
    _small(location, "splits/b")
    run_toy(tmp_path / "s", rows=4)
    listed = json.loads((tmp_path / "s/zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert {"splits", "splits/a", "splits/a/fold", "splits/b", GROUP, f"{GROUP}/value"} <= set(
        listed
    )
    assert groups(location) == [GROUP, "splits/a", "splits/b"]


def test_grid_arrays_are_sharded_and_every_chunk_is_stored(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    ensure_root(location)
    image = Variable(("fov", "y"), "uint16", (6, 5), grid_chunk=1, grid_shard=4)
    write_group(location, "fovs", {"image": (image, np.zeros((6, 5), np.uint16))})
    array = array_of(location.group("fovs"), "image")
    assert (array.chunks, array.shards) == ((1, 5), (4, 5))
    assert len([path for path in (tmp_path / "s/fovs/image/c").rglob("*") if path.is_file()]) == 2


def test_columns_are_read_as_slices(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    _small(location)
    group = location.group("splits/a", mode="r")
    assert list(read_column(group, "fov")) == list(WORDS)
    assert list(read_column(group, "fold", 3, 1)) == [1, 2]
    assert list(read_column(group, "fold", 1)) == [0]


# --- names and settings -------------------------------------------------------------------------


def test_a_fingerprint_is_of_settings_and_inputs_alone() -> None:
    wanted = StageAttrs.of("embed", {"size": "224"}, {"fovs": "1"}, block_rows=4)
    same = StageAttrs.of("embed", {"size": "224"}, {"fovs": "1"}, execution={"batch": 3})
    assert wanted.fingerprint == same.fingerprint
    assert wanted.versions.keys() == {"zarrloc", "numpy", "zarr", "torch"}
    for other in (
        StageAttrs.of("embed", {"size": "native"}, {"fovs": "1"}),
        StageAttrs.of("embed", {"size": "224"}, {"fovs": "2"}),
        StageAttrs.of("segment", {"size": "224"}, {"fovs": "1"}),
    ):
        assert other.fingerprint != wanted.fingerprint


def test_a_name_stands_for_its_settings(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", settings={"size": "224", "norm": "zscore"})
    found = stage_attrs(Location.of(tmp_path / "s").group(GROUP))
    assert found.config == {"size": "224", "norm": "zscore"}
    with pytest.raises(
        ConfigError,
        match=r"\(norm: zscore -> \(none\); size: 224 -> native; "
        r"width: \(none\) -> x\); pass --overwrite .* or another --name",
    ):
        run_toy(tmp_path / "s", settings={"size": "native", "width": "x"})
    assert stage_attrs(Location.of(tmp_path / "s").group(GROUP)) == found


def test_where_weights_lie_makes_no_other_settings() -> None:
    here = StageAttrs.of("embed", {"weights": "a.pth", "weights_hash": "1"}, {})
    moved = StageAttrs.of("embed", {"weights": "b.pth", "weights_hash": "1"}, {})
    assert here.fingerprint == moved.fingerprint
