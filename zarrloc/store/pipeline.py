"""Shards of a disk are decoded by zarrs, a Rust library, where it is installed (`zarrloc[zarrs]`).

zarr-python writes them all the same: it replaces a file in one step, which zarrs does not.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import zarr
from zarr.storage import LocalStore

_OPENING = threading.Lock()
"""Zarr's settings are those of the process, not of a thread."""


@contextmanager
def read_by_zarrs(array: zarr.Array[Any]) -> Iterator[None]:
    """Have handles of `array` that are made within this block read by zarrs, where that helps.

    It does where whole shards lie on a disk. An object store's are fetched by `RemoteStore`, which
    waits out its faults.
    """
    pipeline = reader()
    if not pipeline or array.shards is None or type(array.store) is not LocalStore:
        yield
        return
    with _OPENING, zarr.config.set({"codec_pipeline.path": pipeline}):
        yield


@cache
def reader() -> str:
    """Zarr's name of a pipeline that reads by zarrs; "" where that is not installed."""
    from zarr.registry import register_pipeline

    try:
        from zarrs import ZarrsCodecPipeline
    except ImportError:  # nor is a folder `zarrs` beside the caller's script the library
        return ""

    class ReadByZarrs(ZarrsCodecPipeline):  # type: ignore[misc]
        """Reads by zarrs, writes by zarr-python."""

        async def read(self, batch_info: Any, out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
            """Decode into `out`."""
            batch = list(batch_info)
            try:
                return await super().read(batch, out, drop_axes)
            except Exception:  # a fault of the disk or damage: zarr-python tells which it is
                return await self.python_impl.read(batch, out, drop_axes)

        async def write(self, batch_info: Any, value: Any, drop_axes: tuple[int, ...] = ()) -> None:
            """Encode `value`."""
            await self.python_impl.write(batch_info, value, drop_axes)

    register_pipeline(ReadByZarrs)
    return f"{ReadByZarrs.__module__}.{ReadByZarrs.__qualname__}"
