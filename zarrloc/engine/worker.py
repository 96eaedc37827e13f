"""What every local worker process does before its first block."""

import signal
from typing import Any

from zarrloc.engine import block  # noqa: F401  imported now, not in the first block


def dask_setup(_: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the coordinator."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
