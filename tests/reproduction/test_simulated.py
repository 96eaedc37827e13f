"""`examples/paper/simulated.py`: what it makes up for what the paper had."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from scipy import ndimage

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.reproduce import SCRATCH
from zarrloc.reproduction.jobs import read_stand_ins, read_table, with_stand_ins

FOLDER = Path(__file__).parents[2] / "examples" / "paper"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("simulated", FOLDER / "simulated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_backbone_of_the_paper_has_a_stand_in(script: Any, tmp_path: Path) -> None:
    file = tmp_path / "stand_ins.yaml"
    file.write_text(yaml.safe_dump(script.stand_ins(), sort_keys=False))
    given = read_stand_ins(file)
    for path in FOLDER.glob("*.yaml"):
        table = with_stand_ins(read_table(path), given)
        assert table.size == "um:0.6877"
        for row in table.rows:
            name = row.arch if row.backbone == SCRATCH else row.backbone
            assert name in given.backbones
    PretrainConfig.of({**script.ARCH, **script.SMALL})


def test_four_stains_show_the_same_cells(script: Any, tmp_path: Path) -> None:
    script.write_hpa(tmp_path / "hpa", 1, 128)
    files = sorted((tmp_path / "hpa").iterdir())
    assert len(files) == 2
    image = tifffile.imread(files[0]).astype(float)
    assert image.shape == (4, 64, 64)
    smooth = ndimage.gaussian_filter(image[2], 1)
    nucleus = ndimage.binary_erosion(smooth > np.percentile(smooth, 80), iterations=2)
    ring = ndimage.binary_dilation(nucleus, iterations=6)
    ring &= ~ndimage.binary_dilation(nucleus, iterations=3)
    # The ER lies around the nuclei of the same scene.
    assert image[3][nucleus].mean() < 0.9 * image[3][ring].mean()
    assert not np.array_equal(image[0], image[3])


def test_fields_are_binned_two_by_two(script: Any, tmp_path: Path) -> None:
    image = np.arange(2 * 4 * 6, dtype=np.uint16).reshape(2, 4, 6) * 1000
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "a.tif", image, imagej=True, metadata={"axes": "CYX"})
    script.write_binned(tmp_path / "raw", tmp_path / "binned")
    found = tifffile.imread(tmp_path / "binned" / "a.tif")
    assert found.shape == (2, 2, 3)
    assert found[1, 1, 2] == image[1, 2:4, 4:6].mean()


def test_shapes_are_coloured_pictures(script: Any, tmp_path: Path) -> None:
    script.write_shapes(tmp_path / "rgb", 2, 64)
    images = [tifffile.imread(file) for file in sorted((tmp_path / "rgb").iterdir())]
    assert [image.shape for image in images] == [(3, 32, 32)] * 2
    assert all(image.std() > 1000 for image in images)
