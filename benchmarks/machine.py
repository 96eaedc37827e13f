"""What every benchmark records of its machine: a busy one slows both sides of a ratio alike."""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


def about() -> dict[str, Any]:
    """The machine, its software, and how loaded it is now (1, 5, 15 minutes)."""
    return {
        "cpus": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "zarr", "distributed", "numpy")},
    }


def report(name: str, rows: dict[str, Any], before: dict[str, Any]) -> None:
    """Print a table and save it as `benchmarks/results/<name>.json`."""
    for key, value in rows.items():
        print(f"{key:<44} {value}")
    print(f"load before and after: {before['load'][0]}, {about()['load'][0]}")
    whole = {**rows, "machine": before, "load after": about()["load"]}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")


@contextmanager
def sampled_memory(every: float = 0.2) -> Iterator[list[dict[int, int]]]:
    """Resident bytes of this process and its children by pid, sampled while the block runs."""
    samples: list[dict[int, int]] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(every):
            me = psutil.Process()
            found = {}
            for process in (me, *me.children(recursive=True)):
                try:
                    found[process.pid] = process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            samples.append(found)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def cpu_seconds() -> float:
    """CPU time so far of this process and its living children."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def timed(start: float) -> float:
    """Seconds since `start`, a reading of `time.perf_counter`."""
    return time.perf_counter() - start
