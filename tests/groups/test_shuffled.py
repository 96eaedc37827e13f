"""Shuffled reading: every row once, whole shards, few at a time, another order each epoch."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.stores import make_store
from zarrloc.errors import ConfigError
from zarrloc.groups.crops import Crops
from zarrloc.groups.fields import Fields
from zarrloc.groups.shuffled import Shuffled, mixed


class Numbers:
    """Rows whose pixels are their number; counts what is read and held."""

    def __init__(self, rows: int, shard: int) -> None:
        self.shard = np.arange(rows) // shard
        self.usable = np.arange(rows)
        self.loads: list[int] = []

    def load(self, rows: npt.NDArray[np.int64]) -> Any:
        (shard,) = set(self.shard[rows].tolist())
        self.loads.append(shard)
        return shard

    def cut(self, held: int, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        assert set(self.shard[rows].tolist()) == {held}
        return torch.from_numpy(rows.astype(np.float32))[:, None, None, None]


def rows_of(shuffled: Shuffled) -> list[int]:
    return [row for batch in shuffled for row in batch.rows.tolist()]


def test_every_row_comes_once_an_epoch_and_every_shard_is_read_once() -> None:
    numbers = Numbers(103, 8)
    shuffled = Shuffled(numbers, batch_size=10, buffer=3)
    batches = list(shuffled)
    assert [len(batch.rows) for batch in batches] == [10] * 10 + [3]
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(103))
    torch.testing.assert_close(torch.cat([b.pixels for b in batches]).flatten(), rows.float())
    assert sorted(numbers.loads) == list(range(13))
    assert numbers.loads != sorted(numbers.loads)


def test_batches_mix_shards_and_no_more_than_the_buffer_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = Numbers(4000, 20)
    most: list[int] = []
    batch_of = Shuffled._batch

    def watched(self: Shuffled, held: dict[int, Any], *more: Any) -> Any:
        most.append(len(held))
        return batch_of(self, held, *more)

    monkeypatch.setattr(Shuffled, "_batch", watched)
    batches = list(Shuffled(numbers, batch_size=20, buffer=4))
    shards = [len(set((batch.rows // 20).tolist())) for batch in batches]
    assert np.mean(shards) > 3.5
    assert max(most) <= 4 + 2
    # Neighbours in the store are hardly ever neighbours in a batch.
    steps = [a - b for batch in batches for a, b in itertools.pairwise(batch.rows.tolist())]
    assert np.mean(np.abs(steps) == 1) < 0.25


def test_each_epoch_has_its_own_order_that_the_seeds_repeat() -> None:
    def two(seed: int = 0, torchs: int = 1) -> list[list[int]]:
        torch.manual_seed(torchs)
        shuffled = Shuffled(Numbers(50, 4), batch_size=8, seed=seed)
        return [rows_of(shuffled), rows_of(shuffled)]

    first, second = two()
    assert first != second
    assert two() == [first, second]
    assert two(seed=1)[0] != first
    assert two(torchs=2)[0] != first


def test_a_set_epoch_is_repeated_whatever_torch_says() -> None:
    shuffled = Shuffled(Numbers(50, 4), batch_size=8)
    shuffled.set_epoch(3)
    first = rows_of(shuffled)
    torch.manual_seed(99)
    assert rows_of(shuffled) == first
    shuffled.set_epoch(4)
    assert rows_of(shuffled) != first


def test_ranks_share_the_shards() -> None:
    seen = []
    for rank in range(3):
        shuffled = Shuffled(Numbers(100, 8), batch_size=7, part=(rank, 3))
        with pytest.raises(ConfigError, match="call set_epoch before each epoch"):
            next(iter(shuffled))
        shuffled.set_epoch(5)
        seen.append(rows_of(shuffled))
    assert sorted(itertools.chain(*seen)) == list(range(100))
    assert all({row // 8 for row in a}.isdisjoint(row // 8 for row in b)
               for a, b in itertools.combinations(seen, 2))  # fmt: skip


def test_only_rows_that_are_asked_for_and_no_last_short_batch() -> None:
    asked = [3, 50, 7, 51, 99, 3]
    assert sorted(rows_of(Shuffled(Numbers(100, 8), rows=asked))) == [3, 7, 50, 51, 99]
    numbers = Numbers(100, 8)
    batches = list(Shuffled(numbers, batch_size=30, drop_last=True))
    assert [len(batch.rows) for batch in batches] == [30, 30, 30]
    assert rows_of(Shuffled(Numbers(10, 2), rows=[])) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch_size": 0}, "batch_size is 0; it has to be 1 or more"),
        ({"buffer": 0}, "buffer is 0"),
        ({"part": (2, 2)}, "part is .2, 2.; it is .rank, ranks."),
        ({"rows": [0, 100]}, "rows go from 0 to 100; there are 100"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Shuffled(Numbers(100, 8), **wrong)


def test_a_read_that_fails_ends_the_epoch(tmp_path: Path) -> None:
    class Torn(Numbers):
        def load(self, rows: npt.NDArray[np.int64]) -> Any:
            if self.shard[rows[0]] == 3:
                raise OSError("gone")
            return super().load(rows)

    with pytest.raises(OSError, match="gone"):
        rows_of(Shuffled(Torn(100, 8)))


def test_an_order_needs_few_shards_at_any_time() -> None:
    shard = np.repeat(np.arange(40), 5)
    order = mixed(shard, 3, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(200))
    where = shard[order].tolist()
    first = {name: where.index(name) for name in set(where)}
    last = {name: len(where) - 1 - where[::-1].index(name) for name in set(where)}
    open_at = [sum(first[n] <= at <= last[n] for n in first) for at in range(200)]
    assert max(open_at) <= 4


# --- over a store -------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "oc.zarr", cells=(4, 0, 6, 2, 1, 3, 5), side=80)


@pytest.mark.parametrize("spec", [{"size": 64}, {"size": 256}, {"size": 64, "outside": "keep"}])
def test_shuffled_crops_are_the_crops(store: Path, spec: dict[str, Any]) -> None:
    crops = Crops(store, "cp", **spec)
    seen = []
    for batch in Shuffled(crops, batch_size=5, buffer=2):
        torch.testing.assert_close(batch.pixels, crops.take(batch.rows.numpy()).pixels)
        seen += batch.rows.tolist()
    assert sorted(seen) == np.flatnonzero(crops.keep).tolist()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core
def test_workers_share_the_shards_and_take_a_new_order_each_epoch(store: Path) -> None:
    fields = Fields(store)
    loader = Shuffled(fields, batch_size=2, buffer=2).loader(workers=2)
    torch.manual_seed(0)
    epochs = [list(loader) for _ in range(3)]
    orders = [[row for batch in epoch for row in batch.rows.tolist()] for epoch in epochs]
    assert [sorted(order) for order in orders] == [list(range(7))] * 3
    assert orders[0] != orders[1] or orders[1] != orders[2]
    for batch in epochs[0]:
        torch.testing.assert_close(batch.pixels, torch.stack(fields.__getitems__(batch.rows)))
