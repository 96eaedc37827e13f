"""Fields with their masks, as exports of images read them: shard by shard, padding cut off."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.embeddings import read_text
from zarrloc.groups.receipts import ROW_DIGEST, check_array
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.document import groups
from zarrloc.store.location import Location
from zarrloc.store.read import need

SAMPLED = 24
"""Fields that contrast limits are taken from."""


@dataclass(frozen=True)
class Channel:
    """One channel as a viewer shows it; `limits` are counts at black and at full colour."""

    name: str
    color: str
    """Six hex digits."""
    limits: tuple[float, float]


@dataclass(frozen=True)
class Field:
    """One field: `image (channel, y, x)`, and `masks (y, x)` by segmentation."""

    row: int
    image: npt.NDArray[Any]
    masks: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Images:
    """The fields of a store with some of its segmentations."""

    fovs: zarr.Group
    masks: Mapping[str, zarr.Group]
    names: npt.NDArray[np.str_]
    failed: dict[str, str]
    """Field -> why it has no image."""
    pixel_size_um: float | None
    channels: tuple[Channel, ...]

    @classmethod
    def of(cls, location: Location, what: str, *, masks: bool = True) -> "Images":
        """`fovs` with every segmentation (or none), or `segmentations/NAME` with that one.

        Raises
        ------
        ConfigError
            Where `what` is another kind of group.
        StoreError
            Where a group is absent, or a segmentation was made for other fields.
        """
        kind, _, name = what.partition("/")
        if kind not in ("fovs", "segmentations") or (kind == "fovs") == bool(name):
            raise ConfigError(
                f"'{what}' has no images; export fovs (with every segmentation), or "
                "segmentations/NAME"
            )
        fovs = need(location, "fovs", "ingest SOURCE STORE")
        names = read_text(fovs, "fov")
        paths = [path for path in groups(location) if path.startswith("segmentations/")]
        if name:
            paths = [f"segmentations/{name}"]
        found = {}
        for path in paths if masks else ():
            group = need(location, path, f"segment STORE --name {path.split('/')[1]}")
            if array_of(group, "mask").shape[0] != len(names):
                raise StoreError(
                    f"'{path}' has masks of {array_of(group, 'mask').shape[0]} of {len(names)} "
                    "fields; run the same `zarrloc segment` again"
                )
            found[path.split("/")[1]] = group
        error = read_text(fovs, "error")
        failed = {str(names[i]): str(error[i]) for i in np.flatnonzero(error != "").tolist()}
        pixel: Any = fovs.attrs.get("pixel_size_um")
        return cls(fovs, found, names, failed, pixel, _channels(fovs, error == ""))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The images' number type."""
        return np.dtype(array_of(self.fovs, "image").dtype)

    def text(self, name: str) -> npt.NDArray[np.str_]:
        """A text column of the fields; "" where there is none."""
        if name not in self.fovs:
            return np.full(len(self.names), "", dtype=np.str_)
        return read_text(self.fovs, name)

    def __iter__(self) -> Iterator[Field]:
        """Every field that has an image, in the store's order; one shard is held at a time."""
        array = array_of(self.fovs, "image")
        shard = (array.shards or array.chunks)[0]
        for start in range(0, len(self.names), shard):
            stop = min(start + shard, len(self.names))
            image = self._values(None, start, stop)
            masks = {name: self._values(name, start, stop) for name in self.masks}
            for row in range(start, stop):
                if str(self.names[row]) not in self.failed:
                    real, at = self._real(row), row - start
                    cut = {name: mask[at][real] for name, mask in masks.items()}
                    yield Field(row, image[at][:, *real], cut)

    def read(self, row: int, mask: str | None) -> npt.NDArray[Any]:
        """The image `(channel, y, x)` of one field, or its `mask` `(y, x)`."""
        real = self._real(row)
        found: npt.NDArray[Any] = self._values(mask, row, row + 1)[0]
        return found[:, *real] if mask is None else found[real]

    def shape(self, row: int, mask: str | None) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of what `read` gives."""
        height, width = (part.stop for part in self._real(row))
        if mask is None:
            return (len(self.channels), height, width), self.dtype
        return (height, width), np.dtype(array_of(self.masks[mask], "mask").dtype)

    @cached_property
    def _sizes(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        return read_column(self.fovs, "height"), read_column(self.fovs, "width")

    def _real(self, row: int) -> tuple[slice, slice]:
        height, width = self._sizes
        return slice(0, int(height[row])), slice(0, int(width[row]))

    @cached_property
    def _digests(self) -> dict[str | None, npt.NDArray[np.uint64]]:
        found: dict[str | None, npt.NDArray[np.uint64]] = {
            name: read_column(group, ROW_DIGEST) for name, group in self.masks.items()
        }
        return {None: read_column(self.fovs, ROW_DIGEST), **found}

    def _values(self, mask: str | None, start: int, stop: int) -> npt.NDArray[Any]:
        """Images or masks of fields `start` to `stop`, with padding, after their digests."""
        group = self.fovs if mask is None else self.masks[mask]
        values = read_column(group, "image" if mask is None else "mask", stop, start)
        check_array(group.path, values, self._digests[mask][start:stop], start)
        return values


def _channels(fovs: zarr.Group, usable: npt.NDArray[np.bool_]) -> tuple[Channel, ...]:
    """Names and colours as the store has them; limits by some fields, evenly spread."""
    names = read_text(fovs, "channel").tolist()
    colors = read_text(fovs, "color").tolist() if "color" in fovs else ["#ffffff"] * len(names)
    rows = np.flatnonzero(usable)
    rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(int)]
    height, width = read_column(fovs, "height"), read_column(fovs, "width")
    image = array_of(fovs, "image")
    pixels = [
        np.asarray(image[int(row)])[:, : height[row] : 2, : width[row] : 2].reshape(len(names), -1)
        for row in rows
    ]
    if not pixels:
        return tuple(Channel(n, c.lstrip("#"), (0, 1)) for n, c in zip(names, colors, strict=True))
    low, high = np.percentile(np.concatenate(pixels, axis=1), [1, 99.8], axis=1)
    return tuple(
        Channel(name, color.lstrip("#").lower(), (float(a), float(max(b, a + 1))))
        for name, color, a, b in zip(names, colors, low, high, strict=True)
    )
