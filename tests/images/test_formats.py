"""Images of other kinds than one TIFF a field: written, read back, and refused when damaged."""

import importlib.util
import json
import shutil
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tests.image_files import pixels
from zarrloc.errors import SourceError
from zarrloc.images import find, formats, read
from zarrloc.images.roles import Channels

ROLES = Channels(("nucleus", "protein"))
STACK = pixels(0, (1, 3, 2, 24, 32))


# --- OME-Zarr -----------------------------------------------------------------------------------


def _multiscales(version: str) -> dict[str, Any]:
    units = {"z": "micrometer", "y": "micrometer", "x": "nanometer"}
    axes = [{"name": a, **({"unit": units[a]} if a in units else {})} for a in "tczyx"]
    scale = {"type": "scale", "scale": [1, 1, 2, 0.32, 320]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    return {"version": version, "axes": axes, "datasets": [level]}


def _image(group: zarr.Group, values: Any, version: str) -> None:
    """`(z, channel, y, x)` as an image of OME-NGFF."""
    full = values.transpose(1, 0, 2, 3)[np.newaxis]
    group.create_array("0", data=full, chunks=(1, 1, 1, 24, 32))
    about = {
        "multiscales": [_multiscales(version)],
        "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
    }
    group.attrs.update(about if version == "0.4" else {"ome": {"version": version, **about}})


def _group(path: Path, version: str) -> zarr.Group:
    return zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_images(version: str, tmp_path: Path) -> None:
    _image(_group(tmp_path / "raw/a.ome.zarr", version), STACK[0], version)
    found = find.find(tmp_path / "raw")
    assert [one.fov for one in found] == ["a"]
    assert find.find(tmp_path / "raw/a.ome.zarr") == found
    assert find.find(f"{tmp_path}/raw/*.zarr") == found
    about = read.describe(found[0])
    assert (about.axes, about.shape) == ("TCZYX", (1, 2, 3, 24, 32))
    assert about.channel_names == ("DAPI", "GFP")
    assert (about.pixel_size_um, about.pixel_height_um) == (pytest.approx(0.32),) * 2
    field = read.read_field(found[0], ROLES, project="max")
    np.testing.assert_array_equal(field, STACK[0].max(axis=0))
    before = find.content_hash(found[0])
    array = zarr.open_array(tmp_path / "raw/a.ome.zarr/0", mode="r+")
    array[0, 0, 0, 0, 0] = 7
    (changed,) = find.find(tmp_path / "raw")
    assert changed.identity != found[0].identity
    assert find.content_hash(changed) != before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_of_ome_zarr(version: str, tmp_path: Path) -> None:
    plate = _group(tmp_path / "P1.zarr", version)
    about = {"plate": {"wells": [{"path": "B/2"}, {"path": "AF/48"}]}}
    plate.attrs.update(about if version == "0.4" else {"ome": about})
    for seed, place in enumerate(("B/2", "AF/48")):
        well = plate.create_group(place)
        said = {"well": {"images": [{"path": "0"}, {"path": "1"}]}}
        well.attrs.update(said if version == "0.4" else {"ome": said})
        for site in "01":
            _image(well.create_group(site), pixels(10 * seed + int(site), (1, 2, 24, 32)), version)
    found = {one.fov: one for one in find.find(tmp_path)}
    assert set(found) == {"P1_B02_s0", "P1_B02_s1", "P1_AF48_s0", "P1_AF48_s1"}
    one = found["P1_AF48_s1"]
    assert one.coords == {"plate": "P1", "well": "AF48", "site": "1"}
    np.testing.assert_array_equal(read.read_field(one, ROLES), pixels(11))


def test_series_of_bioformats2raw(tmp_path: Path) -> None:
    root = _group(tmp_path / "x.zarr", "0.4")
    root.attrs["bioformats2raw.layout"] = 3
    for series in ("0", "1", "10"):
        _image(root.create_group(series), STACK[0], "0.4")
    root.create_group("OME")
    assert [one.fov for one in find.find(tmp_path)] == ["x_0", "x_1", "x_10"]


def test_zarr_of_another_kind_is_no_image(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "raw/store.zarr", mode="w").create_array("a", data=np.zeros(3))
    tifffile.imwrite(tmp_path / "raw/a.tif", pixels(0), metadata={"axes": "CYX"})
    assert [one.fov for one in find.find(tmp_path / "raw")] == ["a"]
    (tmp_path / "raw/damaged.zarr").mkdir()
    (tmp_path / "raw/damaged.zarr/zarr.json").write_text("{")
    damaged = find.find(tmp_path / "raw")[1]
    assert (damaged.fov, damaged.problem[:24]) == ("damaged", "cannot be opened as Zarr")


def test_a_damaged_image_of_zarr(tmp_path: Path) -> None:
    _image(_group(tmp_path / "a.zarr", "0.5"), STACK[0], "0.5")
    (one,) = find.find(tmp_path)
    for chunk in (tmp_path / "a.zarr/0/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no")
    with pytest.raises(SourceError, match="cannot be decoded"):
        read.read_field(one, ROLES, project="max")
    shutil.rmtree(tmp_path / "a.zarr/0")
    with pytest.raises(SourceError, match="is not an OME-Zarr image"):
        formats.header(one.paths[0])


# --- OME-TIFF with a companion ------------------------------------------------------------------


def _companion(folder: Path, images: int = 1, lost: str = "") -> None:
    """A file a plane and channel, in the order XYCZT."""
    folder.mkdir(parents=True, exist_ok=True)
    said = ""
    for image in range(images):
        data = ""
        for z in range(3):
            for c in range(2):
                name = f"i{image}_z{z}_c{c}.ome.tif"
                tifffile.imwrite(folder / name, STACK[0, z, c] + image, metadata=None)
                data += (
                    f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="0" PlaneCount="1">'
                    f'<UUID FileName="{name}">urn:uuid:1</UUID></TiffData>'
                )
        said += (
            f'<Image ID="Image:{image}" Name="pos {image}"><Pixels DimensionOrder="XYCZT" '
            'Type="uint16" SizeX="32" SizeY="24" SizeZ="3" SizeC="2" SizeT="1" '
            'PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel ID="0" Name="GFP"/>'
            f'<Channel ID="1" Name="DAPI"/>{data}</Pixels></Image>'
        )
    xmlns = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    (folder / "a.companion.ome").write_text(f"<OME {xmlns}>{said}</OME>")
    if lost:
        (folder / lost).unlink()


def test_a_companion_makes_one_image_of_its_files(tmp_path: Path) -> None:
    _companion(tmp_path)
    tifffile.imwrite(tmp_path / "other.tif", pixels(5), metadata={"axes": "CYX"})
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["a", "other"]
    about = read.describe(found[0])
    assert (about.shape, about.channel_names) == ((1, 3, 2, 24, 32), ("GFP", "DAPI"))
    assert about.pixel_size_um == 0.5
    field = read.read_field(found[0], ROLES, project="max")
    np.testing.assert_array_equal(field, STACK[0, :, ::-1].max(axis=0))


def test_a_companion_of_several_images(tmp_path: Path) -> None:
    _companion(tmp_path, 2)
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["a_pos 0", "a_pos 1"]
    assert found[0].identity != found[1].identity
    field = read.read_field(found[1], ROLES, project="max")
    np.testing.assert_array_equal(field, STACK[0, :, ::-1].max(axis=0) + 1)


def test_a_companion_whose_files_are_lost_or_that_is_damaged(tmp_path: Path) -> None:
    _companion(tmp_path / "a", lost="i0_z1_c0.ome.tif")
    (one,) = find.find(tmp_path / "a")
    with pytest.raises(SourceError, match=r"i0_z1_c0\.ome\.tif: cannot be read"):
        read.read_field(one, ROLES, project="max")
    (tmp_path / "a/a.companion.ome").write_text("<OME>")
    assert "is not OME-XML" in find.find(tmp_path / "a")[0].problem
    sizes = 'SizeX="9" SizeY="9" SizeZ="99999" SizeC="9999" SizeT="1"'
    (tmp_path / "a/a.companion.ome").write_text(f"<OME><Image><Pixels {sizes}/></Image></OME>")
    assert "is not OME-XML: sizes" in find.find(tmp_path / "a")[0].problem


# --- Micro-Manager ------------------------------------------------------------------------------


def _micromanager(path: Path, **of_page: int) -> None:
    """Pages out of order, as it writes them; each says what it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tif:
        for c in (1, 0):
            for z in (0, 2, 1):
                said = {"ChannelIndex": c, "SliceIndex": z, "FrameIndex": 0, "PositionIndex": 0}
                said |= {"Channel": ("DAPI", "GFP")[c], "PixelSizeUm": 0.108} | of_page
                text = json.dumps(said)
                tag = (51123, "s", 0, text, True)
                tif.write(STACK[0, z, c], contiguous=False, metadata=None, extratags=[tag])


def test_micromanager_stacks(tmp_path: Path) -> None:
    for position in (0, 1):
        _micromanager(tmp_path / f"x_MMStack_Pos{position}.ome.tif")
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["x_MMStack_Pos0", "x_MMStack_Pos1"]
    about = read.describe(found[0])
    assert (about.shape, about.channel_names) == ((1, 3, 2, 24, 32), ("DAPI", "GFP"))
    assert about.pixel_size_um == 0.108
    np.testing.assert_array_equal(
        read.read_field(found[0], ROLES, project="max"), STACK[0].max(axis=0)
    )
    _micromanager(tmp_path / "bad/x.tif", ChannelIndex=0)
    with pytest.raises(SourceError, match="6 planes of Micro-Manager, expected 1 x 3 x 1"):
        read.describe(find.find(tmp_path / "bad")[0])


# --- CZI, LIF and ND2 ---------------------------------------------------------------------------


class _Image:
    """What of `bioio.BioImage` is used."""

    scenes = ("Scene 1", "Scene 2")
    dims = SimpleNamespace(order="TCZYX", T=1, C=2, Z=3, Y=24, X=32)
    channel_names = ("DAPI", "GFP")
    physical_pixel_sizes = SimpleNamespace(Z=1.0, Y=0.2, X=0.2)
    dtype = np.dtype("uint16")

    def __init__(self, uri: str, reader: Any) -> None:
        assert reader == "the reader"
        self.scene = 0

    def set_scene(self, place: int) -> None:
        if place >= len(self.scenes):
            raise IndexError(place)
        self.scene = place

    def get_image_data(self, axes: str) -> Any:
        assert axes == "TZCYX"
        return STACK + self.scene


@pytest.mark.parametrize("suffix", ["czi", "lif", "nd2"])
def test_scenes_through_bioio(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"bioio": {"BioImage": _Image}, f"bioio_{suffix}": {"Reader": "the reader"}}
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / f"slide #1.{suffix}").write_bytes(b"x")
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["slide #1_Scene 1", "slide #1_Scene 2"]
    assert found[1].paths == (f"{tmp_path}/slide #1.{suffix}#1",)
    assert read.describe(found[1]).channel_names == ("DAPI", "GFP")
    assert read.describe(found[1]).pixel_size_um == 0.2
    field = read.read_field(found[1], ROLES, project="max")
    np.testing.assert_array_equal(field, STACK[0].max(axis=0) + 1)
    with pytest.raises(SourceError, match="has no image 7"):
        formats.header(f"{tmp_path}/slide #1.{suffix}#7")


def test_without_bioio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    (tmp_path / "a.czi").write_bytes(b"x")
    (one,) = find.find(tmp_path)
    assert "needs bioio and bioio-czi to be read: pip install 'zarrloc[formats]'" in one.problem


@pytest.mark.filterwarnings("ignore")
def test_a_real_czi(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("bioio_czi", "pylibCZIrw")):
        pytest.skip("needs zarrloc[formats] with bioio-czi")
    from pylibCZIrw import czi

    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for z in range(3):
            for c in range(2):
                plane = STACK[0, z, c][..., np.newaxis]
                file.write(data=np.ascontiguousarray(plane), plane={"C": c, "Z": z, "T": 0})
        file.write_metadata(
            "a", channel_names={0: "DAPI", 1: "GFP"}, scale_x=2e-7, scale_y=2e-7, scale_z=1e-6
        )
    (one,) = find.find(tmp_path)
    about = read.describe(one)
    assert about.channel_names == ("DAPI", "GFP")
    assert about.pixel_size_um == pytest.approx(0.2)
    field = read.read_field(one, ROLES, project="max")
    np.testing.assert_array_equal(field, STACK[0].max(axis=0))


def _write_lif(path: Path, images: dict[str, Any], um: float) -> None:
    """Images `(z, channel, y, x)` uint16 as Leica's software lays them out."""
    elements, blocks = "", b""
    for number, (name, values) in enumerate(images.items()):
        z, c, y, x = values.shape
        sizes = {1: (x, 2), 2: (y, 2 * x), 3: (z, 2 * x * y * c)}  # of each axis, and its step
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" Min="0" Max="65535" '
            f'NameOfMeasuredQuantity="" Unit="" LUTName="{lut}" IsLUTInverted="0" '
            f'BytesInc="{place * 2 * x * y}" BitInc="0"/>'
            for place, lut in enumerate(("Blue", "Green")[:c])
        )
        axes = "".join(
            f'<DimensionDescription DimID="{axis}" NumberOfElements="{count}" Origin="0" '
            f'Length="{um * 1e-6 * (count - 1):.9e}" Unit="m" BitInc="0" BytesInc="{step}"/>'
            for axis, (count, step) in sizes.items()
        )
        elements += (
            f'<Element Name="{name}" Visibility="1" UniqueID="{number}"><Data><Image><Image'
            f"Description><Channels>{channels}</Channels><Dimensions>{axes}</Dimensions></Image"
            f'Description></Image></Data><Memory Size="{values.nbytes}" '
            f'MemoryBlockID="B{number}"/></Element>'
        )
        block = f"B{number}".encode("utf-16-le")
        blocks += struct.pack("<IIBQBI", 0x70, len(block) + 14, 0x2A, values.nbytes, 0x2A, 2)
        blocks += block + np.ascontiguousarray(values).tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="p"><Memory Size="0" '
        f'MemoryBlockID="none"/><Children>{elements}</Children></Element></LMSDataContainerHeader>'
    )
    text = xml.encode("utf-16-le")
    path.write_bytes(struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text + blocks)


@pytest.mark.filterwarnings("ignore")
def test_a_lif_by_the_real_reader(tmp_path: Path) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("bioio", "bioio_lif")):
        pytest.skip("needs zarrloc[formats] with bioio-lif")
    second = pixels(1, (1, 3, 2, 24, 32))
    _write_lif(tmp_path / "a.lif", {"A 1": STACK[0], "B/2": second[0]}, 0.32)
    found = find.find(tmp_path)
    assert [one.fov for one in found] == ["a_A 1", "a_B_2"]
    about = read.describe(found[1])
    assert about.channel_names == ("Blue", "Green")
    assert about.pixel_size_um == pytest.approx(0.32)
    for one, stack in zip(found, (STACK, second), strict=True):
        np.testing.assert_array_equal(
            read.read_field(one, Channels(("blue", "green")), project="max"), stack[0].max(axis=0)
        )
    (tmp_path / "a.lif").write_bytes(b"no such thing")
    (one,) = find.find(tmp_path)
    assert "bioio-lif cannot open it" in one.problem
    assert "\n" not in one.problem
