"""Pictures checked pixel by pixel where their content is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from zarrloc_cli.preview import command

import zarrloc.report.preview
from tests.stores import make_store
from zarrloc.errors import ConfigError, StoreError
from zarrloc.report.preview import (
    COLOURS,
    FovPicture,
    composite,
    contact_sheet,
    draw_field,
    draw_scale_bar,
    preview,
)


def test_channels_take_their_roles_colours() -> None:
    image = np.full((2, 10, 10), 500, np.uint16)
    image[0, :5] = 4000
    image[1, :, :5] = 9000
    rgb = composite(image, np.array([500.0, 500.0]), ("nucleus", "protein"))
    assert tuple(rgb[0, 9]) == COLOURS["nucleus"]
    assert tuple(rgb[9, 0]) == COLOURS["protein"]
    assert tuple(rgb[0, 0]) == tuple(np.add(COLOURS["nucleus"], COLOURS["protein"]).clip(0, 255))
    assert tuple(rgb[9, 9]) == (0, 0, 0)
    floats = composite((image - 500.0) / 10_000, np.zeros(2), ("nucleus", "protein"))
    np.testing.assert_array_equal(floats, rgb)
    blank = composite(np.full((1, 4, 4), 500, np.uint16), np.array([500.0]), ("lamin_b1",))
    assert (blank == 0).all()


def picture(mask: bool = True) -> FovPicture:
    ids = np.zeros((60, 90), np.uint16)
    ids[10:30, 10:40] = 1
    ids[10:30, 40:70] = 2
    return FovPicture(
        image=np.zeros((2, 60, 90), np.uint16),
        background=np.zeros(2),
        mask=ids if mask else None,
        title="P   FID1",
        roles=("nucleus", "protein"),
        pixel_size_um=None,
    )


def test_outlines_lie_on_the_masks_edges() -> None:
    lit = np.asarray(draw_field(picture(), 2.0)).any(axis=2)
    assert lit.shape == (120, 180)
    rows, columns = np.nonzero(lit)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (19, 60, 19, 140)
    assert lit[40, 79:81].all()  # between the two cells
    assert not lit[24:56, 24:76].any()
    assert not np.asarray(draw_field(picture(mask=False), 2.0)).any()


@pytest.mark.parametrize(
    ("um_per_px", "length_um"), [(0.2063, 10), (0.05, 2), (3.0, 200), (0.25, 20)]
)
def test_the_bar_is_as_long_as_it_says(um_per_px: float, length_um: float) -> None:
    panel = Image.new("RGB", (400, 400))
    draw_scale_bar(panel, um_per_px)
    bar = np.asarray(panel)[400 - 14]  # a row through the bar
    assert abs((bar == 255).all(axis=1).sum() - length_um / um_per_px) <= 2


def test_all_panels_share_one_scale() -> None:
    small = picture()
    large = FovPicture(**{**vars(small), "image": np.full((2, 120, 180), 9), "mask": None})
    page = contact_sheet([small, large], "caption", panel_px=180)
    assert page.width == 2 * (180 + 16) + 16
    dark = (np.asarray(page) < 40).all(axis=2)
    assert dark[46 : 46 + 25, 16 : 16 + 90].mean() > 0.8  # 60 x 90 px at half size of 120 x 180
    assert not dark[46 : 46 + 120, 16 + 95 : 16 + 180].any()
    assert page.height == 120 + 30 + 2 * 16 + 30, "rows are as tall as the tallest field"


def test_preview_names_what_it_shows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    assert len(preview(store, tmp_path / "all.png", segmentation="cp")) == 3
    assert preview(store, tmp_path / "one.png", fovs=["FID00000002"]) == ["FID00000002"]
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "all.png") as every:
        assert one.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert every.width > one.width
        assert every.height > one.height


def test_many_fields_are_thinned_evenly(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", cells=(1,) * 50, side=48)
    shown = preview(store, tmp_path / "p.png", panel_px=24)
    assert len(shown) == len(set(shown)) == 24
    assert (shown[0], shown[-1]) == ("FID00000000", "FID00000049")


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", errors=("", "torn file", ""))
    assert preview(store, tmp_path / "p.png") == ["FID00000000", "FID00000002"]
    with pytest.raises(ConfigError, match="torn file"):
        preview(store, tmp_path / "p.png", fovs=["FID00000001"])
    with pytest.raises(ConfigError, match="no field FID9, FID8"):
        preview(store, tmp_path / "p.png", fovs=["FID9", "FID8"])
    for out in ("p.nonsense", "nowhere/p.png"):
        with pytest.raises(ConfigError, match=r"name a \.png file"):
            preview(store, tmp_path / out)
    with pytest.raises(StoreError, match="segmentations/ws"):
        preview(store, tmp_path / "p.png", segmentation="ws")


def test_the_command_is_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def called(*args: object, **kwargs: object) -> list[str]:
        calls.append((args, kwargs))
        return ["a", "b"]

    monkeypatch.setattr(zarrloc.report.preview, "preview", called)
    line = "oc.zarr --segmentation cp --fovs a,b --out x.png"
    result = CliRunner().invoke(command, line.split(), catch_exceptions=False)
    assert result.output == "2 fields -> x.png\n"
    assert calls == [(("oc.zarr", Path("x.png")), {"segmentation": "cp", "fovs": ("a", "b")})]


def test_the_picture_is_small_and_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Image.Image] = []

    def kept(*given: Any) -> Image.Image:
        drawn.append(contact_sheet(*given))
        return drawn[-1]

    monkeypatch.setattr("zarrloc.report.preview.contact_sheet", kept)
    preview(make_store(tmp_path / "s.zarr", cells=(4,) * 6), tmp_path / "p.png")
    drawn[0].save(tmp_path / "full.png")
    assert (tmp_path / "p.png").stat().st_size < 0.5 * (tmp_path / "full.png").stat().st_size
    with Image.open(tmp_path / "p.png") as found:
        assert found.size == drawn[0].size
        apart = np.abs(np.asarray(found.convert("RGB"), float) - np.asarray(drawn[0], float))
    assert apart.mean() < 4
