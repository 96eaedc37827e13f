from pathlib import Path

import numpy as np
import pytest

from tests.image_files import pixels, write
from zarrloc.images import find
from zarrloc.images.fields import FovSource
from zarrloc.images.tokens import is_channel


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def _fields(found: list[FovSource]) -> dict[str, tuple[str, ...]]:
    return {one.fov: one.channels for one in found}


@pytest.mark.parametrize(
    ("word", "yes"),
    [("DAPI", True), ("w1", True), ("488", True), ("mCherry", True), ("Cy5", True), ("w2GFP", True),
     ("ch03", True), ("B02", False), ("s1", False), ("day3", False), ("exp", False), ("f1", False),
     ("2024", False), ("001", False), ("d1", False), ("C01", False)],
)  # fmt: skip
def test_words_that_may_be_channels(word: str, yes: bool) -> None:
    assert is_channel(word) is yes


def test_files_that_differ_in_a_stain(tmp_path: Path) -> None:
    names = [f"{f}_{c}.tif" for f in ("a", "b") for c in ("DAPI", "Alexa568")]
    _touch(tmp_path, *names, "c_DAPI.tif")
    found = find.find(tmp_path)
    assert _fields(found) == {
        "a": ("Alexa568", "DAPI"), "b": ("Alexa568", "DAPI"), "c": ("DAPI",),
    }  # fmt: skip
    assert found[2].problem == "has no file for channel alexa568"
    assert found.notes == ("5 files differ in a word for their channel: Alexa568, DAPI",)


def test_metamorph_names_its_stains_behind_the_number(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"exp_w{n}{c}_s1.tif" for n, c in ((1, "DAPI"), (2, "GFP"))))
    assert _fields(find.find(tmp_path)) == {"exp_s1": ("w1: DAPI", "w2: GFP")}


def test_a_stain_counts_before_a_number_that_may_be_a_condition(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"x_c{n}_{c}.tif" for n in range(1, 5) for c in ("DAPI", "GFP")))
    assert list(_fields(find.find(tmp_path))) == ["x_c1", "x_c2", "x_c3", "x_c4"]


def test_wells_are_no_channels(tmp_path: Path) -> None:
    _touch(tmp_path, "p_C1_s1.tif", "p_C2_s1.tif", "p_C3_s1.tif")
    assert len(find.find(tmp_path)) == 3


def test_files_of_several_channels_are_images_of_their_own(tmp_path: Path) -> None:
    for name in ("x_c1", "x_c2"):
        write(tmp_path / f"{name}.tif", pixels(0))
    assert list(_fields(find.find(tmp_path))) == ["x_c1", "x_c2"]
    for name in ("x_c1", "x_c2"):
        write(tmp_path / f"{name}.tif", pixels(0)[0])
    assert _fields(find.find(tmp_path)) == {"x": ("c1", "c2")}


def test_folders_of_classes_are_no_channels(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{c}/{n}.tif" for c in ("er", "actin", "mitochondria") for n in (1, 2)))
    assert len(find.find(tmp_path)) == 6
    _touch(tmp_path / "b", *(f"{c}/{n}.tif" for c in ("Ch1", "Ch2") for n in (1, 2)))
    assert _fields(find.find(tmp_path / "b")) == {"1": ("Ch1", "Ch2"), "2": ("Ch1", "Ch2")}


def test_planes_differ_in_a_number(tmp_path: Path) -> None:
    _touch(tmp_path, "a_z1.tif", "a_z2.tif", "a_z10.tif", "b_z1.tif", "c.tif")
    found = {one.fov: one.planes for one in find.find(tmp_path)}
    assert found == {"a": ("1", "2", "10"), "b_z1": (), "c": ()}


def test_wells_in_any_name_become_coordinates_if_all_names_have_one(tmp_path: Path) -> None:
    for name in ("plate1/B02_f1", "plate1/B03_f2", "plate2/B02_f1"):
        write(tmp_path / f"{name}.tif", pixels(0))
    coords = [tuple(one.coords.values()) for one in find.find(tmp_path)]
    assert coords == [("plate1", "B02", "1"), ("plate2", "B02", "1"), ("plate1", "B03", "2")]
    write(tmp_path / "plate1/overview.tif", pixels(0))
    assert not any(one.coords for one in find.find(tmp_path))
    assert np.unique([one.fov for one in find.find(tmp_path)]).size == 4
