"""Order, pool, caches and the look-ahead."""

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from zarrloc.models.device import ahead
from zarrloc.pretraining.data import (
    Arrays,
    Beside,
    Siblings,
    decode_all,
    epoch_order,
    epochs,
    nested_subset,
    pixels,
    pooled,
    taken,
)

SHARD = np.repeat(np.arange(12), 8)


class Counting(Arrays):
    """Notes which rows were loaded, and decodes as many."""

    def load(self, rows: np.ndarray) -> np.ndarray:
        assert len(np.unique(self.shard[rows])) == 1
        assert (np.diff(rows) > 0).all()
        self.decodes += len(rows)
        self.loads = [*getattr(self, "loads", []), rows.tolist()]
        return super().load(rows)


def source(n: int = 96) -> Counting:
    images = np.random.default_rng(0).integers(0, 60_000, (n, 2, 6, 6), np.uint16)
    images[:, 0, 0, 0] = np.arange(n)  # says which sample this is
    return Counting(images, ("nucleus", "protein"), SHARD[:n], np.full((n, 2), 6))


def test_an_epoch_is_a_permutation_that_mixes_a_few_shards() -> None:
    """Each sample once; no shard is alive longer than its pool; seed and epoch decide."""
    order = epoch_order(SHARD, 3, seed=1, epoch=0)
    assert sorted(order) == list(range(96))
    places = [np.flatnonzero(SHARD[order] == shard) for shard in range(12)]
    alive = [sum(p[0] <= t <= p[-1] for p in places) for t in range(96)]
    assert max(alive) <= 4
    assert np.mean(alive) > 2
    assert (epoch_order(SHARD, 3, 1, 0) == order).all()
    assert (epoch_order(SHARD, 3, 1, 1) != order).any()
    assert (epoch_order(SHARD, 3, 2, 0) != order).any()


@pytest.mark.parametrize("start", [0, 3, 6, 9])
def test_steps_from_anywhere_are_the_same_steps(start: int) -> None:
    """What a resumed run reads is the rest of what an undisturbed one would."""
    whole = [rows.tolist() for epoch in epochs(SHARD, 3, 0, 20, range(12)) for rows in epoch]
    rest = [rows.tolist() for epoch in epochs(SHARD, 3, 0, 20, range(start, 12)) for rows in epoch]
    assert rest == whole[start:]
    assert len(whole) == 12  # 4 full batches of 20 an epoch
    for epoch in (whole[:4], whole[4:8], whole[8:]):
        assert [len(rows) for rows in epoch] == [20] * 4
        assert len({row for rows in epoch for row in rows}) == 80
    assert whole[0] != whole[4]


@pytest.mark.parametrize("world", [1, 2])
def test_each_sample_is_decoded_once_an_epoch_by_one_process(world: int) -> None:
    """The processes' shares together are the step's batch, and no pixel is decoded twice."""
    (batches,) = epochs(SHARD, 3, 0, 24, range(4))
    seen, decodes = [], 0
    for rank in range(world):
        share = slice(24 * rank // world, 24 * (rank + 1) // world)
        mine = source()
        for rows, found in zip(batches, pooled(mine, [b[share] for b in batches]), strict=True):
            assert found.images[:, 0, 0, 0].tolist() == rows[share].tolist()
            seen += rows[share].tolist()
        decodes += mine.decodes
    assert sorted(seen) == list(range(96))
    assert decodes == 96


def test_unit_is_the_real_parts_range() -> None:
    """uint16 above 32767 survives, padding does not count, a flat channel is 0."""
    images = np.zeros((2, 2, 4, 5), np.uint16)
    images[0, 0, :3, :4] = np.linspace(500, 65_535, 12).reshape(3, 4)
    images[1, 1] = 777
    unit = pixels(images, np.array([[3, 4], [4, 5]])).unit()
    expected = (images[0, 0, :3, :4] - 500.0) / (65_535 - 500)
    np.testing.assert_allclose(unit[0, 0, :3, :4], expected, atol=1e-6)
    assert float(unit[1].abs().max()) == 0


def test_unit_leaves_the_stored_pixels_as_they_are() -> None:
    """Of any number type and range, again and again; padding is cut to the range."""
    images = np.random.default_rng(0).random((3, 2, 5, 5), np.float32) / 100
    images[:, :, 4:] = [[[9.0]], [[-9.0]]]
    batch = pixels(images.copy(), np.full((3, 2), [4, 5]))
    for _ in range(2):
        unit = batch.unit()
        assert unit.dtype == torch.float32
        real = images[:, :, :4]
        low, high = real.min((2, 3), keepdims=True), real.max((2, 3), keepdims=True)
        np.testing.assert_allclose(unit[:, :, :4], (real - low) / (high - low), atol=1e-5)
        assert unit[:, 0, 4].eq(1).all()
        assert unit[:, 1, 4].eq(0).all()
    np.testing.assert_array_equal(batch.images, images)


def test_some_of_a_batch() -> None:
    """Pixels, ranges and extents together."""
    images = np.random.default_rng(0).integers(0, 60_000, (4, 2, 6, 6), np.uint16)
    batch = pixels(images, np.array([[6, 6], [5, 4], [6, 3], [2, 6]]))
    for rows in (slice(1, 3), torch.tensor([3, 0])):
        some = batch[rows]
        assert len(some) == 2
        torch.testing.assert_close(some.unit(), batch.unit()[rows])
        assert torch.equal(some.extents, batch.extents[rows])
        torch.testing.assert_close(some.to(torch.device("cpu")).unit(), some.unit())


def test_one_channel_of_each_sample() -> None:
    """`channel` picks pixels and ranges together."""
    batch = pixels(source().images[:3], np.full((3, 2), 6))
    picked = batch.channel(torch.tensor([1, 0, 1]))
    torch.testing.assert_close(picked.unit(), batch.unit()[torch.arange(3), [1, 0, 1]][:, None])


def test_fractions_nest() -> None:
    """0.2 lies in 0.4 lies in ... 1.0."""
    subsets = [set(nested_subset(50, count, seed=3)) for count in (10, 20, 30, 40, 50)]
    assert [len(s) for s in subsets] == [10, 20, 30, 40, 50]
    assert all(a < b for a, b in itertools.pairwise(subsets))
    assert subsets[0] != set(nested_subset(50, 10, seed=4))


@pytest.mark.parametrize("given_room", [True, False])
def test_caches_hold_what_the_source_gives(given_room: bool) -> None:
    """In new memory or in what it is given, decoded shard by shard, each sample once."""
    given = source(90)
    room = np.empty((90, *given.shape), given.dtype) if given_room else None
    cached = decode_all(given, room)
    np.testing.assert_array_equal(cached.images, given.images)
    assert (cached.images is room) == given_room
    assert given.decodes == 90
    assert cached.decodes == 0


def test_ahead_works_while_its_consumer_does() -> None:
    """Same items in order; errors arrive; leaving early ends the thread."""

    third = threading.Event()

    def items() -> Iterator[int]:
        for i in range(10):
            if i == 2:
                third.set()
            yield i

    got = []
    for item in ahead(items()):
        assert item or third.wait(60), "made while the first is in the consumer's hands"
        got.append(item)
    assert got == list(range(10))

    def failing() -> Iterator[int]:
        yield 1
        raise OSError("torn shard")

    with pytest.raises(OSError, match="torn shard"):
        list(ahead(failing()))
    endless = ahead(iter(int, 1))
    next(endless)
    endless.close()


def test_a_step_shows_some_channels_only() -> None:
    """As many as drawn from 1 to all, any of them alike, and none that a store lacks."""
    present = np.array([[True, True, True], [True, False, True], [False, True, False]])
    beside, rows = Beside(present), np.array([2, 0, 1, 0])
    every = torch.ones(3, dtype=torch.bool)
    assert beside.shown(rows, every, None).tolist() == present[rows].tolist()
    assert Beside().shown(rows, every, None).all()
    random = torch.Generator().manual_seed(0)
    drawn = torch.stack([beside.shown(rows, every, random) for _ in range(600)])
    assert not (drawn & ~torch.from_numpy(present[rows])).any()
    assert drawn.any(2).all()
    assert (drawn[:, 1] == drawn[:, 3]).all()
    whole = drawn[:, 1]
    shares = whole.sum(1).bincount(minlength=4) / 600
    assert (shares[1:] - 1 / 3).abs().max() < 0.07
    assert (whole.float().mean(0) - 2 / 3).abs().max() < 0.07
    assert drawn[:, 0].tolist() == [[False, True, False]] * 600


def test_channels_that_the_network_is_not_given_are_never_shown() -> None:
    """What is drawn is drawn from the others, so that each sample shows one at least."""
    used, random = torch.tensor([True, False, True]), torch.Generator().manual_seed(0)
    for present in (None, np.array([[True, True, True], [True, True, False]])):
        rows = np.array([0, 1, 0])
        whole = used.repeat(3, 1)
        if present is not None:
            whole &= torch.from_numpy(present[rows])
        assert torch.equal(Beside(present).shown(rows, used, None), whole)
        drawn = torch.stack([Beside(present).shown(rows, used, random) for _ in range(600)])
        assert not (drawn & ~whole).any()
        assert drawn.any(2).all()
        assert abs((drawn[:, 0].sum(1) == 2).float().mean() - 0.5) < 0.07


def test_siblings_are_other_fields_of_a_protein() -> None:
    """Any of them alike; a sample whose protein has no other field is its own."""
    protein = np.array(["b", "a", "b", "c", "b", "a", "b"])
    fov = np.array([0, 1, 0, 2, 3, 1, 4])  # a has two cells of one field
    siblings = Siblings(protein, fov)
    assert siblings.any
    assert not Siblings(protein[[1, 3, 5]], fov[[1, 3, 5]]).any
    assert Siblings(protein[[1, 0, 4]], fov[[1, 0, 4]]).any, "two are enough"
    random = torch.Generator().manual_seed(0)
    rows = np.arange(7)
    drawn = np.stack([siblings.drawn(rows, random) for _ in range(300)])
    assert (drawn[:, [1, 3, 5]] == [1, 3, 5]).all()
    for row, others in ((0, [4, 6]), (2, [4, 6]), (4, [0, 2, 6]), (6, [0, 2, 4])):
        found, times = np.unique(drawn[:, row], return_counts=True)
        assert found.tolist() == others
        assert abs(times / 300 - 1 / len(others)).max() < 0.1


def test_samples_in_memory_are_taken_in_any_order() -> None:
    held = Arrays(source().images, ("nucleus", "protein"), SHARD, np.full((96, 2), 6))
    rows = np.array([90, 3, 3, 41])
    got = taken(held, None, rows)
    on_device = taken(held, pixels(held.images, held.extents), rows)
    for found in (got, on_device):
        torch.testing.assert_close(
            found.unit(), pixels(held.images[rows], held.extents[rows]).unit()
        )


def test_several_shards_are_decoded_at_once_and_ahead() -> None:
    """The same batches; never more shards under way than there are threads."""

    class Slow(Counting):
        def load(self, rows: np.ndarray) -> np.ndarray:
            busy.append(threading.get_ident())
            time.sleep(0.05)
            return super().load(rows)

    for threads in (1, 4):
        busy: list[int] = []
        slow = Slow(**vars(source()))
        (batches,) = epochs(SHARD, 3, 0, 24, range(4))
        found = [batch.images.numpy() for batch in pooled(slow, batches, threads)]
        np.testing.assert_array_equal(
            np.concatenate(found).view(np.uint16), source().images[np.concatenate(batches)]
        )
        assert (len(busy), len(set(busy))) == (12, threads)
    some = pooled(Slow(**vars(source())), batches, 2)
    next(some)
    some.close()
    assert len(busy) < 24, "a training that ends early decodes no more"


def test_ahead_stops_with_its_consumer() -> None:
    """Nothing more is made for one who has gone."""
    made = []

    def items() -> Iterator[int]:
        for item in range(10_000):
            made.append(item)
            yield item

    arriving = ahead(items(), depth=2)
    assert next(arriving) == 0
    arriving.close()  # type: ignore[attr-defined]
    assert len(made) < 10
