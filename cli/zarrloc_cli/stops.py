"""Ctrl-C and SIGTERM, the same in every command, and however the command was started."""

import os
import signal
import time
from types import FrameType

SAME_REQUEST_S = 1.0
"""What follows so soon is the same request: a terminal and a launcher both send it."""


def handle(failed: int) -> None:
    """Let the first signal end the command in order, and a later one at once, with code `failed`.

    Also where SIGINT was ignored at the start, as under nohup or in a shell's background job.
    """
    asked: list[float] = []

    def stop(_: int, __: FrameType | None) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise KeyboardInterrupt
        if asked[-1] - asked[0] > SAME_REQUEST_S:
            os.write(2, b"zarrloc: ended at once; the same command continues from here\n")
            os._exit(failed)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
