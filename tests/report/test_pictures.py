"""Hover pictures: the right one for each row, and never more than the budget."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.stores import make_store
from zarrloc.groups.crops import Crops
from zarrloc.groups.embeddings import Samples, Siblings
from zarrloc.report.pictures import SIDE, jpeg_url, make_sheets, pictures
from zarrloc.report.preview import composite
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.location import Location


def decoded(url: str) -> npt.NDArray[np.uint8]:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def samples_of(level: str, rows: int, **settings: object) -> Samples:
    inputs = {"fovs": "f"} | ({"cells/cp": "c"} if level == "cell" else {})
    stage = StageAttrs.of("embed", {"level": level, **settings}, inputs)
    names = np.array(["x"] * rows)
    index, none = np.zeros(rows, np.int64), np.zeros((rows, 0), np.uint8)
    features = np.zeros((rows, 2), np.float32)
    siblings = Siblings("protein", names, names != "")
    return Samples("embeddings/e", level, stage, features, index, names, names, (), none, siblings)


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location.of(make_store(tmp_path / "s.zarr", cells=(4, 1, 6, 2, 3)))


def test_a_tile_is_the_field_of_its_row(location: Location) -> None:
    samples = samples_of("fov", 5)
    sheets = make_sheets(location, samples, np.arange(5), budget_bytes=10**6)
    (sheet,) = map(decoded, sheets.urls)
    assert sheet.shape == (128, SIDE * 128, 3)
    fovs = location.group("fovs", mode="r")
    truths = [
        Image.fromarray(composite(image, background, ("nucleus", "protein"))).resize((128, 128))
        for image, background in zip(fovs["image"][:], fovs["background"][:], strict=True)
    ]
    for row, tile in enumerate(sheets.tile):
        shown = sheet[:, tile * 128 : (tile + 1) * 128].astype(int)
        distance = [np.abs(shown - np.asarray(truth)).mean() for truth in truths]
        assert np.argmin(distance) == row
        assert distance[row] < 8  # what JPEG costs on noise


def test_the_budget_holds_and_those_beyond_it_have_no_picture(location: Location) -> None:
    samples = samples_of("fov", 5)
    full = make_sheets(location, samples, np.arange(5), 10**6)
    budget = len(full.urls[0]) // 6
    sheets = make_sheets(location, samples, np.arange(5), budget)
    assert sum(map(len, sheets.urls)) <= budget
    shown = sheets.tile[sheets.tile >= 0]
    assert 0 < len(shown) < 5
    assert decoded(sheets.urls[0]).shape == (64, SIDE * 64, 3)


def test_busier_pictures_than_probed_end_with_the_budget(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zarrloc.report.pictures._affordable", lambda *_: 5)
    sheets = make_sheets(location, samples_of("fov", 5), np.arange(5), 500)
    assert sheets.urls == []
    assert (sheets.tile == -1).all()


def test_no_budget_no_pictures(location: Location) -> None:
    sheets = make_sheets(location, samples_of("fov", 5), np.arange(5), 0)
    assert sheets.urls == []
    assert (sheets.tile == -1).all()


def test_a_cell_is_shown_as_the_network_saw_it(location: Location) -> None:
    samples = samples_of("cell", 16, window_px=64, outside="black")
    found = list(pictures(location, samples, np.array([2, 7]), 32))
    crops = Crops(location, "cp", size=32, crop_um=64 * 0.2063)
    for picture, row in zip(found, (2, 7), strict=True):
        truth = composite(crops[row].numpy(), np.zeros(2), crops.channels)
        np.testing.assert_array_equal(picture, truth)


def test_colours_survive_the_jpeg() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::8, 1] = 255
    assert np.abs(decoded(jpeg_url(pixels, 90)).astype(int) - pixels).mean() < 12
