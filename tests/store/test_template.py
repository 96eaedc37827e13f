import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.engine.toys import GROUP, run_toy
from tests.image_files import write_label_tables, write_opencell
from tests.objects import assert_nothing_but_zarr, opened
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.stages.ingest import ingest
from zarrloc.store.location import Location
from zarrloc.store.template import (
    FORMAT,
    StageAttrs,
    Variable,
    allocate,
    array_of,
    check_name,
    check_store,
    check_target,
    claim,
    commit,
    committed,
    ensure_root,
    groups,
    need,
    open_store,
    read_column,
    stage_attrs,
    update_attrs,
    write_column,
    write_group,
)

WORDS = np.array(["a", "", "longer than any fixed width would have been"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_opencell(folder / "raw", 8)
    annotations, cell_lines = write_label_tables(folder)
    ingest(
        folder / "raw", folder / "s", IngestConfig(shard_fovs=4), labels_csv=annotations,
        cell_lines_csv=cell_lines, run=RunConfig(cluster="serial"), quiet=True,
    )  # fmt: skip
    run_toy(folder / "s", do={3: "raise"})
    return folder / "s"


def _small(location: Location, path: str = "splits/a", **attrs: Any) -> None:
    ensure_root(location)
    variables = {"fold": (("fov",), np.arange(3, dtype=np.int8)), "fov": (("fov",), WORDS)}
    write_group(location, path, variables, attrs=attrs, coords=["fov"])


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
    zarr.create_group(tmp_path / "s", attributes={"format": FORMAT + 1})
    for check in (check_store, check_target, open_store):
        with pytest.raises(StoreError, match=rf"format {FORMAT + 1}; this zarrloc reads up to"):
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
        check_store(Location.of(tmp_path / "new"))


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
    variables = {"a": Variable(("x",), "string", (3,))}
    group = allocate(location, "splits/a", variables, attrs={}, coords=["a"])
    write_column(group, "a", WORDS)
    assert committed(location, "splits/a") is None
    assert groups(location) == []
    commit(location, "splits/a")
    assert committed(location, "splits/a") is not None
    assert list(opened(tmp_path / "s", "splits/a")["a"].values) == list(WORDS)
    # Left half made by a crash, it is made anew.
    allocate(location, "splits/a", variables, attrs={}, coords=["a"])
    assert committed(location, "splits/a") is None


def test_attributes_change_without_taking_the_commit_back(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    _small(location, more=1)
    update_attrs(location, "splits/a", more=2)
    group = committed(location, "splits/a")
    assert group is not None
    assert group.attrs["more"] == 2


def test_a_group_is_replaced_as_a_whole(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    _small(location)
    variables = {"other": (("x",), np.ones(2))}
    write_group(location, "splits/a", variables, attrs={})
    assert set(opened(tmp_path / "s", "splits/a").variables) == {"other"}
    assert not list((tmp_path / "s.runs").glob("removed-*"))


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
    group = allocate(location, "fovs", {"image": image}, attrs={}, coords=[])
    array = array_of(group, "image")
    assert (array.chunks, array.shards) == ((1, 5), (4, 5))
    array[:] = 0
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
    location = Location.of(tmp_path / "s")
    wanted = StageAttrs.of("embed", {"size": "224", "norm": "zscore"}, {"fovs": "1"})
    assert claim(location, "splits/a", wanted, overwrite=False) is None
    _small(location, zarrloc=wanted.model_dump())
    found = claim(location, "splits/a", wanted, overwrite=False)
    assert found == wanted
    assert stage_attrs(location.group("splits/a")) == wanted
    other = StageAttrs.of("embed", {"size": "native", "weights": "x"}, {"fovs": "2"})
    with pytest.raises(
        ConfigError,
        match=r"\(input fovs: 1 -> 2; norm: zscore -> \(none\); size: 224 -> native; "
        r"weights: \(none\) -> x\); pass --overwrite .* or another --name",
    ):
        claim(location, "splits/a", other, overwrite=False)
    assert claim(location, "splits/a", other, overwrite=True) is None
