"""Pictures of rows, as small as a page can carry: JPEG tiles, many to a sheet."""

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from zarrloc.groups.crops import Crops
from zarrloc.groups.embeddings import Samples
from zarrloc.report.preview import Pixels, composite
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need

SIDE = 16
"""Tiles along a sheet's side."""
BATCH = 64
"""Rows whose pictures are in memory at once."""
QUALITY = 78
LARGE_PX, SMALL_PX = 128, 64
"""Sides of a tile: large where all rows fit the budget so, else small."""
PROBED = 32
"""Rows whose pictures tell how many bytes one takes."""
HEADROOM = 0.9
"""A sheet over the budget is dropped whole, so no more are begun than will surely fit."""


class Sheets(NamedTuple):
    """Hover pictures: JPEGs of 16 x 16 tiles as data URLs, and the tile of each row, -1 = none."""

    urls: list[str]
    tile: npt.NDArray[np.int32]


def pictures(
    location: Location, samples: Samples, rows: npt.NDArray[np.int64], size: int
) -> Iterator[Pixels]:
    """The rows' pictures `(size, size, 3)`, in ascending order of rows: whole fields or crops.

    A field that isn't square lies on black. Crops are what the network was shown.
    """
    if samples.cells is None:
        yield from field_pictures(location, rows, size)
        return
    settings = samples.stage.config
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    pixel: Any = fovs.attrs["pixel_size_um"]
    crops = Crops(
        location,
        samples.cells.split("/")[1],
        size=size,
        crop_um=settings["window_px"] * pixel if pixel else None,
        outside=settings["outside"],
    )
    black = np.zeros(len(crops.channels))
    for start in range(0, len(rows), BATCH):
        for crop in crops.take(rows[start : start + BATCH]).pixels.cpu().numpy():
            yield composite(crop, black, crops.channels)


def field_pictures(location: Location, rows: npt.NDArray[np.int64], size: int) -> Iterator[Pixels]:
    """Whole fields as pictures `(size, size, 3)`, in the order of `rows`."""
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
    tile_px = LARGE_PX
    most = _affordable(location, samples, rows, tile_px, budget_bytes)
    if most < len(rows):
        tile_px = SMALL_PX
        most = _affordable(location, samples, rows, tile_px, budget_bytes)
    shown = _spread(len(rows), most)
    tile = np.full(len(rows), -1, np.int32)
    tile[shown] = np.arange(len(shown))
    urls: list[str] = []
    left = budget_bytes
    batch: list[Pixels] = []
    for number, picture in enumerate(pictures(location, samples, rows[shown], tile_px), start=1):
        batch.append(picture)
        if len(batch) == SIDE**2 or number == len(shown):
            url = jpeg_url(_tiled(batch), QUALITY)
            left -= len(url)
            if left < 0:  # these are busier than those probed
                tile[tile >= len(urls) * SIDE**2] = -1
                break
            urls.append(url)
            batch = []
    return Sheets(urls, tile)


def _affordable(
    location: Location, samples: Samples, rows: npt.NDArray[np.int64], size: int, budget: int
) -> int:
    """How many pictures of that size the budget should hold."""
    probe = list(pictures(location, samples, rows[_spread(len(rows), PROBED)], size))
    bytes_each = len(jpeg_url(_tiled(probe), QUALITY)) / len(probe)
    return int(HEADROOM * budget / bytes_each)


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of `count` indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def _tiled(tiles: list[Pixels]) -> Pixels:
    """A sheet of tiles, 16 a row, black where there is none."""
    padded = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % SIDE)]
    rows = [np.hstack(padded[at : at + SIDE]) for at in range(0, len(padded), SIDE)]
    return np.vstack(rows)
