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
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import SourceError
from zarrloc.stages.ingest import failures, ingest

SERIAL = RunConfig(cluster="serial")
CHANNELS = ("nucleus", "protein")


def _ingest(source: Path | str, store: Path, **settings: Any) -> Summary:
    return ingest(source, store, IngestConfig.of(settings), run=SERIAL, quiet=True)


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
