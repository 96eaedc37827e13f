import os
import re
from pathlib import Path

import pytest

from zarrloc.errors import SourceError
from zarrloc.images import find
from zarrloc.images.fields import FovSource
from zarrloc.store.location import object_store

ABR = "OC-FOV_ABR_ENSG00000278741_CID000605_FID00024574_{}.tif"
ACTB = "OC-FOV_ACTB_ENSG00000075624_CID000002_FID00006033_{}.tif"


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def _manifest(folder: Path, text: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(text)
    return path


def _fovs(found: list[FovSource]) -> list[str]:
    return [source.fov for source in found]


def test_a_folder_is_searched_to_its_depth_and_listed_by_name(tmp_path: Path) -> None:
    _touch(tmp_path, "b.TIF", "deep/er/a.tiff", "c.ome.tif", "notes.txt", ".d.tif", ".git/e.tif")
    found = find.find(tmp_path)
    assert _fovs(found) == ["a", "b", "c"]
    assert found[0].paths == (f"{tmp_path}/deep/er/a.tiff",)
    assert {source.kind for source in found} == {"image"}


def test_opencell_names_become_coords(tmp_path: Path) -> None:
    _touch(tmp_path, ABR.format("proj"))
    (source,) = find.find(tmp_path)
    assert (source.fov, source.kind) == ("FID00024574", "opencell-proj")
    assert source.coords == {"protein": "ABR", "ensg": "ENSG00000278741", "cell_line": "CID000605"}


def test_projections_count_and_stacks_when_they_are_to_be_projected(tmp_path: Path) -> None:
    _touch(tmp_path, ABR.format("proj"), ABR.format("stack"), ACTB.format("stack"))
    kinds = {source.fov: source.kind for source in find.find(tmp_path)}
    assert kinds == {"FID00024574": "opencell-proj", "FID00006033": "opencell-stack"}
    kinds = {source.fov: source.kind for source in find.find(tmp_path, project="max")}
    assert set(kinds.values()) == {"opencell-stack"}


def test_masks_beside_opencell_images_are_no_images_but_broken_files_are(tmp_path: Path) -> None:
    stem = ABR.format("proj").removesuffix(".tif")
    _touch(tmp_path, f"raw/{stem}.tif", f"truth/{stem}_cells.tif", f"truth/{stem}_nuclei.tif")
    _touch(tmp_path, "raw/broken.tif")
    assert _fovs(find.find(tmp_path)) == ["FID00024574", "broken"]
    assert _fovs(find.find(tmp_path)) == _fovs(find.find(tmp_path / "raw"))


def test_a_glob_and_a_single_file(tmp_path: Path) -> None:
    _touch(tmp_path, "a1.tif", "a2.tif", "b1.tif", "sub/a3.tif", "x[1].tif")
    assert _fovs(find.find(f"{tmp_path}/a*.tif")) == ["a1", "a2"]
    assert _fovs(find.find(f"{tmp_path}/**/a*.tif")) == ["a1", "a2", "a3"]
    assert _fovs(find.find(tmp_path / "b1.tif")) == ["b1"]
    assert _fovs(find.find(tmp_path / "x[1].tif")) == ["x[1]"]


@pytest.mark.parametrize("source", ["absent", "absent/*.tif", "empty", "", "absent.csv"])
def test_nothing_to_read_is_one_line_that_names_it(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=re.escape(source or "SOURCE")) as caught:
        find.find(source and f"{tmp_path}/{source}")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list everything")
    _touch(tmp_path, "a.tif", "closed/b.tif")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        find.find(tmp_path)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    problems = {source.fov: source.problem for source in find.find(tmp_path)}
    assert problems["pipe"] == "is not a file"
    assert problems["gone"].startswith("cannot be opened: No such file")
    (source,) = find.find(f"{tmp_path}/g*.tif")
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        find.content_hash(source)


def test_the_second_file_of_a_field_is_kept_and_flagged(tmp_path: Path) -> None:
    _touch(tmp_path, f"a/{ABR.format('proj')}", f"b/{ABR.format('proj')}", "a/x.tif", "b/y.tif")
    first, second, *rest = find.find(tmp_path)
    assert (first.problem, first.duplicate_of) == ("", None)
    assert second.duplicate_of == first.paths[0]
    assert "is a second FID00024574" in second.problem
    assert [source.problem for source in rest] == ["", ""]


def test_files_of_equal_names_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    _touch(tmp_path, "p1/A01.tif", "p2/A01.tif", "p2/B01.tif", "x.tif", "x.TIFF")
    _touch(tmp_path, "run1/deep/c.tif", "run2/deep/c.tif")
    found = {source.fov: source for source in find.find(tmp_path)}
    names = ["B01", "p1/A01", "p2/A01", "run1/deep/c", "run2/deep/c", "x.TIFF", "x.tif"]
    assert sorted(found) == names
    assert found["p2/A01"].paths == (f"{tmp_path}/p2/A01.tif",)
    assert not any(source.problem for source in found.values())


def test_addresses_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "raw/a.tif", "raw/b_DAPI.tif", "manifest.csv")
    (tmp_path / "manifest.csv").write_text("path\nraw/a.tif\n")
    monkeypatch.chdir(tmp_path)
    for source in ("raw", "raw/*.tif", "raw/a.tif", "manifest.csv", "raw/*_{channel}.tif"):
        for one in find.find(source):
            assert all(os.path.isabs(path) for path in one.paths), source


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    _touch(tmp_path, "project/a.tif", "plate2/b.tif", "plate2/more/c.tif")
    (tmp_path / "project/plate2").symlink_to(tmp_path / "plate2")
    (tmp_path / "project/again").symlink_to(tmp_path / "plate2")
    (tmp_path / "plate2/loop").symlink_to(tmp_path / "project")
    (tmp_path / "plate2/up").symlink_to(tmp_path)
    assert _fovs(find.find(tmp_path / "project")) == ["a", "b", "c"]


def test_brackets_in_the_name_of_a_folder_are_no_glob(tmp_path: Path) -> None:
    _touch(tmp_path, "run [1]/p1/a1.tif", "run [1]/p2/b1.tif")
    assert _fovs(find.find(f"{tmp_path}/run [1]/p*/a*.tif")) == ["a1"]
    _touch(tmp_path, "run [1]/p1/c_DAPI.tif")
    assert _fovs(find.find(f"{tmp_path}/run [1]/p1/*_{{channel}}.tif")) == ["c"]


def test_identity_is_name_size_and_time_and_the_hash_is_the_bytes(tmp_path: Path) -> None:
    _touch(tmp_path, "one/a.tif")
    path = tmp_path / "one" / "a.tif"
    (before,) = find.find(path)
    assert 0 < before.identity < 2**64
    (tmp_path / "one").rename(tmp_path / "two")
    path = tmp_path / "two" / "a.tif"
    (moved,) = find.find(path)
    assert moved.identity == before.identity

    content = find.content_hash(moved)
    os.utime(path, ns=(0, 0))
    (touched,) = find.find(path)
    assert touched.identity != before.identity
    assert find.content_hash(touched) == content

    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, 0))
    (sly,) = find.find(path)
    assert sly.identity == touched.identity
    assert find.content_hash(sly) != content


def test_a_file_that_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a_w1.tif", "a_w2.tif")
    (field,) = find.find(f"{tmp_path}/{{fov}}_{{channel}}.tif")
    find.refuse_changed(field)
    (tmp_path / "a_w2.tif").write_bytes(b"other")
    with pytest.raises(SourceError, match="was changed while it was read"):
        find.refuse_changed(field)
    (tmp_path / "a_w2.tif").unlink()
    with pytest.raises(SourceError, match="was changed while it was read"):
        find.refuse_changed(field)


def test_an_object_that_changed_since_it_was_listed_is_refused() -> None:
    store = object_store("memory://changed")
    store.put("a.tif", b"one")
    (field,) = find.find("memory://changed")
    find.refuse_changed(field)
    store.put("a.tif", b"two")
    with pytest.raises(SourceError, match="was changed while it was read"):
        find.refuse_changed(field)


def test_a_manifest_lists_whole_images(tmp_path: Path) -> None:
    _touch(tmp_path, "raw/a.tif", f"raw/{ABR.format('proj')}")
    text = f"path,donor,fov\nraw/a.tif,d1,A\nraw/{ABR.format('proj')},d2,\nraw/absent.tif,d3,\n"
    for found in (
        find.find(None, manifest=_manifest(tmp_path, text)),
        find.find(tmp_path / "manifest.csv"),
    ):
        abr, named, absent = found
        assert (abr.fov, abr.coords["donor"], abr.coords["protein"]) == ("FID00024574", "d2", "ABR")
        assert (named.fov, named.kind, named.coords) == ("A", "image", {"donor": "d1"})
        assert absent.problem == "cannot be opened: No such file or directory"


def test_a_manifest_may_stand_apart_from_the_folder_it_speaks_of(tmp_path: Path) -> None:
    _touch(tmp_path / "data", "a.tif")
    manifest = _manifest(tmp_path, "path\na.tif\n")
    (source,) = find.find(tmp_path / "data", manifest=manifest)
    assert (source.paths, source.problem) == ((f"{tmp_path}/data/a.tif",), "")


def test_a_manifest_joins_the_channels_of_a_field(tmp_path: Path) -> None:
    _touch(tmp_path, "a_gfp.tif", "a_dapi.tif", "b_gfp.tif", "c_dapi.tif", "c_gfp.tif")
    text = (
        "path,channel,donor,label\na_gfp.tif,GFP,d1,er\na_dapi.tif,DAPI,d1,er\n"
        "b_gfp.tif,GFP,d2,er\nc_dapi.tif,DAPI,d3,er\nc_gfp.tif,GFP,d4,er\n"
    )
    one, alone, torn = find.find(
        None, manifest=_manifest(tmp_path, text), channels=("nucleus", "protein")
    )
    assert (one.fov, one.kind, one.channels) == ("a", "per-channel", ("DAPI", "GFP"))
    assert one.paths == (f"{tmp_path}/a_dapi.tif", f"{tmp_path}/a_gfp.tif")
    assert one.coords == {"donor": "d1"}
    assert alone.problem == "has no file for channel nucleus"
    assert "differ" in torn.problem


def test_a_manifest_that_cannot_be_grouped_asks_for_the_field(tmp_path: Path) -> None:
    _touch(tmp_path, "1.tif", "2.tif")
    with pytest.raises(SourceError, match="give the manifest a column fov"):
        find.find(None, manifest=_manifest(tmp_path, "path,channel\n1.tif,GFP\n2.tif,DAPI\n"))
    text = "path,channel,fov\n1.tif,GFP,A\n2.tif,DAPI,A\n"
    (source,) = find.find(None, manifest=_manifest(tmp_path, text))
    assert (source.fov, source.channels, source.problem) == ("A", ("DAPI", "GFP"), "")


def test_a_manifest_joins_z_planes(tmp_path: Path) -> None:
    _touch(tmp_path, "1.tif", "2.tif", "3.tif", "4.tif")
    text = "path,channel,z,fov\n1.tif,DAPI,10,A\n2.tif,DAPI,9,A\n3.tif,GFP,9,A\n4.tif,GFP,10,A\n"
    (source,) = find.find(None, manifest=_manifest(tmp_path, text))
    assert source.planes == ("9", "10", "9", "10")
    assert [Path(path).name for path in source.paths] == ["2.tif", "1.tif", "3.tif", "4.tif"]
    (source,) = find.find(None, manifest=_manifest(tmp_path, text.rsplit("\n", 2)[0]))
    assert source.problem == "has no file for plane 10 of channel GFP"
    text = "path,z,fov\n1.tif,1,A\n2.tif,2,A\n"
    (source,) = find.find(None, manifest=_manifest(tmp_path, text))
    assert (source.kind, source.channels, source.planes) == ("image", (), ("1", "2"))
    with pytest.raises(SourceError, match="has a z and no fov"):
        find.find(None, manifest=_manifest(tmp_path, "path,z\n1.tif,1\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.tif\n", "column 'path' is missing; it has file"),
        ("path\n", "lists no file"),
        ("path,donor\n,d1\n", "line 2 has no path"),
        ("path,image\na.tif,b\n", "'image' cannot become a coordinate"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        find.find(None, manifest=_manifest(tmp_path, text))


def test_a_pattern_joins_the_channels_of_a_field(tmp_path: Path) -> None:
    _touch(tmp_path, "A01_s1_DAPI.tif", "A01_s1_GFP.tif", "A01_s2_DAPI.tif", "A01_s2_mask.tif")
    found = find.find(f"{tmp_path}/*_{{channel}}.tif", channels=("GFP", "DAPI"))
    assert _fovs(found) == ["A01_s1", "A01_s2"]
    assert found[1].problem == "has no file for channel protein"
    assert found[0].channels == ("GFP", "DAPI")
    with pytest.raises(SourceError, match=r"\{channel\} must stand once"):
        find.find(f"{tmp_path}/{{channel}}_{{channel}}.tif")


def test_two_files_for_one_channel_are_a_problem(tmp_path: Path) -> None:
    _touch(tmp_path, "A_DAPI.tif", "A_Hoechst.tif")
    (source,) = find.find(f"{tmp_path}/*_{{channel}}.tif")
    assert source.problem == "has two files for one channel (A_DAPI.tif, A_Hoechst.tif)"


def test_an_object_store_prefix_reads_like_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, ABR.format("proj"), "sub/b.tif", ".hidden/c.tif", "d.txt")
    remote = find.find(tmp_path.as_uri())
    local = find.find(tmp_path)
    assert _fovs(remote) == _fovs(local) == ["FID00024574", "b"]
    assert [source.coords for source in remote] == [source.coords for source in local]
    assert list(map(find.content_hash, remote)) == list(map(find.content_hash, local))
    (single,) = find.find(remote[1].paths[0])
    assert single == remote[1]
    with pytest.raises(SourceError, match="holds no image"):
        find.find(f"{tmp_path.as_uri()}/absent")
    with pytest.raises(SourceError, match="cannot be opened"):
        find.find(f"{tmp_path.as_uri()}/absent.tif")
