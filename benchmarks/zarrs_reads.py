"""One whole shard read by zarrs (`zarrloc[zarrs]`) and by zarr-python, by turns.

    python benchmarks/zarrs_reads.py

64 fields of 2 x 600 x 600 px of 16-bit noise about a smooth background, stored as `ingest` stores
them. The best of the rounds counts: on a busy machine the others measure the neighbours.
"""

import argparse
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import about, report

from zarrloc.store import document, pipeline
from zarrloc.store.columns import array_of, write_group
from zarrloc.store.location import Location
from zarrloc.store.template import Variable

FIELDS, SIDE = 64, 600


def shard() -> npt.NDArray[np.uint16]:
    """`(fov, channel, y, x)` pixels that compress about as real ones do."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    smooth = 700 + 4000 * np.exp(-((y - 0.5) ** 2 + (x - 0.5) ** 2) * 20)
    noise = random.normal(0, 60, (FIELDS, 2, SIDE, SIDE)).astype(np.float32)
    return (smooth + noise).astype(np.uint16)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    before, pixels = about(), shard()
    assert pipeline.reader(), "pip install 'zarrloc[zarrs]' first"
    taken: dict[str, list[tuple[float, float]]] = {"zarrs": [], "zarr-python": []}
    with tempfile.TemporaryDirectory() as folder:
        location = Location.of(f"{folder}/s.zarr")
        document.ensure_root(location)
        image = Variable(("fov", "channel", "y", "x"), "uint16", pixels.shape, 0, 1, FIELDS)
        write_group(location, "g", {"image": (image, pixels)})
        group = location.group("g", mode="r")
        with_zarrs = array_of(group, "image")
        plain: Any = group["image"]
        for _ in range(rounds):
            for name, array in (("zarrs", with_zarrs), ("zarr-python", plain)):
                wall, cpu = time.perf_counter(), time.process_time()
                found = array[:]
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
                assert np.array_equal(found, pixels)
    best = {name: np.min(times, axis=0) for name, times in taken.items()}
    rows: dict[str, Any] = {
        f"{name}, MB/s ({clock})": round(pixels.nbytes / 1e6 / best[name][at], 1)
        for name in best
        for at, clock in enumerate(("wall", "CPU"))
    }
    rows["zarrs / zarr-python, wall"] = round(best["zarr-python"][0] / best["zarrs"][0], 2)
    rows["zarrs / zarr-python, CPU"] = round(best["zarr-python"][1] / best["zarrs"][1], 2)
    report("zarrs_reads", {**rows, "zarrs": version("zarrs")}, before)


if __name__ == "__main__":
    main()
