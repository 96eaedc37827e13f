"""The one device of a process: which block holds it, and what is made ready for it meanwhile."""

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")


class Hold:
    """One block's hold of the device."""

    def __init__(self) -> None:
        self.aside_s = 0.0
        """Seconds for which it let go of it, and waited to have it back."""


_DEVICE = threading.Lock()
_MINE = threading.local()


@contextmanager
def held() -> Iterator[Hold]:
    """Hold the device, for which other threads wait."""
    with _DEVICE:
        _MINE.hold = hold = Hold()
        try:
            yield hold
        finally:
            _MINE.hold = None


@contextmanager
def let_go() -> Iterator[None]:
    """Within `held`, while this thread computes on the CPU: another may have the device."""
    hold: Hold | None = getattr(_MINE, "hold", None)
    if hold is None:
        yield
        return
    import torch

    threads, start = torch.get_num_threads(), time.perf_counter()
    _DEVICE.release()
    try:
        yield
    finally:
        _DEVICE.acquire()
        torch.set_num_threads(threads)  # who had it meanwhile may have left others
        hold.aside_s += time.perf_counter() - start


def ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made on a thread while the consumer works on the last ones."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()
    end = object()

    def put(item: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
