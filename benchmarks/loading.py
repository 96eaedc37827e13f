"""Shuffled reading for training: rows a second, beside annbatch on an equal flat Zarr array.

    python benchmarks/loading.py ENV [--fields 256]

annbatch wants Python 3.12: the first run makes an environment of its own in the folder ENV, by
`uv`. Two races, one process each, in turns on a warm cache, so that the ratio is of one run:

- fields: our store, and the same pixels as one flat array `(field, pixel)` with the same codec,
  chunks and shards;
- crops: cut by us from image and mask, and read by annbatch out of a flat array that holds all
  crops, `(cell, pixel)` uint16, in its own chunks.

Both draw batches out of four shards' worth of rows. Ours compares digests and, of crops, takes
the background off, masks and gives float32; annbatch gives what is stored.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE, SHARD, CELLS, WINDOW, BATCH, BUFFER = 600, 32, 25, 256, 32, 4
ANNBATCH = "annbatch==0.3.1"

LOADER = """
import json, sys, time, warnings
import numpy as np, zarr
from annbatch import Loader
warnings.simplefilter("ignore")
path, chunk, preload, batch = sys.argv[1], *map(int, sys.argv[2:])
loader = Loader(batch_size=batch, chunk_size=chunk, preload_nchunks=preload, shuffle=True,
                return_index=True, preload_to_gpu=False)
loader.add_dataset(zarr.open_array(path, mode="r"))
began, used, seen = time.perf_counter(), time.process_time(), []
for found in loader:
    seen.append(found["index"])
seconds, used = time.perf_counter() - began, time.process_time() - used
rows = np.sort(np.concatenate(seen))
assert (rows == np.arange(len(rows))).all()
print(json.dumps({"rows": len(rows), "seconds": seconds, "cpu": used}))
"""


def environment(folder: Path) -> Path:
    """The Python of an environment with annbatch and the zarr that runs here."""
    import zarr

    python = folder / "bin" / "python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", "3.12", folder], check=True)
        wanted = [ANNBATCH, f"zarr=={zarr.__version__}"]
        subprocess.run([*uv, "pip", "install", "-q", "--python", python, *wanted], check=True)
    return python


def make(folder: Path, fields: int) -> None:
    """The store, and the two flat arrays."""
    import zarr

    from zarrloc.groups.crops import Crops
    from zarrloc.groups.receipts import ROW_DIGEST
    from zarrloc.store import columns, document
    from zarrloc.store.attrs import StageAttrs
    from zarrloc.store.digest import row_digests
    from zarrloc.store.location import Location
    from zarrloc.store.template import PIXELS, Variable

    location = Location.of(folder / "s.zarr")
    document.ensure_root(location)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.empty((fields, 2, SIDE, SIDE), np.uint16)
    mask = np.zeros((fields, SIDE, SIDE), np.uint32)
    centres = rng.uniform(30, SIDE - 30, (fields, CELLS, 2))
    for field in range(fields):
        nearest = np.full((SIDE, SIDE), np.inf)
        for label, (cy, cx) in enumerate(centres[field], 1):
            away = (y - cy) ** 2 + (x - cx) ** 2
            mask[field][(away < 55**2) & (away < nearest)] = label
            nearest = np.minimum(nearest, away)
        light = 600 + 3000 * (mask[field] > 0) * np.exp(-nearest / 2000)
        image[field] = rng.poisson(np.stack([light, 0.5 * light + 300]))

    def write(path: str, arrays: dict[str, Any], stage: str) -> None:
        given = {}
        for name, (dims, values) in arrays.items():
            grid = (1, SHARD) if name in ("image", "mask") else (0, 0)
            given[name] = (
                Variable.like(dims, values, grid_chunk=grid[0], grid_shard=grid[1]),
                values,
            )
        attributes = {"zarrloc": StageAttrs.of(stage, {}, {}).model_dump(), "pixel_size_um": 0.2063}
        columns.write_group(location, path, given, coordinates="fov", **attributes)

    fovs: dict[str, Any] = {
        "image": (("fov", "channel", "y", "x"), image),
        ROW_DIGEST: (("fov",), row_digests(image)),
        "fov": (("fov",), np.array([f"FID{i:08d}" for i in range(fields)])),
        "channel": (("channel",), np.array(["nucleus", "protein"])),
        "background": (("fov", "channel"), np.full((fields, 2), 600, np.float32)),
        "height": (("fov",), np.full(fields, SIDE, np.int32)),
        "width": (("fov",), np.full(fields, SIDE, np.int32)),
        "error": (("fov",), np.full(fields, "")),
    }
    write("fovs", fovs, "ingest")
    masks: dict[str, Any] = {
        "mask": (("fov", "y", "x"), mask),
        ROW_DIGEST: (("fov",), row_digests(mask)),
    }
    write("segmentations/c", masks, "segment")
    cells: dict[str, Any] = {
        "fov_index": (("cell",), np.repeat(np.arange(fields), CELLS)),
        "mask_label": (("cell",), np.tile(np.arange(1, CELLS + 1, dtype=np.uint32), fields)),
        "keep": (("cell",), np.ones(fields * CELLS, bool)),
        "centroid_y": (("cell",), centres[..., 0].ravel()),
        "centroid_x": (("cell",), centres[..., 1].ravel()),
    }
    write("cells/c", cells, "segment")

    flat = image.reshape(fields, -1)
    made = zarr.create_array(
        str(folder / "fields.zarr"), shape=flat.shape, dtype=flat.dtype,
        chunks=(1, flat.shape[1]), shards=(SHARD, flat.shape[1]), compressors=PIXELS,
    )  # fmt: skip
    made[...] = flat
    crops, many = Crops(location, "c", size=WINDOW), 512
    made = zarr.create_array(
        str(folder / "crops.zarr"), shape=(len(crops), 2 * WINDOW**2), dtype="uint16",
        chunks=(16, 2 * WINDOW**2), shards=(many, 2 * WINDOW**2), compressors=PIXELS,
    )  # fmt: skip
    for start in range(0, len(crops), many):
        pixels = crops[start : start + many].round().numpy().astype(np.uint16)
        made[start : start + many] = pixels.reshape(len(pixels), -1)


def ours(store: Path, what: str) -> dict[str, Any]:
    """One epoch of ours, in this process."""
    import zarrloc

    opened = zarrloc.open(store)
    source = opened.fields(counts=True) if what == "fields" else opened.crops("c", size=WINDOW)
    shuffled = zarrloc.Shuffled(source, batch_size=BATCH, buffer=BUFFER)
    began, used = time.perf_counter(), time.process_time()
    seen = [batch.rows.numpy() for batch in shuffled]
    seconds, used = time.perf_counter() - began, time.process_time() - used
    rows = np.sort(np.concatenate(seen))
    assert (rows == np.arange(len(rows))).all()
    return {"rows": len(rows), "seconds": seconds, "cpu": used}


def size_of(path: Path) -> float:
    """MB of the files below."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    """Make, race, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", type=Path, nargs="?", help="folder for annbatch's environment")
    parser.add_argument("--fields", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder that keeps what is read, for another run")
    parser.add_argument("--one", nargs=2, help="STORE WHAT; used by this script itself")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ours(Path(options.one[0]), options.one[1])))
        return
    from machine import about, report

    python, before = environment(options.env), about()
    before["versions"]["annbatch"] = ANNBATCH.partition("==")[2]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = options.data or Path(name)
        if not (folder / "crops.zarr").exists():
            folder.mkdir(exist_ok=True)
            make(folder, options.fields)
        # Of crops as many bytes are in annbatch's buffer as 4 shards of ours decode to.
        pieces = {"fields": (SHARD, BUFFER), "crops": (16, BUFFER * SHARD * CELLS // 16)}
        for what, (chunk, preload) in pieces.items():
            sides = {
                "zarrloc": [sys.executable, __file__, "--one", folder / "s.zarr", what],
                "annbatch": [python, "-c", LOADER, folder / f"{what}.zarr", chunk, preload, BATCH],
            }
            rows |= race(what, sides, options.rounds)
        rows["store, MB"] = round(size_of(folder / "s.zarr"), 1)
        rows["flat crops, MB"] = round(size_of(folder / "crops.zarr"), 1)
    rows["fields"], rows["cells"] = options.fields, options.fields * CELLS
    report("loading", rows, before)


def race(what: str, sides: dict[str, list[Any]], rounds: int) -> dict[str, Any]:
    """Both sides in turns: rows a second of wall and of CPU time, and the ratios of the turns."""
    speed: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for side, words in sides.items():
            run = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
            found = json.loads(run.stdout.splitlines()[-1])
            if turn:  # the first fills the cache
                speed[side].append((found["rows"] / found["seconds"], found["rows"] / found["cpu"]))
    rows: dict[str, Any] = {}
    for at, kind in enumerate(("", " of CPU")):
        for side, each in speed.items():
            rows[f"{what}, {side}, rows/s{kind}"] = round(statistics.median(e[at] for e in each), 1)
        turns = zip(speed["zarrloc"], speed["annbatch"], strict=True)
        rows[f"{what}, ratios{kind}"] = [round(ours[at] / theirs[at], 2) for ours, theirs in turns]
        rows[f"{what}, ratio{kind}"] = round(statistics.median(rows[f"{what}, ratios{kind}"]), 2)
    return rows


if __name__ == "__main__":
    main()
