from pathlib import Path

import pytest

from tests import s3
from zarrloc.errors import SourceError
from zarrloc.images import files, select
from zarrloc.images.find import find
from zarrloc.images.select import Selection, logged
from zarrloc.store.remote import object_store

GENES = {"ACTB": "ENSG01", "TUBB": "ENSG02", "HLA-A": "ENSG03"}


def _names() -> list[str]:
    names = []
    for at, (gene, ensg) in enumerate(sorted(GENES.items())):
        for fov in (2 * at, 2 * at + 1):
            for kind in ("proj", "stack"):
                stem = f"OC-FOV_{gene}_{ensg}_CID00000{at}_FID0000000{fov}_{kind}.tif"
                names.append(f"{gene}_{ensg}/{stem}")
    return names


@pytest.fixture(params=["folder", "store"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Three genes of two fields, both files of each, and one file of another kind."""
    if request.param == "folder":
        for name in (*_names(), "other.tif"):
            (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / name).write_bytes(b"x")
        return str(tmp_path / "raw")
    store = object_store(f"memory://{tmp_path.name}")
    for name in (*_names(), "other.tif"):
        store.put(f"raw/{name}", b"x")
    return f"memory://{tmp_path.name}"


def _found(source: str, **asked: object) -> list[str]:
    chosen = Selection(**asked)  # type: ignore[arg-type]
    return [Path(one.paths[0]).name for one in find(source, selection=chosen)]


def test_a_kind_and_genes_are_chosen(source: str) -> None:
    everything = _found(source)
    assert len(everything) == 7
    assert _found(source, only="stack") == [
        name for name in sorted(map(_base, _names())) if "stack" in name
    ]
    assert {name.split("_")[1] for name in _found(source, genes=("actb", "HLA-A"))} == {
        "ACTB",
        "HLA-A",
    }
    assert len(_found(source, genes=("TUBB",), only="proj")) == 2
    with pytest.raises(SourceError, match=r"no field of TUBX: genes are those"):
        _found(source, genes=("ACTB", "TUBX"))


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def test_a_limit_takes_the_first_fields_by_name(source: str) -> None:
    assert _found(source, limit=3) == _found(source)[:3]
    assert _found(source, limit=1, genes=("TUBB",)) == _found(source, genes=("TUBB",))[:1]
    assert _found(source, limit=99) == _found(source)


def test_a_listing_ends_where_the_limit_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(folder: str, *, unsigned: bool = False) -> object:
        for at in range(10**9):
            yield files.File(f"s3://b/raw/OC-FOV_G_ENSG1_CID1_FID{at:08d}_proj.tif", 1, "tag")

    monkeypatch.setattr(files, "walk", endless)
    assert len(_found("s3://b/raw", limit=5)) == 5


def test_few_genes_of_a_bucket_are_few_listings(tmp_path: Path) -> None:
    pytest.importorskip("moto.server")
    with s3.server(tmp_path / "log") as server, s3.proxy(server) as proxy:  # noqa: SIM117
        with s3.environment(proxy.address):
            s3.make_bucket(server, "genes")
            store = object_store("s3://genes")
            for name in _names():
                store.put(f"raw/{name}", b"x")
            proxy.count()
            assert len(_found("s3://genes/raw", genes=("ACTB",))) == 2
            asked = proxy.count()
    assert all(one.lists for one in asked)
    assert len(asked) == 2  # the folders, and one of them
    assert "ACTB" in asked[1].path


def test_a_long_listing_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zarrloc")
    monkeypatch.setattr(select, "PROGRESS_S", 0.0)
    assert list(logged(map(files.File, "abc"), "here")) == list(map(files.File, "abc"))
    assert caplog.messages[-1] == "here: 3 files listed"
