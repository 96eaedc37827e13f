"""Shuffled reading for training: whole shards, mixed in a buffer, every row once an epoch.

A row at a time in random order decodes a chunk, and asks the disk, for every row. Here shards come
in random order, each in one read; a row falls a random way back behind its shard, at most
`buffer` shards, so that batches mix. Worker processes share the shards, and a shard is decoded by
one of them, once an epoch.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from zarrloc.errors import ConfigError

Rows = npt.NDArray[np.int64]


class Sharded(Protocol):
    """What can be read so: `Fields`, `Crops`, or a class of your own."""

    @property
    def shard(self) -> Rows:
        """The shard of each row, `(row,)`; the rows of a shard are neighbours."""

    @property
    def usable(self) -> Rows:
        """The rows that are read where none are named."""

    def load(self, rows: Rows) -> Any:
        """All that `rows`, ascending and of one shard, need, in as few reads as can be."""

    def cut(self, held: Any, rows: Rows) -> Tensor:
        """`rows` out of what `load` gave, along the first axis."""


class Shuffle(NamedTuple):
    """A batch: `pixels (n, channel, y, x)`, and `rows (n,)` int64 in fields or table."""

    pixels: Tensor
    rows: Tensor


class Shuffled(IterableDataset[Shuffle]):
    """Batches of fields or crops in random order, read shard by shard.

    Each epoch has an order of its own, by `torch.manual_seed` and `seed`, and every row once. At
    most `buffer + 2` shards are held by a process.

    Parameters
    ----------
    source
        `store.fields()`, `store.crops(NAME)`, or anything that has what `Sharded` names.
    batch_size
        Rows of a batch; the last one of a process may have fewer.
    rows
        The rows to read, such as those of a training fold. By default fields without an error, or
        cells that are kept.
    buffer
        Over how many shards rows are mixed.
    seed
        Of the order, beside torch's.
    drop_last
        Leave out a last batch with fewer rows.
    part
        `(rank, ranks)` in a training of several processes: each reads shards of its own. It needs
        `set_epoch` before each epoch, as torch's `DistributedSampler` does.

    Examples
    --------
    >>> import zarrloc as zl
    >>> store = zl.open("my.zarr")
    >>> batches = zl.Shuffled(store.fields(), batch_size=4)
    >>> sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(10))
    True

    With worker processes, in a script below `if __name__ == "__main__":`

    >>> loader = batches.loader(workers=4)
    """

    def __init__(
        self,
        source: Sharded,
        *,
        batch_size: int = 64,
        rows: npt.ArrayLike | None = None,
        buffer: int = 4,
        seed: int = 0,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        for name, value in (("batch_size", batch_size), ("buffer", buffer)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it has to be 1 or more")
        if not 0 <= part[0] < part[1]:
            raise ConfigError(f"part is {part}; it is (rank, ranks), with a rank below ranks")
        self.source = source
        self.rows = source.usable if rows is None else np.unique(np.asarray(rows, np.int64))
        if len(self.rows) and not 0 <= self.rows[0] <= self.rows[-1] < len(source.shard):
            raise ConfigError(
                f"rows go from {self.rows[0]} to {self.rows[-1]}; there are {len(source.shard)}"
            )
        self.batch_size, self.buffer, self.drop_last = batch_size, buffer, drop_last
        self.seed, self.part = seed, part
        # Workers that live on see it change.
        self._epoch: Tensor = torch.full((), -1).share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the order a function of `seed` and `epoch` alone, in all processes."""
        self._epoch.fill_(epoch)

    def loader(self, workers: int = 0, **more: Any) -> "DataLoader[Shuffle]":
        """A `torch.utils.data.DataLoader` of these batches; `more` are its own arguments.

        Workers are spawned: the store's readers have threads, which a fork would lose.
        """
        if workers:
            more = {"multiprocessing_context": "spawn", "persistent_workers": True, **more}
        return DataLoader(self, batch_size=None, num_workers=workers, **more)

    def __iter__(self) -> Iterator[Shuffle]:
        rows = self._order()
        shard = self.source.shard[rows]
        coming = deque(dict.fromkeys(shard.tolist()))
        last = {name: place for place, name in enumerate(shard.tolist())}
        loading: deque[tuple[int, Future[Any]]] = deque()
        held: dict[int, Any] = {}

        with ThreadPoolExecutor(1) as reader:

            def load_next() -> None:
                if coming:
                    name = coming.popleft()
                    wanted = np.sort(rows[shard == name])
                    loading.append((name, reader.submit(self.source.load, wanted)))

            load_next()
            for start in range(0, len(rows), self.batch_size):
                stop = start + self.batch_size
                if self.drop_last and stop > len(rows):
                    return
                while loading and set(shard[start:stop].tolist()) - held.keys():
                    name, future = loading.popleft()
                    load_next()
                    held[name] = future.result()
                yield self._batch(held, rows[start:stop], shard[start:stop])
                for name in [name for name in held if last[name] < stop]:
                    del held[name]

    def _batch(self, held: dict[int, Any], rows: Rows, shard: Rows) -> Shuffle:
        parts = [(held[name], rows[shard == name]) for name in np.unique(shard).tolist()]
        pixels = torch.cat([self.source.cut(one, some) for one, some in parts])
        return Shuffle(pixels, torch.from_numpy(np.concatenate([some for _, some in parts])))

    def _order(self) -> Rows:
        """This process's rows in the order of this epoch."""
        worker, epoch = get_worker_info(), int(self._epoch)
        ahead, self._passes = self._passes, self._passes + 1
        rank, ranks = self.part
        if epoch >= 0:
            key = [self.seed, 0, epoch]
        elif ranks > 1:
            raise ConfigError(f"part is {self.part}; call set_epoch before each epoch")
        elif worker is None:
            key = [self.seed, 1, torch.initial_seed() % 2**63, ahead]
        else:  # the same in all workers, and another for each iterator of the loader
            key = [self.seed, 2, (worker.seed - worker.id) % 2**63, ahead]
        random = np.random.default_rng(key)
        shard = self.source.shard[self.rows]
        names = random.permutation(np.unique(shard))
        at, of = (rank, ranks)
        if worker is not None:
            at, of = rank * worker.num_workers + worker.id, ranks * worker.num_workers
        mine = np.isin(shard, names[at::of])
        return self.rows[mine][mixed(shard[mine], self.buffer, random)]


def mixed(shard: Rows, buffer: int, random: np.random.Generator) -> Rows:
    """A permutation of rows that needs at most `buffer + 1` shards at any time.

    Shards stand in random order, and each row falls up to `buffer` places behind its own.
    """
    names, index = np.unique(shard, return_inverse=True)
    place = random.permutation(len(names))[index] + buffer * random.random(len(shard))
    return np.argsort(place, kind="stable")
