"""Whole fields as a PyTorch dataset, read from the store as they are asked for."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zarrloc.groups.fovs import GROUP
from zarrloc.groups.receipts import ROW_DIGEST, check_array
from zarrloc.store.columns import array_of, decoded, read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need


class Decoded(NamedTuple):
    """Neighbouring fields: `images (field, channel, y, x)`, the first of them in row `first`."""

    first: int
    images: npt.NDArray[Any]


class Fields(Dataset[Tensor]):
    """The fields of a store, a map-style dataset.

    `fields[i]` is one field `(channel, y, x)`, `fields[a:b]` some of them. Cheap to pickle: each
    process opens the store for itself. In random order, read it through `Shuffled`.

    Parameters
    ----------
    store
        Path or address of the store.
    counts
        Give the counts as they are stored, in their dtype. By default what lies above the field's
        background, at least 0, as float32; padding of small fields is 0.

    Attributes
    ----------
    channels : tuple of str
        The channels' roles.
    shard : ndarray of int64, (field,)
        The shard that each field lies in.
    usable : ndarray of int64
        The fields without an `error`.

    Raises
    ------
    StoreError
        Where the store or its fields are absent.

    Examples
    --------
    >>> from zarrloc.groups.fields import Fields
    >>> fields = Fields("my.zarr")
    >>> fields[0].shape
    torch.Size([2, 96, 96])
    """

    def __init__(self, store: str | Path | Location, *, counts: bool = False) -> None:
        self._again = functools.partial(Fields, store, counts=counts)
        self._counts = counts
        self._fovs = need(Location.of(store), GROUP, "ingest SOURCE STORE")
        self.channels = tuple(map(str, read_column(self._fovs, "channel")))
        image = array_of(self._fovs, "image")
        self.shape = image.shape[1:]
        self.shard = np.arange(image.shape[0]) // (image.shards or image.chunks)[0]
        self.usable = np.flatnonzero(read_column(self._fovs, "error") == "")
        self._background = read_column(self._fovs, "background")
        self._digests = read_column(self._fovs, ROW_DIGEST)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, index: int | slice) -> Tensor:
        rows = np.arange(len(self))[index]
        if isinstance(index, slice) and not len(rows):
            return torch.empty((0, *self.shape))
        found = torch.stack(self.__getitems__(np.atleast_1d(rows).tolist()))
        return found if isinstance(index, slice) else found[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Tensor]:
        """Several fields in any order, each run of neighbours in one read; torch asks so."""
        wanted = np.unique(np.asarray(rows))
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        found: dict[int, Tensor] = {}
        for start, stop in itertools.pairwise([*starts, len(wanted)]):
            run = wanted[start:stop]
            found |= dict(zip(run.tolist(), self.cut(self.load(run), run), strict=True))
        return [found[int(row)] for row in rows]

    def load(self, rows: npt.NDArray[np.int64]) -> Decoded:
        """Fields from the first to the last of `rows`, in one read, compared with their digests."""
        first, stop = int(rows[0]), int(rows[-1]) + 1
        images = decoded(array_of(self._fovs, "image"), slice(first, stop))
        check_array(GROUP, images, self._digests[first:stop], first)
        return Decoded(first, images)

    def cut(self, held: Decoded, rows: npt.NDArray[np.int64]) -> Tensor:
        """Fields `rows` out of what `load` gave, `(row, channel, y, x)`."""
        counts = held.images[rows - held.first]
        if self._counts:
            return torch.from_numpy(counts)
        above = counts - self._background[rows][:, :, None, None]
        return torch.from_numpy(np.maximum(above, 0, out=above))
