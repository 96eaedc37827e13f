"""Images normalised, resized and cut into tiles, as Cellpose does it, and with its functions.

Only the pooling is ours: Cellpose sends one image's tiles through the network at a time, and a
600 px field has about four.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose import transforms

# isort: on
from zarrloc.models.device import ahead

TILE_PX = 224
CPU_BATCH, GPU_BATCH = 8, 32
CUT_AHEAD = 4
"""Images that are cut before their turn."""
T = TypeVar("T")
Array = npt.NDArray[np.float32]
Network = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def normalise(image: npt.NDArray[np.generic]) -> Array:
    """`image` `(channel, y, x)` with each channel's percentiles 1 and 99 at 0 and 1, float32.

    A channel of one value becomes 0.
    """
    normalised: Array = transforms.normalize_img(image.astype(np.float32), axis=0)
    return normalised


def resize(image: Array, height: int, width: int) -> Array:
    """`image` `(channel, y, x)` at `(height, width)`, bilinear."""
    resized: Array = transforms.resize_image(image.transpose(1, 2, 0), height, width)
    return resized.transpose(2, 0, 1)


def rescaled(image: Array, rescale: float) -> Array:
    """`image` `(channel, y, x)` at `rescale` times its size, bilinear."""
    if rescale == 1:
        return image
    height, width = (max(1, int(side * rescale)) for side in image.shape[1:])
    return resize(image, height, width)


def resize_labels(
    labels: npt.NDArray[np.uint32], height: int, width: int
) -> npt.NDArray[np.uint32]:
    """`labels` `(y, x)` at `(height, width)`, each pixel the nearest one's."""
    resized: npt.NDArray[np.uint32] = transforms.resize_image(
        labels, height, width, interpolation=cv2.INTER_NEAREST
    )
    return resized


@dataclass(frozen=True)
class Tiled:
    """A padded image cut in overlapping tiles, `(tile, channel, y, x)`, and where they lie."""

    tiles: Array
    rows: list[list[int]]
    columns: list[list[int]]
    padded: tuple[int, int]
    real: tuple[slice, slice]

    def join(self, outputs: Array) -> Array:
        """`outputs` `(tile, channel, y, x)` averaged where they overlap: `(channel, y, x)`."""
        joined: Array = transforms.average_tiles(outputs, self.rows, self.columns, *self.padded)
        return joined[:, *self.real]


def cut(image: Array, side: int | None = None) -> Tiled:
    """Tiles of `image` `(channel, y, x)`, zero-padded to sides that are multiples of 16.

    A network of tiles of one `side` has them so of smaller images, too; others take them smaller.
    """
    height, width = image.shape[1:]
    least = side and (side, side)
    top, bottom, left, right = transforms.get_pad_yx(height, width, min_size=least)
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    tiles, rows, columns, *shape = transforms.make_tiles(padded, bsize=side or TILE_PX)
    real = slice(top, top + height), slice(left, left + width)
    return Tiled(tiles.reshape(-1, *tiles.shape[2:]), rows, columns, (shape[0], shape[1]), real)


def fitting(work: Callable[[int], T], asked: int | None, device: torch.device) -> T:
    """`work(batch)` with the batch asked for; all of it again with half, while memory runs out."""
    batch = asked or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
    while True:
        try:
            return work(batch)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2


def forward(
    network: Network,
    images: Iterable[Array],
    batch: int,
    device: torch.device,
    *,
    side: int | None = None,
    beside: bool | None = None,
) -> list[tuple[Array, Array]]:
    """The network's output `(channel, y, x)` and style `(feature,)`, a unit vector, of each image.

    Tiles of all `images` `(channel, y, x)` share batches of up to `batch`, those of one size
    together; only images with tiles still on their way are held. `side` is that of the tiles where
    the network takes no other. `beside` the device, images are made and cut, and outputs joined, on
    threads of their own; by default where it is no CPU.
    """
    cuts = (cut(image, side) for image in images)
    if not (device.type != "cpu" if beside is None else beside):
        return _pooled(network, cuts, batch, device, _at_once)
    with ThreadPoolExecutor(1) as behind, closing(ahead(cuts, CUT_AHEAD)) as made:
        return _pooled(network, made, batch, device, behind.submit)


def _pooled(
    network: Network,
    cuts: Iterable[Tiled],
    batch: int,
    device: torch.device,
    submit: Callable[..., "Future[tuple[Array, Array]]"],
) -> list[tuple[Array, Array]]:
    results: dict[int, Future[tuple[Array, Array]]] = {}
    waiting: dict[int, tuple[Tiled, list[Array], list[Array]]] = {}
    queues: dict[tuple[int, ...], list[tuple[int, Array]]] = defaultdict(list)
    under_way: deque[tuple[list[int], tuple[torch.Tensor, torch.Tensor]]] = deque()

    def send(queue: list[tuple[int, Array]]) -> None:
        part = queue[:batch]
        del queue[:batch]
        sent = _sent(network, np.stack([tile for _, tile in part]), device)
        under_way.append(([index for index, _ in part], sent))
        if len(under_way) > 1:  # a GPU computes the last one while these are brought back
            receive()

    def receive() -> None:
        indices, answers = under_way.popleft()
        for index, output, style in zip(indices, *_brought_back(*answers), strict=True):
            tiled, outputs, styles = waiting[index]
            outputs.append(output)
            styles.append(style)
            if len(outputs) == len(tiled.tiles):
                results[index] = submit(_joined, *waiting.pop(index))

    for index, tiled in enumerate(cuts):
        waiting[index] = tiled, [], []
        queue = queues[tiled.tiles.shape[1:]]
        queue.extend((index, tile) for tile in tiled.tiles)
        while len(queue) >= batch:
            send(queue)
    for queue in queues.values():
        while queue:
            send(queue)
    while under_way:
        receive()
    return [results[index].result() for index in range(len(results))]


def _joined(tiled: Tiled, outputs: list[Array], styles: list[Array]) -> tuple[Array, Array]:
    total = np.sum(styles, axis=0)
    unit: Array = total / max(float(np.linalg.norm(total)), 1e-12)
    return tiled.join(np.stack(outputs)), unit


def _at_once(function: Callable[..., T], *arguments: Any) -> "Future[T]":
    done: Future[T] = Future()
    done.set_result(function(*arguments))
    return done


@torch.inference_mode()
def _sent(
    network: Network, tiles: Array, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    batch = torch.from_numpy(tiles)
    if device.type == "cuda":
        batch = batch.pin_memory()
    there = batch.to(device, non_blocking=True)
    return network(there.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def _brought_back(output: torch.Tensor, style: torch.Tensor) -> tuple[Array, Array]:
    return output.contiguous().cpu().numpy(), style.cpu().numpy()
