"""A contact sheet of fields: channels in colour, mask outlines, names and a scale bar.

Contrast is stretched per image and channel, for the eye only; no stored value is touched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import Image, ImageDraw, ImageFont
from skimage.segmentation import find_boundaries

from zarrloc.errors import ConfigError
from zarrloc.store.location import Location
from zarrloc.store.read import need

MOST_FOVS = 24
PANEL_PX = 400
MARGIN_PX = 16
TITLE_PX = 30
TITLE_WIDTH_PX = 200
"""Room for a title above a narrow field."""

# Fiji's conventions, lifted where a pure primary would be too dark to see on black.
COLOURS = {
    "nucleus": (64, 96, 255),
    "protein": (0, 255, 64),
    "microtubules": (255, 64, 64),
    "er": (255, 220, 0),
    "mitochondria": (255, 0, 220),
    "actin": (255, 140, 0),
}
OTHER_COLOUR = (200, 200, 200)
OUTLINE_OPACITY = 170

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class FovPicture:
    """What one panel shows: image (channel, y, x), background (channel,), mask (y, x) or none."""

    image: npt.NDArray[Any]
    background: npt.NDArray[Any]
    mask: npt.NDArray[Any] | None
    title: str
    roles: tuple[str, ...]
    pixel_size_um: float | None


def composite(
    image: npt.NDArray[Any], background: npt.NDArray[Any], roles: Sequence[str]
) -> Pixels:
    """`image` (channel, y, x) as additive colour (y, x, 3) uint8, one colour a role.

    Each channel runs from its background to its 99.8th percentile, linearly.
    """
    rgb = np.zeros((*image.shape[1:], 3), dtype=np.float32)
    for channel, low, role in zip(image.astype(np.float32), background, roles, strict=True):
        span = float(np.percentile(channel, 99.8)) - float(low)
        scaled = np.clip((channel - low) / (span if span > 0 else 1), 0, 1)
        rgb += scaled[..., None] * np.asarray(COLOURS.get(role, OTHER_COLOUR), dtype=np.float32)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def draw_field(picture: FovPicture, scale: float) -> Image.Image:
    """One field, `scale` panel pixels a source pixel, with outlines and a scale bar."""
    height, width = picture.image.shape[1:]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    rgb = composite(picture.image, picture.background, picture.roles)
    panel = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)
    if picture.mask is not None:
        ids = Image.fromarray(picture.mask.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
        # Found at the panel's own size, so that a line is two pixels wide at any scale.
        edges = find_boundaries(np.asarray(ids), mode="thick")
        panel.paste((255, 255, 255), mask=Image.fromarray(edges * np.uint8(OUTLINE_OPACITY)))
    if picture.pixel_size_um:
        draw_scale_bar(panel, picture.pixel_size_um / scale)
    return panel


def draw_scale_bar(panel: Image.Image, um_per_px: float) -> None:
    """Draw a bar with its length: 1, 2 or 5 times a power of ten um, about a fifth of the width."""
    aim = panel.width / 5 * um_per_px
    power = 10.0 ** math.floor(math.log10(aim))
    length = max(step * power for step in (1, 2, 5) if step * power <= aim)
    right, bottom = panel.width - 12, panel.height - 12
    left = right - round(length / um_per_px)
    draw = ImageDraw.Draw(panel)
    # Dark rims keep bar and text readable on a bright cell.
    draw.rectangle((left - 1, bottom - 6, right + 1, bottom + 1), fill=(0, 0, 0))
    draw.rectangle((left, bottom - 5, right, bottom), fill=(255, 255, 255))
    draw.text(
        ((left + right) / 2, bottom - 9),
        f"{length:g} um",
        fill=(255, 255, 255),
        font=ImageFont.load_default(size=16),
        anchor="mb",
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def contact_sheet(pictures: Sequence[FovPicture], caption: str, panel_px: int) -> Image.Image:
    """All panels at one scale on a white page, near square, a colour legend below."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    tallest, widest = np.max([picture.image.shape[1:] for picture in pictures], axis=0).tolist()
    scale = panel_px / max(tallest, widest)
    step_x = max(round(widest * scale), min(panel_px, TITLE_WIDTH_PX)) + MARGIN_PX
    step_y = round(tallest * scale) + MARGIN_PX + TITLE_PX
    size = (columns * step_x + MARGIN_PX, rows * step_y + MARGIN_PX + TITLE_PX)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=18)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        x, y = MARGIN_PX + column * step_x, MARGIN_PX + row * step_y
        draw.text((x, y), picture.title[: (step_x - MARGIN_PX) // 10], fill="black", font=font)
        page.paste(draw_field(picture, scale), (x, y + TITLE_PX))
    x, y = MARGIN_PX, size[1] - MARGIN_PX - TITLE_PX // 2
    for role in pictures[0].roles:
        draw.rectangle((x, y - 7, x + 14, y + 7), fill=COLOURS.get(role, OTHER_COLOUR))
        draw.text((x + 22, y), role, fill="black", font=font, anchor="lm")
        x += 44 + round(font.getlength(role))
    draw.text((x, y), caption, fill="dimgray", font=ImageFont.load_default(size=15), anchor="lm")
    return page


def preview(
    store: str | Path | Location,
    out: str | Path,
    *,
    segmentation: str | None = None,
    fovs: Sequence[str] = (),
    panel_px: int = PANEL_PX,
) -> list[str]:
    """Write a contact sheet of `fovs` to `out` and return their names.

    Without `fovs`: all fields that ingested without error, or 24 evenly spaced ones of them.
    Raises ConfigError for an unknown field or a path that cannot be written, StoreError for a
    missing group.
    """
    location = Location.of(store)
    group = open_group(location, "fovs", "ingest")
    masks = None
    if segmentation is not None:
        made_by = f"segment --name {segmentation}"
        masks = open_group(location, f"segmentations/{segmentation}", made_by)
    rows = _chosen(group, fovs)
    caption = "contrast per image, for display only"
    if segmentation is not None:
        caption = f"outlines: {segmentation}; {caption}"
    page = contact_sheet([read_picture(group, masks, row) for row in rows], caption, panel_px)
    if Path(out).suffix.lower() == ".png":
        # 256 colours show the same to the eye and make a quarter of the file: noise packs badly.
        page = page.quantize(256, Image.Quantize.FASTOCTREE)
    try:
        page.save(out, dpi=(300, 300), optimize=True)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"cannot write {out} ({error}); name a .png file in a folder that exists"
        ) from error
    return [str(name) for name in group["fov"].values[rows]]


def open_group(location: Location, path: str, made_by: str) -> xr.Dataset:
    """One group, read lazily without Dask. Raises StoreError naming the command that makes it."""
    need(location, path, made_by)
    dataset: xr.Dataset = xr.open_zarr(location.store(read_only=True), group=path, chunks=None)
    return dataset


def _chosen(group: xr.Dataset, fovs: Sequence[str]) -> list[int]:
    names = group["fov"].values.tolist()
    errors = group["error"].values.tolist()
    if not fovs:
        fine = [row for row, error in enumerate(errors) if not error]
        if not fine:
            raise ConfigError(f"none of the {len(names)} fields ingested without error")
        picks = np.linspace(0, len(fine) - 1, min(MOST_FOVS, len(fine))).round()
        return [fine[int(pick)] for pick in picks]
    index = {name: row for row, name in enumerate(names)}
    unknown = [name for name in fovs if name not in index]
    if unknown:
        raise ConfigError(
            f"no field {', '.join(unknown)}; the store has {len(names)}, such as {names[0]}"
        )
    rows = [index[name] for name in fovs]
    failed = [f"{names[row]} ({errors[row]})" for row in rows if errors[row]]
    if failed:
        raise ConfigError(f"nothing to show of {', '.join(failed)}")
    return rows


def read_picture(group: xr.Dataset, masks: xr.Dataset | None, row: int) -> FovPicture:
    """Read one row of `fovs`, its padding cut off, with its mask where `masks` is given."""
    fov = group.isel(fov=row)
    area = {"y": slice(0, fov["height"].item()), "x": slice(0, fov["width"].item())}
    names = [fov[name].item() for name in ("protein", "fov") if name in fov]
    return FovPicture(
        image=fov["image"].isel(area).values,
        background=fov["background"].values,
        mask=None if masks is None else masks["mask"].isel({"fov": row, **area}).values,
        title="   ".join(filter(None, names)),
        roles=tuple(fov["channel"].values.tolist()),
        pixel_size_um=group.attrs.get("pixel_size_um"),
    )
