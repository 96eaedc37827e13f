"""Single cells as the network sees them: cut on demand from image and mask, never stored.

The paper's crop (Appendix B: a 512 px cut-out about the mask's centroid, zoomed by 2 about its
centre, 512 px out) is a 256 px window about the centroid, 53 um of an OpenCell field. The order
matters: the field's background comes off first, then everything outside the mask turns black,
then one resampling to the network's size. Masking first would leave the camera offset as a
bright silhouette, which holds most of a crop's variance.

Written out as uint16, the paper's 157,504 crops of two channels would take 165 GB.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import xarray as xr
from torch.utils.data import Dataset
from xarray.backends import BackendArray
from xarray.core import indexing  # the place that xarray's guide to backends names

from zarrloc.groups.receipts import ROW_DIGEST, check_array, read_row
from zarrloc.pixels.window import PAPER_PX, window_px
from zarrloc.store.columns import array_of, decoded, read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need


@dataclass(frozen=True)
class CropSpec:
    """What a crop is: `window_px` source pixels a side, resampled to `size` pixels a side.

    `outside="keep"` leaves the neighbours in: the cell's surroundings, no longer one cell.
    """

    window_px: int = PAPER_PX
    size: int = 224
    outside: Literal["black", "keep"] = "black"


class Field(NamedTuple):
    """One decoded FOV: `image` (channel, y, x), `mask` (y, x), `background` (channel,)."""

    image: torch.Tensor
    mask: torch.Tensor
    background: torch.Tensor


class Cut(NamedTuple):
    """`pixels` (cell, channel, size, size) float32, at least 0; `inside` (cell, size, size) bool.

    `inside` is the cell's own mask, whatever `outside` was.
    """

    pixels: torch.Tensor
    inside: torch.Tensor


class Batch(NamedTuple):
    """`rows` (k,) int64 into the cells asked for, and their `Cut`."""

    rows: npt.NDArray[np.int64]
    pixels: torch.Tensor
    inside: torch.Tensor


def cut(field: Field, labels: torch.Tensor, centroids: torch.Tensor, spec: CropSpec) -> Cut:
    """Crops of cells `labels` (k,) at `centroids` (k, 2) y, x in pixels, on the field's device.

    Below the background is 0, and so is all that lies outside the field. Windows start on whole
    pixels, at the rounded centroid, as the paper's do: at `size == window_px` nothing is
    interpolated. Down-sampling is antialiased.
    """
    half = spec.window_px // 2
    background = field.background.to(torch.float32)[:, None, None]
    image = (field.image.to(torch.float32) - background).clamp_(min=0)
    image = F.pad(image, (half, half, half, half))
    mask = F.pad(field.mask.to(torch.int32), (half, half, half, half))
    top, left = centroids.round().to(torch.int64).unbind(1)
    # Every window of the padded field is a view; indexing it copies only those asked for.
    window = spec.window_px
    pixels = image.unfold(1, window, 1).unfold(2, window, 1)[:, top, left].transpose(0, 1)
    ids = mask.unfold(0, window, 1).unfold(1, window, 1)[top, left]
    inside = (ids == labels.to(torch.int32)[:, None, None]).to(torch.float32)[:, None]
    if spec.outside == "black":
        pixels = pixels * inside
    if spec.size != window:
        pixels, inside = (
            F.interpolate(x, size=(spec.size, spec.size), mode="bilinear", antialias=True)
            for x in (pixels, inside)
        )
    return Cut(pixels.contiguous(), inside[:, 0] >= 0.5)


def z_score(pixels: torch.Tensor, inside: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """Z-score of each crop and channel by the cell's own pixels: `--norm cell`.

    `pixels` (cell, channel, y, x), `inside` (cell, y, x). Mean and population sd are those of
    `inside`; the whole crop goes through the same affine map, so black stays darkest.
    `preprocess.normalise` does it over all pixels, as Dino4Cells embeds.
    """
    weight = inside[:, None].to(pixels.dtype)
    count = weight.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (pixels * weight).sum((2, 3), keepdim=True) / count
    variance = ((pixels - mean).square() * weight).sum((2, 3), keepdim=True) / count
    return (pixels - mean) / (variance.sqrt() + eps)


def batches(
    fov_index: npt.NDArray[np.integer[Any]],
    labels: npt.NDArray[np.integer[Any]],
    centroids: npt.NDArray[np.floating[Any]],
    read: Callable[[int], Field],
    spec: CropSpec,
    batch_size: int,
) -> Iterator[Batch]:
    """All cells in order, `batch_size` at a time across FOVs; `read(fov)` once per run of a FOV.

    `fov_index` (cell,), `labels` (cell,), `centroids` (cell, 2). With cells sorted by FOV, as the
    store has them, every FOV is decoded once.
    """
    held: list[Cut] = []
    first = 0
    for start, stop in _runs(fov_index):
        field = read(int(fov_index[start]))
        while start < stop:
            end = min(stop, first + batch_size)
            held.append(_cut(field, labels[start:end], centroids[start:end], spec))
            if end == first + batch_size or end == len(fov_index):
                pixels, inside = (torch.cat(parts) for parts in zip(*held, strict=True))
                yield Batch(np.arange(first, end), pixels, inside)
                held, first = [], end
            start = end


def _runs(fov_index: npt.NDArray[np.integer[Any]]) -> list[tuple[int, int]]:
    """Start and stop of each run of one FOV."""
    starts = np.flatnonzero(np.diff(fov_index, prepend=-1)).tolist()
    return list(itertools.pairwise([*starts, len(fov_index)]))


def _cut(
    field: Field,
    labels: npt.NDArray[np.integer[Any]],
    centroids: npt.NDArray[np.floating[Any]],
    spec: CropSpec,
) -> Cut:
    device = field.image.device
    where = torch.from_numpy(np.ascontiguousarray(centroids)).to(device)
    return cut(field, torch.from_numpy(labels.astype(np.int64)).to(device), where, spec)


class Decoded(NamedTuple):
    """Neighbouring fields, the first of them `first`: images `(field, channel, y, x)`, masks."""

    first: int
    images: npt.NDArray[Any]
    masks: npt.NDArray[Any]


class Crops(Dataset[torch.Tensor]):
    """The crops of a cell table, read from the store as they are asked for: a map-style dataset.

    `crops[i]` is one cell `(channel, size, size)` float32 and `crops[a:b]` some of them;
    `crops.batches(n)` streams the table in order, `zarrloc.Shuffled(crops)` in random order, for
    training; `crops.to_xarray()` is the lazy view.
    `labels`, `fov_index`, `keep` and `centroids` are the table's columns. Cheap to pickle: each
    process opens the store for itself and caches its own last `cached_fovs` decoded FOVs.
    """

    def __init__(
        self,
        store: str | Path | Location,
        cells: str,
        *,
        size: int = CropSpec.size,
        crop_um: float | None = None,
        outside: Literal["black", "keep"] = CropSpec.outside,
        device: str = "cpu",
        cached_fovs: int = 32,
    ) -> None:
        """Open `cells/<cells>` with its masks and images. Raises StoreError, ConfigError."""
        settings: dict[str, Any] = {
            "size": size,
            "crop_um": crop_um,
            "outside": outside,
            "device": device,
            "cached_fovs": cached_fovs,
        }
        self._again = functools.partial(Crops, store, cells, **settings)
        self._device = device
        location = Location.of(store)
        table = need(location, f"cells/{cells}", f"segment --name {cells}")
        self._fovs = need(location, "fovs", "ingest")
        self._masks = need(location, f"segmentations/{cells}", f"segment --name {cells}")
        pixel_size_um: Any = self._fovs.attrs.get("pixel_size_um")
        self.spec = CropSpec(window_px(crop_um, pixel_size_um), size, outside)
        self.channels = tuple(map(str, read_column(self._fovs, "channel")))
        self.fov_index = read_column(table, "fov_index")
        self.labels = read_column(table, "mask_label")
        self.keep = read_column(table, "keep").astype(bool)
        image = array_of(self._fovs, "image")
        self.shard = self.fov_index.astype(np.int64) // (image.shards or image.chunks)[0]
        self.usable = np.flatnonzero(self.keep)
        self.centroids = np.stack(
            [read_column(table, "centroid_y"), read_column(table, "centroid_x")], axis=1
        )
        self._background = read_column(self._fovs, "background")
        self._digests = tuple(read_column(group, ROW_DIGEST) for group in (self._fovs, self._masks))
        self.field = functools.lru_cache(cached_fovs)(self.read)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice) -> torch.Tensor:
        rows = np.arange(len(self))[index]
        pixels = self.take(np.atleast_1d(rows)).pixels
        return pixels if isinstance(index, slice) else pixels[0]

    def read(self, fov: int) -> Field:
        """Decode one FOV, compared with its digests. `field` is this, cached."""
        image = read_row(self._fovs, "image", fov, self._digests[0])
        mask = read_row(self._masks, "mask", fov, self._digests[1])
        parts = (image, mask, self._background[fov])
        return Field(*(torch.from_numpy(part).to(self._device) for part in parts))

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Cut:
        """Crops of `rows` (k,) in any order, each FOV among them decoded at most once."""
        size = self.spec.size
        shape = (len(rows), len(self.channels), size, size)
        pixels = torch.empty(shape, dtype=torch.float32, device=self._device)
        inside = torch.empty((len(rows), size, size), dtype=torch.bool, device=self._device)
        order = np.argsort(self.fov_index[rows], kind="stable")
        by_fov = rows[order]
        for start, stop in _runs(self.fov_index[by_fov]):
            some = by_fov[start:stop]
            field = self.field(int(self.fov_index[some[0]]))
            at = torch.from_numpy(order[start:stop]).to(self._device)
            pixels[at], inside[at] = _cut(field, self.labels[some], self.centroids[some], self.spec)
        return Cut(pixels, inside)

    def __getitems__(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Several crops in any order, each FOV among them decoded once; torch asks so."""
        return list(self.take(np.asarray(rows)).pixels)

    def load(self, rows: npt.NDArray[np.int64]) -> Decoded:
        """The fields of `rows`, from the first to the last in one read, and their masks."""
        fovs = self.fov_index[rows]
        first, stop = int(fovs.min()), int(fovs.max()) + 1
        held = []
        for group, name, digests in zip(
            (self._fovs, self._masks), ("image", "mask"), self._digests, strict=True
        ):
            held.append(decoded(array_of(group, name), slice(first, stop)))
            check_array(group.path, held[-1], digests[first:stop], first)
        return Decoded(first, *held)

    def cut(self, held: Decoded, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Crops of `rows` out of what `load` gave: each window alone, not its whole field."""
        window, half = self.spec.window_px, self.spec.window_px // 2
        pixels = np.zeros((len(rows), len(self.channels), window, window), np.float32)
        corners = np.rint(self.centroids[rows]).astype(np.int64) - half
        for at, (row, corner) in enumerate(zip(rows.tolist(), corners.tolist(), strict=True)):
            fov = int(self.fov_index[row])
            image, mask = held.images[fov - held.first], held.masks[fov - held.first]
            y, x = (
                slice(max(start, 0), min(start + window, side))
                for start, side in zip(corner, mask.shape, strict=True)
            )
            own = None
            if self.spec.outside == "black":  # all that is not black lies in the cell's own box
                own = mask[y, x] == self.labels[row]
                y, down = _narrowed(y, own.any(axis=1))
                x, across = _narrowed(x, own.any(axis=0))
                own = own[down, across]
            to = pixels[at, :, y.start - corner[0] : y.stop - corner[0]]
            to = to[..., x.start - corner[1] : x.stop - corner[1]]
            np.subtract(image[:, y, x], self._background[fov][:, None, None], out=to)
            np.maximum(to, 0, out=to)
            if own is not None:
                np.multiply(to, own, out=to)
        found = torch.from_numpy(pixels).to(self._device)
        size = (self.spec.size, self.spec.size)
        if self.spec.size != window:
            found = F.interpolate(found, size=size, mode="bilinear", antialias=True)
        return found

    def batches(self, batch_size: int, *, all_cells: bool = False) -> Iterator[Batch]:
        """Kept cells (or all) in table order, every FOV decoded once; `rows` are the table's."""
        rows = np.arange(len(self)) if all_cells else np.flatnonzero(self.keep)
        columns = (self.fov_index[rows], self.labels[rows], self.centroids[rows])
        for batch in batches(*columns, self.read, self.spec, batch_size):
            yield batch._replace(rows=rows[batch.rows])

    def to_xarray(self) -> xr.DataArray:
        """Lazy `crops (cell, channel, y, x)` float32: nothing is read until values are asked for.

        Any selection along `cell` is read FOV by FOV. `.chunk(cell=512)` makes it a Dask array
        with one task a block of cells.
        """
        view = xr.Variable(
            ("cell", "channel", "y", "x"), indexing.LazilyIndexedArray(_CropArray(self))
        )
        coords = {
            "channel": list(self.channels),
            "fov": ("cell", read_column(self._fovs, "fov")[self.fov_index]),
            "fov_index": ("cell", self.fov_index),
            "mask_label": ("cell", self.labels),
            "keep": ("cell", self.keep),
        }
        return xr.DataArray(view, coords, name="crops")


def _narrowed(within: slice, held: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of a slice from the first to the last place held, of the whole and of itself."""
    places = np.flatnonzero(held)
    first, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
    return slice(within.start + first, within.start + stop), slice(first, stop)


class _CropArray(BackendArray):
    """xarray's way into `Crops`: rows are grouped by FOV, the other axes are cut afterwards."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops
        self.shape = (len(crops), len(crops.channels), crops.spec.size, crops.spec.size)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._select
        )

    def _select(self, key: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        rows = np.arange(len(self.crops))[key[0]]
        values = self.crops.take(np.atleast_1d(rows)).pixels.cpu().numpy()
        for axis in (3, 2, 1):  # from the last: an integer drops its axis
            values = values[(slice(None),) * axis + (key[axis],)]
        return values[0] if rows.ndim == 0 else values
