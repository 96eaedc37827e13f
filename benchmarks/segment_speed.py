"""Fields a second: `zarrloc segment`, Cellpose 3.1's command line, its distributed_segmentation.

    python benchmarks/segment_speed.py ENV [--fovs 32] [--shared ../shared]

One run on one folder of simulated 600 px fields, with the same weights and settings (nucleus,
60 px), on all the cores this process may use, and on the GPU where there is one. Each time is
that of a fresh process from start to masks on disk, imports, workers and loading of the model
included; ours measures the cells, too. Its store is ingested before, timed apart. CPU
seconds stand beside wall time: on a busy machine they are the fairer measure.
ENV is the folder of `benchmarks/cellpose31.py`. distributed_segmentation knows one volume only:
it gets the fields as planes, in one block a core, which is kind to it: with a field a block it
would build the model again for each, and the overlap it adds would double the pixels.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

DIAMETER = 60
SHARD = 4
ZARRLOC = Path(sys.executable).with_name("zarrloc")
CORES = len(os.sched_getaffinity(0))


def ingest(folder: Path, out: Path, weights: Path, device: str) -> None:
    """What `zarrloc segment` needs first; shards small enough that few fields keep all cores."""
    command = [ZARRLOC, "ingest", folder, folder.parent / "bench.zarr", "--shard-fovs", SHARD]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def ours(folder: Path, out: Path, weights: Path, device: str) -> None:
    """`zarrloc segment`, its cells' table included."""
    command = [ZARRLOC, "segment", folder.parent / "bench.zarr", "--name", "cp"]
    command += ["--model", weights, "--channels", "nucleus", "--diameter", DIAMETER]
    subprocess.run(list(map(str, command)), check=True)


def command_line(python: Path, folder: Path, out: Path, weights: Path, device: str) -> None:
    """Cellpose 3.1's own command."""
    command = [python, "-m", "cellpose", "--dir", folder, "--savedir", out, "--save_tif"]
    command += ["--no_npy", "--pretrained_model", weights, "--diameter", DIAMETER]
    command += ["--chan", 1, "--chan2", 0, "--channel_axis", 0]
    command += ["--use_gpu"] if device == "cuda" else []
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def distributed(python: Path, folder: Path, out: Path, weights: Path, device: str) -> None:
    """Cellpose 3.1's contrib.distributed_segmentation, one worker a core (or for the GPU)."""
    code = f"""
import glob, numpy as np, tifffile
from cellpose.contrib import distributed_segmentation as d
if __name__ == "__main__":
    fields = [tifffile.imread(p)[0] for p in sorted(glob.glob({str(folder / "*.tif")!r}))]
    fields += [np.zeros_like(fields[0])] * (-len(fields) % {CORES})
    image = np.concatenate([np.stack(fields[i::{CORES}]) for i in range({CORES})], axis=2)
    block = image.shape[0], image.shape[1], image.shape[2] // {CORES}
    d.distributed_eval(
        d.numpy_array_to_zarr("input.zarr", image, block), block, "masks.zarr",
        model_kwargs=dict(pretrained_model={str(weights)!r}, gpu={device == "cuda"}),
        eval_kwargs=dict(diameter={DIAMETER}, channels=[0, 0], z_axis=0),
        cluster_kwargs=dict(
            n_workers={1 if device == "cuda" else CORES}, ncpus=1, threads_per_worker=1,
            memory_limit="8GB",
        ),
    )
"""
    script = out / "rival.py"
    script.write_text(code)
    subprocess.run([python, script], check=True, cwd=out, stdout=subprocess.DEVNULL)


def cpu_seconds() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Time all of them, print, save."""
    import torch

    from zarrloc.config.simulate import SimulateConfig
    from zarrloc.simulate import simulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", type=Path)
    parser.add_argument("--fovs", type=int, default=32)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "segment_speed.json"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = (args.shared / "weights" / "cellpose_cpnet_v1_scellseg.pt").resolve()
    python = args.env.absolute() / "bin" / "python"
    needed = [python, "-m", "pip", "install", "-q", "cellpose[distributed]==3.1.1.3", "zarr<3"]
    subprocess.run([*needed, f"torch=={torch.__version__.partition('+')[0]}"], check=True)
    # One thread a process is what tests want; here each rival takes the threads it would take.
    os.environ.pop("OMP_NUM_THREADS", None)

    runs: dict[str, Callable[[Path, Path, Path, str], None]] = {
        "zarrloc ingest": ingest,
        "zarrloc segment": ours,
        "cellpose 3.1, command line": partial(command_line, python),
        "cellpose 3.1, distributed_segmentation": partial(distributed, python),
    }
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        simulate(f"{work}/data", SimulateConfig(fovs=args.fovs, seed=0))
        folder = Path(work) / "data" / "raw"
        for number, (name, run) in enumerate(runs.items()):
            out = Path(work) / f"out{number}"
            out.mkdir()
            begun, used = time.perf_counter(), cpu_seconds()
            run(folder, out, weights, device)
            seconds[name] = round(time.perf_counter() - begun, 2)
            cpu[name] = round(cpu_seconds() - used, 2)
            rate = f"{seconds[name]:7.1f} s {args.fovs / seconds[name]:6.3f} FOV/s"
            print(f"{name:45} {rate} {cpu[name]:7.1f} CPU s", flush=True)
    rivals = [name for name in seconds if name.startswith("cellpose")]
    ratios = {name: round(seconds[name] / seconds["zarrloc segment"], 2) for name in rivals}
    cpu_ratios = {name: round(cpu[name] / cpu["zarrloc segment"], 2) for name in rivals}
    for name in rivals:
        print(f"times faster than {name}: {ratios[name]}, by CPU seconds {cpu_ratios[name]}")
    result = {
        "device": device, "cores": CORES, "fovs": args.fovs, "seconds": seconds,
        "cpu_seconds": cpu, "ratios": ratios, "cpu_ratios": cpu_ratios,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
