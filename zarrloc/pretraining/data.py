"""What the loop reads: order, shuffle pool, caches, and batches ready for the device.

Shards come in shuffled order and samples mix over a window of a few shards, so a shard is decoded
once an epoch and memory stays bounded. The order is a pure function of seed and epoch: nothing
about the sampler needs saving. A process decodes only its own samples.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.groups.shuffled import mixed

Rows = npt.NDArray[np.int64]
Image = npt.NDArray[Any]


class Source(Protocol):
    """Samples `(channel, y, x)` of one shape, in shards that are read as a whole."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The channels' roles."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, `(channel, y, x)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the stored values."""

    @property
    def shard(self) -> Rows:
        """The shard of each sample, `(sample,)`."""

    @property
    def extents(self) -> Rows:
        """Real rows and columns of each sample, `(sample, 2)`; the rest is padding."""

    @property
    def decodes(self) -> int:
        """Fields decoded so far."""

    def load(self, rows: Rows) -> Image:
        """Samples `rows`, ascending and all of one shard, as `(n, channel, y, x)`."""


@dataclass(frozen=True)
class Pixels:
    """A batch: stored values `(n, c, y, x)` and, `(n, c)`, what becomes 0 and 1."""

    images: Tensor
    low: Tensor
    high: Tensor
    extents: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: "slice | Tensor") -> "Pixels":
        return Pixels(self.images[rows], self.low[rows], self.high[rows], self.extents[rows])

    def channel(self, which: Tensor) -> "Pixels":
        """One channel of each sample: `which` `(n,)`."""
        each = torch.arange(len(which), device=which.device)
        images, low, high = (
            part[each, which][:, None] for part in (self.images, self.low, self.high)
        )
        return Pixels(images, low, high, self.extents)

    def to(self, device: torch.device) -> "Pixels":
        """The same on a device; from pinned memory, so that the copy runs beside the compute."""
        parts = [self.images, self.low, self.high, self.extents]
        if device.type == "cuda" and self.images.device.type == "cpu":
            parts = [part.pin_memory() for part in parts]
        return Pixels(*(part.to(device, non_blocking=True) for part in parts))

    def unit(self) -> Tensor:
        """Intensities in [0, 1] per image and channel, float32; a flat channel is 0."""
        values = self.images
        if values.dtype == torch.int16:  # uint16 in disguise, see `pixels`
            values = values.int().bitwise_and_(0xFFFF)
        low, high = self.low[..., None, None], self.high[..., None, None]
        unit = values.to(torch.float32, copy=True)  # and then in place: memory is what costs here
        return unit.sub_(low).div_((high - low).clamp(min=1e-12)).clamp_(0, 1)


def pixels(images: Image, extents: Rows) -> Pixels:
    """A batch of decoded samples; minimum and maximum are those of each image's real part."""
    real = [image[:, :h, :w] for image, (h, w) in zip(images, extents, strict=True)]
    low = np.array([image.min((1, 2)) for image in real], np.float32)
    high = np.array([image.max((1, 2)) for image in real], np.float32)
    # torch indexes no uint16 on a GPU: such pixels travel as int16 with the same bits.
    stored = images.view(np.int16) if images.dtype == np.uint16 else images
    return Pixels(*map(torch.from_numpy, (stored, low, high, extents)))


@dataclass
class Arrays:
    """Samples that lie in memory (or in a memory-mapped file)."""

    images: Image
    roles: tuple[str, ...]
    shard: Rows
    extents: Rows
    decodes: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, `(channel, y, x)`."""
        return self.images.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        return self.images.dtype

    def load(self, rows: Rows) -> Image:
        """Samples `rows` as `(n, channel, y, x)`."""
        return np.asarray(self.images[rows])


@dataclass(frozen=True)
class Beside:
    """What is known of a source's samples beside their pixels."""

    present: npt.NDArray[np.bool_] | None = None
    """`(sample, channel)`: whether its store has it; None where all have all."""
    siblings: "Siblings | None" = None
    """Where two views are of two fields."""

    def shown(self, rows: Rows, used: Tensor, generator: torch.Generator | None) -> Tensor:
        """The channels that a step shows of samples `rows`, bool `(n, channel)`.

        They are of those that the network is given: `used`, bool `(channel,)`. With a generator
        some are left out, the same for all samples that have the same: as many as a draw from 1 to
        all of them leaves, in a drawn order (ChannelViT's hierarchical channel sampling, Bao et
        al. 2024, section 3.2).
        """
        there = used.repeat(len(rows), 1)
        if self.present is not None:
            there &= torch.from_numpy(self.present[rows])
        if generator is None:
            return there
        most = 1 + int(torch.randint(int(used.sum()), (1,), generator=generator))
        order = torch.randperm(len(used), generator=generator)
        sorted_ = there[:, order]
        kept = sorted_ & (sorted_.cumsum(1) <= most)
        return torch.zeros_like(there).index_copy(1, order, kept)


ALONE = Beside()
"""All channels, and views of one sample."""


class Siblings:
    """Samples of one protein, of which two fields are two views."""

    def __init__(self, protein: npt.NDArray[np.str_], fov: Rows) -> None:
        _, self._protein = np.unique(protein, return_inverse=True)
        self._fov = fov
        order = np.argsort(self._protein, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(self._protein))[:-1])

    @property
    def any(self) -> bool:
        """Whether any protein has two fields."""
        return any(len(np.unique(self._fov[members])) > 1 for members in self._members)

    def drawn(self, rows: Rows, generator: torch.Generator) -> Rows:
        """A sample of another field of each one's protein; itself where there is none."""
        places = torch.rand(len(rows), generator=generator, dtype=torch.float64).tolist()
        found = rows.copy()
        for i, (row, place) in enumerate(zip(rows.tolist(), places, strict=True)):
            others = self._members[self._protein[row]]
            others = others[self._fov[others] != self._fov[row]]
            if len(others):
                found[i] = others[int(place * len(others))]
        return found


def nested_subset(n: int, count: int, seed: int) -> Rows:
    """`count` of `n` rows, ascending; with one seed, fewer are a subset of more."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:count])


def epoch_order(shard: Rows, pool: int, seed: int, epoch: int) -> Rows:
    """A permutation of the samples that needs at most `pool + 1` shards at any time."""
    return mixed(shard, pool, np.random.default_rng((seed, epoch)))


def epochs(shard: Rows, pool: int, seed: int, batch: int, steps: range) -> Iterator[list[Rows]]:
    """For each epoch that `steps` touches: the samples of each of its batches.

    What an epoch leaves over after its last full batch is left out.
    """
    per_epoch = len(shard) // batch
    for epoch, group in itertools.groupby(steps, key=lambda step: step // per_epoch):
        order = epoch_order(shard, pool, seed, epoch)
        yield [order[step % per_epoch * batch :][:batch] for step in group]


def pooled(source: Source, batches: list[Rows], threads: int = 1) -> Iterator[Pixels]:
    """Batches of one epoch: a shard's samples are decoded together, before the first is wanted.

    So many `threads` decode a shard each, at most as many shards ahead of the batch.
    """
    wanted = np.sort(np.concatenate(batches))
    shards = source.shard[wanted]
    fresh = _first_wanted(source, batches)
    order = iter([shard for some in fresh for shard in some])
    loading: dict[int, Future[Image]] = {}
    waiting: dict[int, Image] = {}

    def load_next(pool: ThreadPoolExecutor) -> None:
        shard = next(order, None)
        if shard is not None:
            loading[shard] = pool.submit(source.load, wanted[shards == shard])

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            load_next(pool)
        for rows, some in zip(batches, fresh, strict=True):
            for shard in some:
                images = loading.pop(shard).result()
                load_next(pool)
                waiting.update(zip(wanted[shards == shard].tolist(), images, strict=True))
            found = np.stack([waiting.pop(row) for row in rows.tolist()])
            yield pixels(found, source.extents[rows])


def _first_wanted(source: Source, batches: list[Rows]) -> list[list[int]]:
    """For each batch, the shards that no batch before it has samples of."""
    seen: set[int] = set()
    fresh = []
    for rows in batches:
        fresh.append(sorted(set(source.shard[rows].tolist()) - seen))
        seen.update(fresh[-1])
    return fresh


def taken(source: Source, resident: Pixels | None, rows: Rows) -> Pixels:
    """Samples `rows` in any order, of a source that lies in memory, or on the device."""
    if resident is not None:
        return resident[torch.from_numpy(rows).to(resident.images.device)]
    return pixels(source.load(rows), source.extents[rows])


def decode_all(source: Source, images: Image | None = None) -> Arrays:
    """All samples, each shard decoded once: into `images`, or into new memory."""
    if images is None:
        images = np.empty((len(source.shard), *source.shape), source.dtype)
    for shard in np.unique(source.shard):
        rows = np.flatnonzero(source.shard == shard)
        images[rows] = source.load(rows)
    return Arrays(images, source.roles, source.shard, source.extents)
