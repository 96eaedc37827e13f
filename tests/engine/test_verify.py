import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarrloc_cli.main import main

from tests.engine.toys import GROUP, run_toy
from tests.objects import assert_nothing_but_zarr, assert_same, opened
from tests.written import write_group
from zarrloc.config.run import RunConfig
from zarrloc.engine.verify import Finding, verify
from zarrloc.errors import LockedError, StoreError
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.document import ensure_root
from zarrloc.store.location import Location
from zarrloc.store.lock import hold

SPLIT = {"zarrloc": StageAttrs.of("split", {}, {}).model_dump()}
BLOCK = f"{GROUP}/value/c/2/0"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run_toy(tmp_path / "s")
    return tmp_path / "s"


def _only(store: Path, **options: bool) -> Finding:
    (found,) = verify(store, **options)
    return found


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _swap(path: Path) -> None:
    """The object of another block: sound in itself."""
    path.write_bytes(path.with_name("0").parent.parent.joinpath("0/0").read_bytes())


def test_a_sound_store_has_no_findings(store: Path) -> None:
    assert _only(store) == Finding(GROUP, 5, 0)
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)
    assert _only(store, deep=True, repair=True) == Finding(GROUP, 5, 0)
    assert run_toy(store).blocks_run == 0


def test_blocks_are_decoded_on_workers(store: Path) -> None:
    run = RunConfig(cluster="local", workers=1, dashboard=":0")
    assert verify(store, deep=True, run=run) == [Finding(GROUP, 5, 0)]
    _swap(store / BLOCK)
    (here,), (there,) = verify(store, deep=True), verify(store, deep=True, run=run)
    assert there == here
    assert there.bad.keys() == {2}


@pytest.mark.parametrize(
    ("damage", "deep", "words"),
    [
        (_delete, False, "its object is missing"),
        (_truncate, False, "bytes, its receipt says"),
        (_flip, True, "cannot be decoded|differs from its digest"),
        (_swap, True, "differs from its digest"),
    ],
)
def test_damage_is_found_repaired_and_redone(
    store: Path, tmp_path: Path, damage: Callable[[Path], None], deep: bool, words: str
) -> None:
    damage(store / BLOCK)
    if deep:
        assert not _only(store).bad or damage is _swap
    found = _only(store, deep=deep)
    assert found.bad.keys() == {2}
    assert re.search(words, found.bad[2])
    assert run_toy(store).blocks_run == 0  # looking changes nothing
    _only(store, deep=deep, repair=True)
    assert _only(store).undone == 1
    assert run_toy(store).blocks_run == 1
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)
    run_toy(tmp_path / "whole")
    assert_same(store, tmp_path / "whole", GROUP)


def test_a_wrong_column_is_damage_too(store: Path) -> None:
    group = zarr.open_group(store, path=GROUP, mode="r+")
    group["double"][5] = 7  # type: ignore[index]
    assert _only(store).bad.keys() == {1}
    assert _only(store).damaged.keys() == {"double"}
    _only(store, repair=True)
    assert run_toy(store).blocks_run == 1
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)


@pytest.mark.parametrize("name", ["double", "block_output", "block_input", "row_digest", "name"])
@pytest.mark.parametrize("file", ["c/0", "zarr.json"])
@pytest.mark.parametrize("damage", [_delete, _truncate, _flip])
def test_damaged_columns_and_metadata_are_found_and_healed(
    store: Path, tmp_path: Path, name: str, file: str, damage: Callable[[Path], None]
) -> None:
    damage(store / GROUP / name / file)
    assert _only(store, deep=True).faults
    assert not _only(store, deep=True, repair=True).lost
    run_toy(store)
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)
    run_toy(tmp_path / "whole")
    assert (
        opened(store, GROUP).drop_attrs().identical(opened(tmp_path / "whole", GROUP).drop_attrs())
    )


def test_sound_blocks_outlive_a_damaged_column_of_their_sizes(store: Path) -> None:
    before = (store / BLOCK).read_bytes()
    (store / GROUP / "block_bytes/c/0").write_bytes(b"")
    found = _only(store, deep=True, repair=True)
    assert (list(found.damaged), found.bad) == (["block_bytes"], {})
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)
    assert (store / BLOCK).read_bytes() == before
    assert run_toy(store).blocks_run == 0


@pytest.mark.parametrize("damage", [_delete, _truncate, _flip, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["zarr.json", f"{GROUP}/zarr.json"])
def test_a_damaged_document_is_rebuilt_from_its_copy(
    store: Path, file: str, damage: Callable[[Path], None]
) -> None:
    before = json.loads((store / file).read_bytes())
    damage(store / file)
    assert any(found.damaged for found in verify(store))
    assert not any(found.lost for found in verify(store, repair=True))
    assert json.loads((store / file).read_bytes()) == before
    assert run_toy(store).blocks_run == 0


@pytest.mark.parametrize("damage", [_delete, _truncate, _flip])
def test_the_document_of_a_kind_of_groups_is_looked_at_too(
    store: Path, damage: Callable[[Path], None]
) -> None:
    file = store / GROUP.split("/")[0] / "zarr.json"
    before = json.loads(file.read_bytes())
    damage(file)
    assert [found.group for found in verify(store) if found.damaged] == [GROUP.split("/")[0]]
    verify(store, repair=True)
    assert json.loads(file.read_bytes()) == before
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)


def test_a_column_comes_back_from_its_copy_in_another_group(store: Path) -> None:
    location = Location.of(store)
    names = np.array([f"r{row}" for row in range(20)], np.dtypes.StringDType())
    write_group(location, "splits/p", {"fov": (("fov",), names)}, attrs=SPLIT)
    _flip(store / "splits/p/fov/c/0")
    found = verify(store, deep=True)[-1]
    assert (found.group, found.damaged.keys(), found.lost) == ("splits/p", {"fov"}, {})
    verify(store, deep=True, repair=True)
    assert not any(found.faults for found in verify(store, deep=True))
    group = location.group("splits/p", mode="r")
    assert read_column(group, "fov").tolist() == names.tolist()


def test_a_missing_object_is_found_though_it_reads_as_what_it_held(tmp_path: Path) -> None:
    location = Location.of(tmp_path / "s")
    ensure_root(location)
    write_group(location, "splits/p", {"fold": (("fov",), np.zeros(3, np.int8))}, attrs=SPLIT)
    (tmp_path / "s/splits/p/fold/c/0").unlink()
    assert _only(tmp_path / "s", deep=True).damaged.keys() == {"fold"}
    verify(tmp_path / "s", deep=True, repair=True)
    assert _only(tmp_path / "s", deep=True) == Finding("splits/p")


def test_debris_and_strangers_are_cleared(store: Path) -> None:
    partial = store / f"{BLOCK}.1234.partial"
    stranger = store / f"{GROUP}/value/c/9/0"
    for path in (partial, stranger):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert set(_only(store).debris) == {str(partial), str(stranger)}
    assert partial.exists()
    _only(store, repair=True)
    assert not partial.exists()
    assert not stranger.exists()
    assert_nothing_but_zarr(store)
    assert _only(store, deep=True) == Finding(GROUP, 5, 0)


def test_rows_that_failed_and_blocks_not_done_are_no_damage(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", do={1: "raise"})
    assert _only(tmp_path / "s", deep=True) == Finding(GROUP, 5, 0)
    run_toy(tmp_path / "t", do={-1: "open"})
    assert _only(tmp_path / "t", deep=True) == Finding(GROUP, 5, 5)


def test_nothing_is_repaired_under_a_live_run(store: Path) -> None:
    with hold(Location.of(store), GROUP, "alive"):
        assert _only(store).bad == {}
        with pytest.raises(LockedError, match="run alive"):
            verify(store, repair=True)


def test_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        verify(tmp_path / "none")


def test_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["verify", str(store), *options])
        return int(end.value.code or 0), capsys.readouterr().out

    sound = "0 bad, 0 parts damaged, 0 lost, 0 left-over files\n"
    assert call("--deep") == (0, f"{GROUP}: 5 blocks, 0 not done, {sound}")
    (store / BLOCK).unlink()
    code, said = call()
    assert code == 3
    assert "block 2: its object is missing" in said
    assert "`--repair`" in said
    assert call("--repair")[0] == 0
    assert call() == (0, f"{GROUP}: 5 blocks, 1 not done, {sound}")
