"""Faults of disks, networks and machines: which pass by themselves, and what is said of the others.

A fault that passes is waited out, for seconds before a run and for minutes within one.
"""

import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from zarrloc.errors import DamageError, RemoteError, StoreError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0
HASTE_S = 3.0
"""How long a fault is waited out before anything has begun: what is wrong should be said soon."""
PATIENCE_S = 180.0
"""How long a fault is waited out within a run."""

PASSING = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR),
    *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EREMOTEIO),
}
OF_THE_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS),
}
_REFUSED = re.compile(r"\banswers 4(?!08|25|29)\d\d\b")
"""What an object store answers whatever the hour."""

OUT_OF_MEMORY, CANNOT_BE_OPENED = "out of memory", "cannot be opened"
_AGAIN = re.compile(rf"\b(?:{OUT_OF_MEMORY}|{CANNOT_BE_OPENED})\b")
_ADDRESS = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://\S+|\b0x[0-9a-fA-F]+\b")
_MARKUP = re.compile(r"<[?!/a-zA-Z].*", re.DOTALL)
MOST_CHARACTERS = 300

P = ParamSpec("P")
T = TypeVar("T")
_patient = 0


def is_passing(error: BaseException) -> bool:
    """Whether it may be gone the next time: a connection, a time-out, 5xx, a stale handle, EIO."""
    if isinstance(error, RemoteError):
        return _REFUSED.search(str(error)) is None
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in PASSING


def is_of_a_row(error: BaseException) -> bool:
    """Whether it lies with the row that was worked on, and will come again with it."""
    if is_passing(error) or isinstance(error, StoreError):
        return False
    return not (isinstance(error, OSError) and error.errno in OF_THE_MACHINE)


def is_everywhere(error: BaseException) -> bool:
    """Whether it lies with the machine or the store: a full disk, a lost store, no permission."""
    if isinstance(error, DamageError | RemoteError):
        return False
    return isinstance(error, StoreError) or (
        isinstance(error, OSError) and error.errno in OF_THE_MACHINE
    )


def may_succeed_again(text: str) -> bool:
    """Whether a row with this `error` failed for another reason than its own bytes."""
    return _AGAIN.search(text) is not None


def row_error(error: BaseException) -> str:
    """What a row's `error` says of it: the same whenever it happens, without any address."""
    if isinstance(error, MemoryError):
        return f"{OUT_OF_MEMORY}: {_plain(str(error))}".removesuffix(": ")
    return f"{type(error).__name__}: {_plain(str(error))}".removesuffix(": ")


def reason(error: BaseException) -> str:
    """Why a file or object could not be reached, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return "there is no such object"
    return detail(error)


def detail(error: BaseException) -> str:
    """An error's message, or its type if it has none."""
    return _plain(str(error)) or type(error).__name__


def _plain(text: str) -> str:
    line = _ADDRESS.sub("...", _MARKUP.sub("", text.strip().split("\n", 1)[0]))
    return line.strip()[:MOST_CHARACTERS]


@contextmanager
def patient() -> Iterator[None]:
    """Within a run: wait out faults for minutes."""
    global _patient
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1


def persistent(call: Callable[P, T]) -> Callable[P, T]:
    """Decorator of a read or a write that may be done again: repeats it until a fault has passed.

    Raises what the call raises, once the fault has lasted too long, and at once any other.
    """

    @wraps(call)
    def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                return call(*args, **kwargs)
            except Exception as error:
                lasted = time.monotonic() - began
                if not is_passing(error) or lasted > (PATIENCE_S if _patient else HASTE_S):
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    return repeated
