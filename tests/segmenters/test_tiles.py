"""Pooled tiles against one image at a time, and against cellpose's own runner."""

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cellpose.core import run_net
from torch import Tensor

from zarrloc.segmenters import tiles

CPU = torch.device("cpu")


class Shift(torch.nn.Module):
    """Three outputs that depend on the place in the tile, so that the taper matters."""

    dtype, device = torch.float32, CPU

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ramp = torch.linspace(0, 1, x.shape[-1]) + torch.linspace(0, 2, x.shape[-2])[:, None]
        output = torch.stack((x[:, 0] * ramp, x[:, 1] + ramp, x.sum(1)), 1)
        return output, x.mean((1, 2, 3))[:, None].expand(-1, 256)


def images(*sizes: tuple[int, int]) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.random((2, *size), np.float32) for size in sizes]


def test_tiles_of_an_image_join_to_the_image() -> None:
    for image in images((300, 451), (64, 90), (224, 224)):
        cut = tiles.cut(image)
        np.testing.assert_allclose(cut.join(cut.tiles), image, rtol=1e-6)


def test_pooled_images_are_those_cellpose_runs_one_by_one() -> None:
    fields = images((300, 451), (300, 300), (451, 300), (300, 300))
    pooled = tiles.forward(Shift(), fields, 7, CPU)
    for image, (output, style) in zip(fields, pooled, strict=True):
        theirs, _ = run_net(Shift(), image.transpose(1, 2, 0)[None], bsize=224)
        np.testing.assert_allclose(output, theirs[0].transpose(2, 0, 1), rtol=1e-5)
        np.testing.assert_allclose(style, 1 / 16, rtol=1e-5)  # a unit vector of 256 equal parts


def test_tiles_of_small_fields_do_not_mix_with_whole_ones() -> None:
    fields = images((64, 90), (300, 300), (64, 90))
    seen: list[tuple[int, ...]] = []

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(tuple(x.shape))
        return x, x.mean((2, 3))

    results = tiles.forward(network, iter(fields), 8, CPU)
    assert seen == [(2, 2, 80, 112), (4, 2, 224, 224)]
    for image, (output, style) in zip(fields, results, strict=True):
        np.testing.assert_allclose(output, image, rtol=1e-6)
        assert np.linalg.norm(style) == pytest.approx(1)


def test_out_of_memory_does_all_again_with_half_the_batch() -> None:
    (image,) = images((300, 300))
    seen = []

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError
        return x, x.mean((2, 3))

    ((output, _),) = tiles.fitting(
        lambda batch: tiles.forward(network, [image], batch, CPU), 4, CPU
    )
    assert seen == [4, 2, 1, 1, 1, 1]
    np.testing.assert_allclose(output, image, rtol=1e-6)


def test_out_of_memory_with_one_tile_is_raised() -> None:
    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        tiles.fitting(lambda batch: network(torch.zeros(batch)), None, CPU)


def test_normalise_puts_percentiles_at_0_and_1_and_a_flat_channel_at_0() -> None:
    image = np.stack([np.arange(101, dtype=np.uint16).repeat(4).reshape(4, 101)] * 2)
    image[1] = 700
    normalised = tiles.normalise(image)
    low, high = np.percentile(image[0], (1, 99))
    np.testing.assert_allclose(normalised[0], (image[0] - low) / (high - low), rtol=1e-5)
    assert not normalised[1].any()


def test_cutting_and_joining_go_on_beside_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes its time is fed and relieved meanwhile, with the same results."""
    fields = images(*[(224, 224)] * 16)
    join, busy = tiles.Tiled.join, []

    def slowly() -> Iterator[npt.NDArray[np.float32]]:
        for field in fields:
            time.sleep(0.04)
            yield field

    def joined(self: tiles.Tiled, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        time.sleep(0.04)
        return join(self, outputs)

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        start = time.perf_counter()
        time.sleep(0.04)
        busy.append(time.perf_counter() - start)
        return x, x.mean((2, 3))

    plain = tiles.forward(lambda x: (x, x.mean((2, 3))), fields, 1, CPU)
    monkeypatch.setattr(tiles.Tiled, "join", joined)
    start = time.perf_counter()
    results = tiles.forward(network, slowly(), 1, CPU, beside=True)
    taken = time.perf_counter() - start
    assert taken < 2 * sum(busy)  # one after the other: three times
    for (output, style), (same, alike) in zip(results, plain, strict=True):
        np.testing.assert_array_equal(output, same)
        np.testing.assert_array_equal(style, alike)
