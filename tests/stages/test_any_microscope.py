"""Folders from public bug reports and other microscopes, on which ingest once went wrong."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.image_files import pixels, write, write_ome
from tests.objects import opened
from tests.plate_files import SITES, VENDORS, WELLS, pixels_of
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import SourceError
from zarrloc.images.dtypes import STORED
from zarrloc.stages.ingest import failures, ingest

SERIAL = RunConfig(cluster="serial")
CHANNELS = ("nucleus", "protein")


def _ingest(source: Path | str, store: Path, **settings: Any) -> Summary:
    return ingest(source, store, IngestConfig.of(settings), run=SERIAL)


@pytest.fixture
def made(shared: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """The files that a script of `../shared/inputs` makes."""

    def make(script: str) -> Path:
        folder = tmp_path / "made"
        subprocess.run([sys.executable, shared("inputs") / script, folder], check=True)
        return folder

    return make


def test_an_ome_set_without_its_companion_is_refused(
    made: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"OME-TIFF that 'a.companion.ome' describes"):
        _ingest(made("01_ome_companion.py"), tmp_path / "s", channels=("protein",))
    assert not (tmp_path / "s").exists()


def test_names_in_the_files_win(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert _ingest(made("02_swapped_channels.py"), tmp_path / "s", channels=CHANNELS).exit_code == 0
    data = opened(tmp_path / "s", "fovs").load()
    assert list(data["channel"].values) == ["nucleus", "protein"]
    assert (data["image"].sel(channel="nucleus") == 1000).all()
    assert (data["image"].sel(channel="protein") == 3000).all()


def test_two_pixel_sizes_in_one_folder(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("03_mixed_pixel_size.py")
    assert _ingest(folder, tmp_path / "s").exit_code == 3
    data = opened(tmp_path / "s", "fovs").load()
    assert data.attrs["pixel_size_um"] == 0.4
    assert "has pixels of 0.1 um, those of the store are 0.4 um" in str(data["error"].values[0])
    assert _ingest(folder, tmp_path / "t", pixel_size_um=0.2).exit_code == 0
    assert opened(tmp_path / "t", "fovs").attrs["pixel_size_um"] == 0.2


def test_a_linked_plate(made: Callable[[str], Path], tmp_path: Path) -> None:
    _ingest(made("04_symlinked_folder.py") / "project", tmp_path / "s")
    assert list(opened(tmp_path / "s", "fovs")["fov"].values) == ["p1", "p2"]


def test_two_plates_of_equal_names(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert _ingest(made("10_same_names_two_plates.py"), tmp_path / "s").exit_code == 0
    fovs = opened(tmp_path / "s", "fovs")["fov"].values
    assert list(fovs) == ["plate1/B02_f1", "plate2/B02_f1"]


def test_three_sizes(made: Callable[[str], Path], tmp_path: Path) -> None:
    assert _ingest(made("11_three_sizes.py"), tmp_path / "s").exit_code == 0
    assert opened(tmp_path / "s", "fovs")["image"].shape == (4, 2, 96, 128)


def test_z_planes_in_files(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("08_z_planes_in_files.py")
    pattern = f"{folder}/*-{{channel}}sk1fk1fl1.tiff"
    for source in (folder, pattern):
        store = tmp_path / f"s{len(str(source))}"
        with pytest.raises(SourceError, match="is a stack of 3 z planes; pass --project max"):
            _ingest(source, store)
        assert _ingest(source, store, project="max").exit_code == 0
        data = opened(store, "fovs").load()
        assert data["image"].shape[:2] == (1, 2)
        assert (data["image"] == 300).all()
        assert (str(data["well"].values[0]), str(data["site"].values[0])) == ("B03", "01")


def test_metaxpress_with_guids_and_thumbnails(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = made("09_metaxpress_guid.py")
    sources = (folder, f"{folder}/exp_*_w{{channel}}*.tif")
    for source in sources:
        store = tmp_path / f"s{len(str(source))}"
        summary = _ingest(source, store, channels=("w1=nucleus", "w2=protein"))
        assert summary.exit_code == 0
        data = opened(store, "fovs")
        assert list(data["fov"].values) == ["exp_B02_s1", "exp_B02_s2"]
        assert list(data["channel"].values) == list(CHANNELS)
        assert data["image"].shape[2:] == (64, 64)
    pattern = "{plate}_{well}_s{site}_w{channel}{*}.tif"
    _ingest(folder, tmp_path / "p", pattern=pattern, channels=CHANNELS)
    assert list(opened(tmp_path / "p", "fovs")["well"].values) == ["B02", "B02"]


@pytest.mark.parametrize("vendor", list(VENDORS))
def test_a_plate_of_each_vendor(vendor: str, tmp_path: Path) -> None:
    VENDORS[vendor](tmp_path / "plate", 1)
    store = tmp_path / "s"
    summary = _ingest(tmp_path / "plate", store, channels=CHANNELS)
    assert summary.exit_code == 0
    data = opened(store, "fovs").load()
    assert list(data["channel"].values) == list(CHANNELS)
    assert data.sizes["fov"] == len(WELLS) * SITES
    for row in range(data.sizes["fov"]):
        well, site = str(data["well"].values[row]), int(data["site"].values[row])
        np.testing.assert_array_equal(data["image"][row], pixels_of(well, site)[0])
    assert any("nucleus" in note for note in summary.notes)
    assert _ingest(tmp_path / "plate", store).blocks_run == 0


def test_a_second_plate_needs_no_channels_again(tmp_path: Path) -> None:
    for seed, plate in enumerate(("a", "b")):
        VENDORS["CellVoyager"](tmp_path / plate, 1, seed)
        for path in (tmp_path / plate).glob("*C01.tif"):  # a third channel, which nobody wants
            path.with_name(path.name.replace("C01.tif", "C03.tif")).write_bytes(path.read_bytes())
    given = ("C01=nucleus", "C02=protein")
    assert _ingest(tmp_path / "a", tmp_path / "s", channels=given).exit_code == 0
    (tmp_path / "b").rename(tmp_path / "c")
    assert _ingest(tmp_path / "c", tmp_path / "s").exit_code == 0
    data = opened(tmp_path / "s", "fovs").load()
    assert data["image"].shape[:2] == (8, 2)
    np.testing.assert_array_equal(data["image"][4], pixels_of("B02", 1, seed=1)[0])
    assert set(data["plate"].values) == {"P1"}


def test_numbered_channels_are_reported_as_meaningless(tmp_path: Path) -> None:
    VENDORS["CellVoyager"](tmp_path / "plate", 1)
    notes = _ingest(tmp_path / "plate", tmp_path / "s").notes
    assert any("C01, C02 do not say what they show; --channels C01=ROLE" in n for n in notes)


def test_the_store_says_where_files_lie_for_any_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "raw/a.tif", pixels(0))
    monkeypatch.chdir(tmp_path)
    _ingest("raw", tmp_path / "s", channels=CHANNELS)
    assert str(opened(tmp_path / "s", "fovs")["source"].values[0]) == f"{tmp_path}/raw/a.tif"


def test_plates_of_equal_names_ingested_one_by_one(tmp_path: Path) -> None:
    for seed, plate in enumerate(("p1", "p2")):
        write(tmp_path / plate / "A01.tif", pixels(seed))
        write(tmp_path / plate / "A02.tif", pixels(10 + seed))
        assert _ingest(tmp_path / plate, tmp_path / "s", channels=CHANNELS).exit_code == 0
    data = opened(tmp_path / "s", "fovs").load()
    assert list(data["fov"].values) == ["A01", "A02", "p2/A01", "p2/A02"]
    for row, seed in enumerate((0, 10, 1, 11)):
        np.testing.assert_array_equal(data["image"][row], pixels(seed))
    (tmp_path / "p1").rename(tmp_path / "moved")
    assert _ingest(tmp_path / "moved", tmp_path / "s").blocks_run == 0
    assert "/moved/" in str(opened(tmp_path / "s", "fovs")["source"].values[0])
    for path in ("moved", "p2"):
        assert _ingest(tmp_path / path, tmp_path / "s").blocks_run == 0


def test_pixels_that_are_not_square_are_said(tmp_path: Path) -> None:
    import tifffile

    names = {"Name": ["DAPI", "GFP"]}
    sides = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2}
    (tmp_path / "raw").mkdir()
    metadata = {"axes": "CYX", "Channel": names, **sides}
    tifffile.imwrite(tmp_path / "raw/a.ome.tif", pixels(0), metadata=metadata)
    notes = _ingest(tmp_path / "raw", tmp_path / "s").notes
    assert any("not square: 0.2 um high, 0.1 um wide" in note for note in notes)


def test_failures_show_the_paths(tmp_path: Path) -> None:
    write(tmp_path / "raw/p1/a.tif", pixels(0))
    (tmp_path / "raw/p2").mkdir()
    (tmp_path / "raw/p2/a.tif").write_bytes(b"")
    _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS)
    assert failures(tmp_path / "s").startswith("p2/a.tif ")


def test_a_source_of_which_nothing_can_be_used_makes_no_store(tmp_path: Path) -> None:
    write(tmp_path / "stacks/a.tif", pixels(0, (3, 2, 24, 32)), axes="ZCYX")
    with pytest.raises(SourceError, match=r"none .* can be used; the first, a\.tif: is a stack"):
        _ingest(tmp_path / "stacks", tmp_path / "s", channels=CHANNELS)
    write_ome(tmp_path / "named/a.ome.tif", pixels(0), ("DAPI", "GFP"))
    assert _ingest(tmp_path / "named", tmp_path / "t").exit_code == 0
    assert not (tmp_path / "s").exists()


def test_a_source_of_which_no_pixels_can_be_decoded_makes_no_store(tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        path = tmp_path / f"raw/{name}.tif"
        tifffile.imwrite(path, pixels(0), metadata={"axes": "CYX"}, compression="zlib")
        with tifffile.TiffFile(path) as tif:
            offset = tif.pages[0].dataoffsets[0]
        content = bytearray(path.read_bytes())
        content[offset : offset + 20] = bytes(20)
        path.write_bytes(content)
    settings: dict[str, Any] = {"channels": CHANNELS, "axes": "CYX"}
    with pytest.raises(SourceError, match=r"none of the 2 images can be read; the first, a: .*No"):
        _ingest(tmp_path / "raw", tmp_path / "s", **settings)
    assert not (tmp_path / "s").exists()
    tifffile.imwrite(tmp_path / "raw/a.tif", pixels(0), metadata={"axes": "CYX"})
    assert _ingest(tmp_path / "raw", tmp_path / "s", **settings).exit_code == 3
    (tmp_path / "raw/a.tif").write_bytes(b"")
    assert _ingest(tmp_path / "raw", tmp_path / "s", **settings).exit_code == 3
    assert (tmp_path / "s").exists()  # what is there stays


def test_labels_of_slices_that_are_file_names_are_no_roles(tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "raw").mkdir()
    labels = ["C1-x.tif", "C2-x.tif"]
    metadata = {"axes": "CYX", "Labels": labels}
    tifffile.imwrite(tmp_path / "raw/a.tif", pixels(0), imagej=True, metadata=metadata)
    assert _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS).exit_code == 0
    assert list(opened(tmp_path / "s", "fovs")["channel"].values) == list(CHANNELS)
    metadata["Labels"] = ["c:1/2 - DAPI", "c:2/2 - GFP"]
    tifffile.imwrite(tmp_path / "raw/a.tif", pixels(0), imagej=True, metadata=metadata)
    assert _ingest(tmp_path / "raw", tmp_path / "t").exit_code == 0
    assert list(opened(tmp_path / "t", "fovs")["channel"].values) == list(CHANNELS)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float64"])
def test_other_number_types_are_stored_without_loss(dtype: str, tmp_path: Path) -> None:
    import tifffile

    values = (pixels(0, dtype="uint8") % 127).astype(dtype)
    (tmp_path / "raw").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"raw/{name}.tif", values, metadata={"axes": "CYX"})
    store = tmp_path / "s"
    assert _ingest(tmp_path / "raw", store, channels=CHANNELS, axes="CYX").exit_code == 0
    image = opened(store, "fovs")["image"]
    assert image.dtype == STORED[dtype]
    np.testing.assert_array_equal(image[0], values)


def test_values_that_do_not_fit_ask_for_a_dtype_or_a_loss(tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "raw").mkdir()
    good = pixels(0).astype(np.int16)
    bad = good.copy()
    bad[0, 0, 0] = -1
    for name, values in (("a", good), ("b", bad)):
        tifffile.imwrite(tmp_path / f"raw/{name}.tif", values, metadata={"axes": "CYX"})
    settings: dict[str, Any] = {"channels": CHANNELS, "axes": "CYX"}
    assert _ingest(tmp_path / "raw", tmp_path / "s", **settings).exit_code == 3
    error = str(opened(tmp_path / "s", "fovs")["error"].values[1])
    assert "1 pixels (from -1 to -1) that uint16 cannot hold" in error
    _ingest(tmp_path / "raw", tmp_path / "f", dtype="float32", **settings)
    np.testing.assert_array_equal(opened(tmp_path / "f", "fovs")["image"][1], bad)
    assert _ingest(tmp_path / "raw", tmp_path / "f").blocks_run == 0
    _ingest(tmp_path / "raw", tmp_path / "l", lossy=True, **settings)
    np.testing.assert_array_equal(opened(tmp_path / "l", "fovs")["image"][1], bad.clip(0))
