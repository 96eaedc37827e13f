"""Which codec for the pixels: ratio and speed of sharded Zarr writes on the six real fields.

    python benchmarks/codecs.py ../shared/opencell

One shard of 64 fields, a chunk a field, made of the real fields rolled by random shifts (so that
noise and content are real and no two fields equal); one process, blosc's own threads off, files
in a temporary folder. Every codec writes and reads `ROUNDS` times, taken in turn so that drift
of the machine hits all alike; the best round counts, as on a busy machine the others measure the
neighbours. "wall" is what a user waits for, zarr's threads included; "cpu" is bytes by CPU time,
what counts where every core has its own worker. `stable`: all writes gave the same bytes.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec, ZstdCodec

from zarrloc.images import opencell
from zarrloc.images.find import find
from zarrloc.images.read import read_field

ROUNDS = 5
FIELDS = 64

SPEEDS = ("write wall", "write cpu", "read wall", "read cpu")

CODECS: dict[str, Any] = {
    "none": None,
    "blosc lz4 5 bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    "blosc lz4 5 shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "blosc zstd 1 bitshuffle": BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
    "blosc zstd 3 bitshuffle": BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
    "blosc zstd 5 bitshuffle": BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"),
    "zstd 1": ZstdCodec(level=1),
    "zstd 3": ZstdCodec(level=3),
}


def main() -> None:
    """Measure, print a table, save `benchmarks/results/codecs.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="folder of OpenCell projections")
    parser.add_argument("--fields", type=int, default=FIELDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results/codecs.json"
    )
    options = parser.parse_args()

    blosc.use_threads = False
    shard = shifted(options.source, options.fields)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(shard, Path(folder), options.rounds)
    print(f"{'MB/s':<24}{'ratio':>6}" + "".join(f"{name:>12}" for name in SPEEDS) + "  stable")
    for row in rows:
        print(
            f"{row['codec']:<24}{row['ratio']:>6.2f}"
            + "".join(f"{row[column]:>12.0f}" for column in SPEEDS)
            + ("  yes" if row["stable"] else "  NO")
        )
    report = {
        "unit": "MB/s of raw pixels",
        "codecs": rows,
        "shard": {"shape": shard.shape, "dtype": str(shard.dtype), "bytes": shard.nbytes},
        "rounds": options.rounds,
        "versions": {"zarr": zarr.__version__, "python": platform.python_version()},
        "cpus": os.cpu_count(),
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")


def shifted(source: str, fields: int) -> npt.NDArray[Any]:
    """`(fields, channel, y, x)`: the real fields in turn, each rolled by its own shift."""
    rng = np.random.default_rng(0)
    real = [read_field(fov, opencell.CHANNELS) for fov in find(source)]
    picked = (real[index % len(real)] for index in range(fields))
    return np.stack(
        [np.roll(field, rng.integers(0, field.shape[1:]), axis=(1, 2)) for field in picked]
    )


def measure(shard: npt.NDArray[Any], folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row a codec; asserts that what is read is what was written."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {column: [] for column in SPEEDS} for name in CODECS
    }
    stored: dict[str, list[bytes]] = {name: [] for name in CODECS}
    for _ in range(rounds):
        for name, codec in CODECS.items():
            array = zarr.create_array(
                folder / name,
                shape=shard.shape,
                dtype=shard.dtype,
                chunks=(1, *shard.shape[1:]),
                shards=shard.shape,
                compressors=codec,
                overwrite=True,
            )
            _time(seconds[name], "write", lambda array=array: array.__setitem__(..., shard))
            read = _time(seconds[name], "read", lambda array=array: array[...])
            assert np.array_equal(read, shard)
            stored[name].append((folder / name / "c/0/0/0/0").read_bytes())
    return [
        {
            "codec": name,
            "ratio": round(shard.nbytes / len(stored[name][0]), 3),
            **{
                column: round(shard.nbytes / 1e6 / min(taken), 1)
                for column, taken in seconds[name].items()
            },
            "stable": len(set(stored[name])) == 1,
        }
        for name in CODECS
    ]


def _time(seconds: dict[str, list[float]], phase: str, work: Callable[[], Any]) -> Any:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds[f"{phase} wall"].append(time.perf_counter() - wall)
    seconds[f"{phase} cpu"].append(time.process_time() - cpu)
    return result


if __name__ == "__main__":
    main()
