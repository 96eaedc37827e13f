from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from zarrloc.errors import SourceError
from zarrloc.images import find, read, tiff
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import Channels

ROLES = Channels(("nucleus", "protein"))
GIVEN = Channels(ROLES.roles, by_order=True)
PIXELS = np.random.default_rng(0).integers(0, 60_000, (2, 40, 50), np.uint16)
OPENCELL = "OC-FOV_ABR_ENSG00000278741_CID000605_FID00024574_proj.tif"


def _write(path: Path, pixels: Any, names: tuple[str, ...] = ()) -> None:
    axes = "CYX"[-pixels.ndim :]
    if names:
        tifffile.imwrite(
            path, pixels, ome=True, metadata={"axes": axes, "Channel": {"Name": names}}
        )
    else:
        tifffile.imwrite(path, pixels, metadata={"axes": axes})


def _only(source: Any, **options: Any) -> FovSource:
    (found,) = find.find(source, **options)
    return found


def test_opencell_files_need_no_names(tmp_path: Path) -> None:
    _write(tmp_path / OPENCELL, PIXELS)
    np.testing.assert_array_equal(read.read_field(_only(tmp_path), GIVEN), PIXELS)
    np.testing.assert_array_equal(read.read_field(_only(tmp_path.as_uri()), GIVEN), PIXELS)


def test_named_channels_are_put_in_the_order_of_the_roles(tmp_path: Path) -> None:
    _write(tmp_path / "a.tif", PIXELS, ("DAPI", "mNeonGreen"))
    _write(tmp_path / "b.tif", PIXELS[::-1], ("GFP", "Hoechst 33342"))
    for source in find.find(tmp_path):
        np.testing.assert_array_equal(read.read_field(source, ROLES), PIXELS)
    _write(tmp_path / "c.tif", PIXELS, ("DAPI", "tubulin"))
    with pytest.raises(SourceError, match="channels DAPI, tubulin, expected nucleus, protein"):
        read.read_field(_only(tmp_path / "c.tif"), ROLES)


def test_unnamed_channels_are_taken_in_the_order_given_and_never_guessed(tmp_path: Path) -> None:
    _write(tmp_path / "a.tif", PIXELS)
    source = _only(tmp_path)
    np.testing.assert_array_equal(read.read_field(source, GIVEN), PIXELS)
    with pytest.raises(SourceError, match="does not name its channels; pass --channels"):
        read.read_field(source, ROLES)


def test_one_file_a_channel_is_stacked_by_role(tmp_path: Path) -> None:
    _write(tmp_path / "a_GFP.tif", PIXELS[1])
    _write(tmp_path / "a_DAPI.tif", PIXELS[0])
    source = _only(f"{tmp_path}/*_{{channel}}.tif")
    np.testing.assert_array_equal(read.read_field(source, ROLES), PIXELS)
    assert read.describe(source).channel_names == ("DAPI", "GFP")

    _write(tmp_path / "a_GFP.tif", PIXELS[1, :20])
    with pytest.raises(SourceError, match=r"different shape or dtype: DAPI \(40, 50\) uint16"):
        read.read_field(source, ROLES)
    (tmp_path / "a_GFP.tif").write_bytes(b"")
    with pytest.raises(SourceError, match=r"a_GFP\.tif: is empty"):
        read.read_field(source, ROLES)


def test_a_stack_is_projected_on_request(tmp_path: Path) -> None:
    stack = np.stack([PIXELS, PIXELS // 2])
    path = tmp_path / OPENCELL.replace("proj", "stack")
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(SourceError, match="--project max"):
        read.read_field(_only(tmp_path), GIVEN)
    np.testing.assert_array_equal(read.read_field(_only(tmp_path), GIVEN, project="max"), PIXELS)


def test_a_known_problem_is_raised_without_reading(tmp_path: Path) -> None:
    source = FovSource("a", ("absent.tif",), 1, "image", problem="is a second a")
    for reading in (read.describe, lambda source: read.read_field(source, ROLES)):
        with pytest.raises(SourceError, match="is a second a"):
            reading(source)


def test_anyone_can_supply_a_reader() -> None:
    source = FovSource("a", ("camera://1",), 1, "image")

    def reader(uri: str, /) -> tiff.Image:
        assert uri == "camera://1"
        return tiff.Image(PIXELS.transpose(1, 2, 0), "YXC", ROLES.roles)

    field = read.read_field(source, ROLES, reader=reader)
    np.testing.assert_array_equal(field, PIXELS)
    assert field.flags.c_contiguous


def test_planes_in_separate_files_are_stacked_before_they_are_projected(tmp_path: Path) -> None:
    for plane, values in (("1", PIXELS), ("2", PIXELS[:, ::-1]), ("10", PIXELS // 2)):
        _write(tmp_path / f"a_z{plane}_DAPI.tif", values[0])
        _write(tmp_path / f"a_z{plane}_GFP.tif", values[1])
    source = _only(f"{tmp_path}/{{fov}}_z{{z}}_{{channel}}.tif")
    assert source.planes == ("1", "2", "10") * 2
    about = read.describe(source)
    assert (about.axes, about.shape) == ("ZCYX", (3, 2, 40, 50))
    expected = np.maximum(PIXELS, PIXELS[:, ::-1])
    np.testing.assert_array_equal(read.read_field(source, ROLES, project="max"), expected)
    with pytest.raises(SourceError, match="is a stack of 3 z planes; pass --project max"):
        read.read_field(source, ROLES)


def test_planes_of_all_channels_a_file(tmp_path: Path) -> None:
    _write(tmp_path / "a_z1.tif", PIXELS, ("DAPI", "GFP"))
    _write(tmp_path / "a_z2.tif", PIXELS[::-1] // 2, ("GFP", "DAPI"))
    source = _only(f"{tmp_path}/{{fov}}_z{{z}}.tif")
    np.testing.assert_array_equal(read.read_field(source, ROLES, project="max"), PIXELS)
    mean = np.rint((PIXELS + (PIXELS // 2).astype(float)) / 2)
    np.testing.assert_array_equal(read.read_field(source, ROLES, project="mean"), mean)


def test_a_file_of_several_channels_is_no_channel_of_a_field(tmp_path: Path) -> None:
    _write(tmp_path / "a_w1.tif", PIXELS)
    source = _only(f"{tmp_path}/*_w{{channel}}.tif")
    with pytest.raises(SourceError, match="expected one plane of one channel"):
        read.describe(source)
    with pytest.raises(SourceError, match="has 2 channels, expected the one of its name"):
        read.read_field(source, Channels(("1",)))
