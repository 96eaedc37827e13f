from pathlib import Path

import numpy as np
import pytest

from tests import plate_files
from tests.plate_files import SITES, VENDORS, WELLS, pixels_of
from zarrloc.images import find, plates, read
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import FILE_NAMES, Channels, map_channels

ROLES = Channels(("nucleus", "protein"))


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def _by_place(found: list[FovSource]) -> dict[tuple[str, int], FovSource]:
    return {(one.coords["well"], int(one.coords["site"])): one for one in found}


# The Human Protein Atlas has no stacks.
@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("vendor", [name for name in VENDORS if name != "Human Protein Atlas"])
def test_the_names_of_each_vendor(vendor: str, planes: int, tmp_path: Path) -> None:
    VENDORS[vendor](tmp_path / "plate", planes)
    found = find.find(tmp_path / "plate")
    assert len(found) == len(WELLS) * SITES
    fields = _by_place(found)
    roles = map_channels(
        ("nucleus", "protein"), list(dict.fromkeys(found[0].channels)), origin=FILE_NAMES
    )
    for well in WELLS:
        for site in range(1, SITES + 1):
            one = fields[well, site]
            assert one.problem == ""
            assert len(one.paths) == 2 * planes
            stack = pixels_of(well, site, planes)
            field = read.read_field(one, roles, project="max")
            np.testing.assert_array_equal(field, stack.max(axis=0))
    assert len({one.fov for one in found}) == len(found)
    assert found.notes


@pytest.mark.parametrize("vendor", ["Opera Phenix", "MetaXpress", "stains", "folders"])
def test_a_plate_in_an_object_store_is_understood_alike(vendor: str, tmp_path: Path) -> None:
    VENDORS[vendor](tmp_path / "plate", 2)
    local, remote = find.find(tmp_path / "plate"), find.find((tmp_path / "plate").as_uri())
    assert [(one.fov, one.channels, one.coords, one.pixel_size_um) for one in remote] == [
        (one.fov, one.channels, one.coords, one.pixel_size_um) for one in local
    ]
    assert remote.notes == local.notes


@pytest.mark.parametrize("vendor", ["Human Protein Atlas"])
def test_colours_of_the_protein_atlas(vendor: str, tmp_path: Path) -> None:
    VENDORS[vendor](tmp_path, 1)
    found = find.find(tmp_path)
    one = _by_place(found)["B02", 1]
    assert one.fov == "17_B02_s1"
    assert one.channels == ("blue: nucleus", "green: protein")
    field = read.read_field(one, ROLES)
    np.testing.assert_array_equal(field, pixels_of("B02", 1)[0])
    _touch(tmp_path / "one", "a_green.tif", "b_green.tif")
    assert [one.fov for one in find.find(tmp_path / "one")] == ["a_green", "b_green"]


def test_an_index_one_folder_up_tells_names_pixels_plate_and_what_is_missing(
    tmp_path: Path,
) -> None:
    plate_files.phenix(tmp_path, 1)
    lost = sorted((tmp_path / "Images").glob("r02c02f01*"))
    for path in lost:
        path.unlink()
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["P1_B02_s02", "P1_C11_s01", "P1_C11_s02"]
    assert found[0].channels == ("ch1: HOECHST 33342", "ch2: EGFP")
    assert found[0].pixel_size_um == pytest.approx(0.32)
    assert found[0].coords == {"plate": "P1", "well": "B02", "site": "02"}
    assert read.describe(found[0]).pixel_size_um == pytest.approx(0.32)
    np.testing.assert_array_equal(read.read_field(found[0], ROLES), pixels_of("B02", 2)[0])
    assert any("lists 2 images whose files are not here" in note for note in found.notes)
    (tmp_path / "Images/r02c02f02p01-ch2sk1fk1fl1.tiff").unlink()
    assert find.find(tmp_path)[0].problem == "has no file for channel protein"


def test_a_damaged_index_is_as_none(tmp_path: Path) -> None:
    plate_files.phenix(tmp_path / "plate", 1)
    (tmp_path / "plate/Index.idx.xml").write_text("<EvaluationInputData")
    found = find.find(tmp_path)
    assert found[0].fov == "B02_s01"
    assert found[0].channels == ("ch1", "ch2")
    assert found[0].coords["plate"] == "plate"


def test_several_plates_of_one_vendor(tmp_path: Path) -> None:
    for seed, plate in enumerate(("a", "b")):
        plate_files.in_cell(tmp_path / plate, 1, seed)
    found = find.find(tmp_path)
    assert {one.fov for one in found} == {
        f"{plate}/{well}_s{site}" for plate in "ab" for well in WELLS for site in (1, 2)
    }
    assert {one.coords["plate"] for one in found} == {"a", "b"}


def test_1536_wells_and_times(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"P_AF48_T000{t}F001L01A01Z01C0{c}.tif" for t in (1, 2) for c in (1, 2)))
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["P_AF48_s001_t0001", "P_AF48_s001_t0002"]
    assert found[0].coords == {"plate": "P", "well": "AF48", "site": "001", "time": "0001"}


@pytest.mark.parametrize(
    ("name", "fov", "channel", "coords"),
    [
        # as in public data sets: BBBC021, BBBC006, JUMP's pilot, IDR's
        ("G10_s1_w1BEDC2073-A983-4B98-95E9-84466707A25D.tif", "G10_s1", "w1", ("p", "G10", "1")),
        ("mcf-z-stacks_a01_s2_w2E2AB8D2B-E9A1-4C5D-8A2B-6E0D5A0BD4C1.tif", "mcf-z-stacks_A01_s2",
         "w2", ("mcf-z-stacks", "A01", "2")),
        ("r16c24f09p01-ch5sk1fk1fl1.tiff", "P24_s09", "ch5", ("p", "P24", "09")),
        ("002003-4-001001002.tif", "B03_s4", "ch002", ("p", "B03", "4")),
        ("AssayPlate_Greiner_#655090_C02_T0001F001L01A02Z01C02.tif",
         "AssayPlate_Greiner_#655090_C02_s001", "C02",
         ("AssayPlate_Greiner_#655090", "C02", "001")),
        ("H - 12(fld 03 wv Green - dsRed).tif", "H12_s03", "dsRed", ("p", "H12", "03")),
        ("scan_Plate_R_p00_0_A01f00d1.TIF", "scan_Plate_R_p00_0_A01_s00", "d1",
         ("scan_Plate_R_p00_0", "A01", "00")),
    ],
)  # fmt: skip
def test_names_as_they_are_published(
    name: str, fov: str, channel: str, coords: tuple[str, ...], tmp_path: Path
) -> None:
    _touch(tmp_path / "p", name)
    (one,) = find.find(tmp_path / "p")
    assert (one.fov, one.channels) == (fov, (channel,))
    assert tuple(one.coords.values()) == coords


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("exp_B02_s1_w1_thumb3F2504E0-4F89-41D3-9A0C-0305E82C3301.tif", True),
        ("x_thumb.tif", True),
        ("thumbs.tif", True),
        ("thumbnail_of_me.tif", False),
        ("exp_B02_s1_w1.tif", False),
    ],
)
def test_thumbnails(name: str, is_one: bool) -> None:
    assert bool(plates.THUMBNAIL.fullmatch(name)) is is_one
