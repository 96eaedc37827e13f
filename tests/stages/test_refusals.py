"""What `segment` and `embed` can refuse they refuse at once: before any work, without torch."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.image_files import pixels, write
from tests.stages.conftest import SERIAL, bright_spots
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ChannelError, ConfigError, WeightsError
from zarrloc.stages.annotate import annotate
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment

WATERSHED = SegmentConfig(model="watershed")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two fields without a pixel size, its channels named `ch1` and `ch2`."""
    folder = tmp_path_factory.mktemp("bare")
    for name in "ab":
        write(folder / "raw" / f"{name}.tif", pixels(0))
    config = IngestConfig(channels=("ch1", "ch2"))
    ingest(folder / "raw", folder / "s.zarr", config, run=SERIAL)
    return folder / "s.zarr"


@pytest.mark.parametrize(("pixel_size_um", "window"), [(0.1, 530), (0.2063, 256), (0.65, 82)])
def test_cells_are_measured_at_any_pixel_size(
    fresh: Callable[[str], Path], pixel_size_um: float, window: int
) -> None:
    store = fresh("a.zarr")
    annotate(store, pixel_size_um=pixel_size_um)
    for summary in segment(store, SegmentConfig(), "s", function=bright_spots, run=SERIAL):
        assert summary.exit_code == 0
    with xr.open_zarr(store, group="cells/s") as table:
        assert table.attrs["zarrloc"]["config"]["window_px"] == window
        assert table.sizes["cell"]


def test_without_a_pixel_size_the_window_is_in_pixels(bare: Path) -> None:
    config = SegmentConfig(model="watershed", channels=("ch1",), grow="ch2")
    segment(bare, config, "ws", run=SERIAL)
    with xr.open_zarr(bare, group="cells/ws") as table:
        assert table.attrs["zarrloc"]["config"]["window_px"] == 256


def test_all_missing_channels_are_named_at_once(bare: Path) -> None:
    with pytest.raises(ChannelError) as caught:
        segment(bare, WATERSHED, "no", run=SERIAL)
    assert set(caught.value.problems) == {"channels", "grow"}
    assert "nucleus not found" in caught.value.problems["channels"]
    assert "the store has ch1, ch2" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ({"crop_um": 53.0}, ConfigError),
        ({"keep_percentile": 101.0}, ConfigError),
        ({"block_cells": 0}, ConfigError),
        ({"crop": 3}, TypeError),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_a_field_is_segmented(
    bare: Path, table: dict[str, float], error: type[Exception]
) -> None:
    def never(image: object, roles: object) -> np.ndarray:
        raise AssertionError("segmented")

    with pytest.raises(error):
        segment(bare, SegmentConfig(), "no", function=never, run=SERIAL, **table)
    assert not (bare / "segmentations" / "no").exists()


def test_another_window_is_refused_before_new_fields_are_segmented(
    fresh: Callable[[str], Path],
) -> None:
    store = fresh("a.zarr")
    segment(store, SegmentConfig(), "s", function=bright_spots, run=SERIAL)
    with pytest.raises(ConfigError, match=r"cells/s.*window_px: 256 -> 96"):
        segment(store, SegmentConfig(), "s", function=bright_spots, run=SERIAL, crop_um=20)


def test_a_model_that_is_not_there_is_refused(bare: Path) -> None:
    config = SegmentConfig(model="cyto4", channels=("ch1",))
    with pytest.raises(WeightsError, match="no model cyto4"):
        segment(bare, config, "no", run=SERIAL)


def test_watershed_runs_without_torch(fresh: Callable[[str], Path]) -> None:
    command = ["segment", str(fresh("a.zarr")), "--name", "ws", "--model", "watershed"]
    code = (
        "import sys\n"
        "from zarrloc_cli.main import main\n"
        f"try: main({[*command, '--cluster', 'serial']!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'cellpose'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_refusals_import_nothing_slow(bare: Path) -> None:
    commands = [
        ["segment", "nowhere.zarr", "--name", "a"],
        ["segment", str(bare), "--name", "a"],
        ["segment", str(bare), "--name", "a", "--model", "cyto4", "--channels", "ch1"],
        ["segment", str(bare), "--name", "a", "--crop-um", "53", "--channels", "ch1,ch2"],
        ["embed", "nowhere.zarr", "--name", "a", "--backbone", "dino-vits8"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits9"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits8", "--channels", "x=1"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits8", "--weights", "x.pth"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits8", "--size", "um:1"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits8", "--level", "cell"],
        ["embed", str(bare), "--name", "a", "--backbone", "dino-vits8", "--level", "cell",
         "--cells", "none"],
    ]  # fmt: skip
    code = (
        "import sys\n"
        "from zarrloc_cli.main import main\n"
        f"for command in {commands!r}:\n"
        "    try: main(command)\n"
        "    except SystemExit as end: assert end.code == 2, (command, end.code)\n"
        "slow = {'torch', 'cellpose', 'timm', 'distributed', 'skimage', 'xarray'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    said = ended.stderr.splitlines()
    assert len(said) == len(commands), said
    assert "--channels: channel nucleus" not in said[0]
    assert "--channels: channel protein, nucleus not found" in said[1]
    assert "--crop-um" in said[3]
