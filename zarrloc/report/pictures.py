"""Pictures of rows, as small as a page can carry: JPEG tiles, many to a sheet."""

import base64
import io
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from zarrloc.crops import Crops
from zarrloc.location import Location
from zarrloc.preview import Pixels, composite
from zarrloc.samples import Samples
from zarrloc.store import array_of, need, read_column

SIDE = 16
"""Tiles along a sheet's side."""
BATCH = 64
"""Rows whose pictures are in memory at once."""
BYTES_A_PIXEL = 0.35
"""What a tile takes as JPEG, from above: fields measured 0.15 to 0.3."""


class Sheets(NamedTuple):
    """Hover pictures: JPEGs of 16 x 16 tiles as data URLs, and the tile of each row, -1 = none."""

    urls: list[str]
    tile: npt.NDArray[np.int32]
    tile_px: int


def pictures(
    location: Location, samples: Samples, rows: npt.NDArray[np.int64], size: int
) -> Iterator[Pixels]:
    """The rows' pictures `(size, size, 3)`, in ascending order of rows: whole fields or crops.

    A field that isn't square lies on black. Crops are what the network was shown.
    """
    if samples.cells is None:
        yield from _fields(location, rows, size)
        return
    settings = samples.stage.config
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    pixel: float = fovs.attrs["pixel_size_um"]  # type: ignore[assignment]
    crops = Crops(
        location,
        samples.cells.split("/")[1],
        size=size,
        crop_um=settings["window_px"] * pixel,
        outside=settings["outside"],
    )
    black = np.zeros(len(crops.channels))
    for start in range(0, len(rows), BATCH):
        for crop in crops.take(rows[start : start + BATCH]).pixels.cpu().numpy():
            yield composite(crop, black, crops.channels)


def _fields(location: Location, rows: npt.NDArray[np.int64], size: int) -> Iterator[Pixels]:
    group = need(location, "fovs", "ingest SOURCE STORE")
    roles = tuple(map(str, read_column(group, "channel")))
    background, heights, widths = (
        read_column(group, name) for name in ("background", "height", "width")
    )
    image = array_of(group, "image")
    for row in rows:
        field = np.asarray(image[int(row), :, : int(heights[row]), : int(widths[row])])
        step = max(1, max(field.shape[1:]) // (2 * size))
        rgb = composite(_shrunk(field, step), background[row], roles)
        tile = Image.new("RGB", (size, size))
        tile.paste(_fitted(Image.fromarray(rgb), size))
        yield np.asarray(tile)


def _shrunk(field: npt.NDArray[np.generic], step: int) -> npt.NDArray[np.float32]:
    """Means of `step` x `step` pixels: contrast costs a tenth of what it would on all of them."""
    channels, height, width = field.shape
    rows, columns = height // step, width // step
    blocks = field[:, : rows * step, : columns * step].reshape(channels, rows, step, columns, step)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float32))


def _fitted(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(fitted, Image.Resampling.LANCZOS)


def jpeg_url(pixels: Pixels, quality: int) -> str:
    """A picture `(y, x, 3)` as a data URL."""
    file = io.BytesIO()
    # Full chroma: with the usual halved one, green on blue smears.
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def make_sheets(
    location: Location, samples: Samples, rows: npt.NDArray[np.int64], budget_bytes: int
) -> Sheets:
    """Hover pictures of as many of `rows` as the budget holds, evenly spaced among them."""
    tile_px = 128 if budget_bytes >= len(rows) * 128**2 * BYTES_A_PIXEL else 64
    most = int(budget_bytes / (tile_px**2 * BYTES_A_PIXEL))
    shown = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    tile = np.full(len(rows), -1, np.int32)
    tile[shown] = np.arange(len(shown))
    urls: list[str] = []
    left = budget_bytes
    sheet = np.zeros((SIDE, tile_px, SIDE, tile_px, 3), np.uint8)
    for number, picture in enumerate(pictures(location, samples, rows[shown], tile_px)):
        at = number % SIDE**2
        sheet[at // SIDE, :, at % SIDE] = picture
        if at == SIDE**2 - 1 or number == len(shown) - 1:
            used = at // SIDE + 1
            urls.append(jpeg_url(sheet[:used].reshape(used * tile_px, -1, 3), quality=78))
            left -= len(urls[-1])
            if left < 0:  # these pictures are busier than any measured
                urls.pop()
                tile[tile >= len(urls) * SIDE**2] = -1
                break
            sheet[:] = 0
    return Sheets(urls, tile, tile_px)
