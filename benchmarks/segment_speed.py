"""Fields a second: our segmenter, Cellpose 3.1's command line, and its distributed_segmentation.

    python benchmarks/segment_speed.py ENV [--fovs 16] [--shared ../shared]

One run on one folder of simulated 600 px fields, with the same weights and settings (nucleus,
60 px), on all the cores this process may use, and on the GPU where there is one. Each time is
that of a fresh process from start to masks on disk, imports and loading of the model included. CPU
seconds stand beside it: on a busy machine they are the fairer measure.
ENV is the folder of `benchmarks/cellpose31.py`. distributed_segmentation knows one volume only:
it gets the fields as planes, in one block a core, which is kind to it: with a field a block it
would build the model anew for each, and the overlap it adds would double the pixels.

Then, in this process: where the time of our segmenter goes, by phase.
"""

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tifffile import imread, imwrite

DIAMETER = 60
BLOCK = 4
CORES = len(os.sched_getaffinity(0))


def segmenter(weights: Path, device: str):
    """Ours, loaded."""
    from zarrloc.config.segment import SegmentConfig
    from zarrloc.segmenters import load

    config = SegmentConfig(model=str(weights), channels=("nucleus",), diameter=DIAMETER)
    return load(config, device)


def segment_files(
    paths: list[Path], out: Path, weights: Path, device: str, threads: int, makers: int
) -> None:
    """One process's share: blocks of fields through the network, masks in `makers` threads."""
    import torch

    torch.set_num_threads(threads)
    model = segmenter(weights, device)

    def finish(path: Path, state: object) -> None:
        imwrite(out / path.name, model.mask(state).astype(np.uint16))

    with ThreadPoolExecutor(max(1, makers)) as pool:
        waiting = []
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            images = [model.prepare(imread(path), ("nucleus", "protein")) for path in block]
            for job in zip(block, model.network(images), strict=True):
                if makers:
                    waiting.append(pool.submit(finish, *job))
                else:
                    finish(*job)
        for one in waiting:
            one.result()


def ours(
    folder: Path, out: Path, weights: Path, device: str, processes: int, makers: int = 0
) -> None:
    """All fields of `folder` in `processes` fresh processes, the cores shared among them."""
    paths = sorted(folder.glob("*.tif"))
    shares = [paths[rank::processes] for rank in range(processes)]
    threads = max(1, CORES // processes - makers)
    work = partial(
        segment_files, out=out, weights=weights, device=device, threads=threads, makers=makers
    )
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(work, shares))


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


def phases(paths: list[Path], weights: Path, device: str) -> dict[str, float]:
    """Seconds a field of each phase, model loaded, all cores."""
    import torch

    torch.set_num_threads(CORES)
    model = segmenter(weights, device)
    images = [imread(path) for path in paths]
    model.network([model.prepare(images[0], ("nucleus", "protein"))])
    marks = [time.perf_counter()]
    inputs = [model.prepare(image, ("nucleus", "protein")) for image in images]
    marks.append(time.perf_counter())
    states = model.network(inputs)
    marks.append(time.perf_counter())
    for state in states:
        model.mask(state)
    marks.append(time.perf_counter())
    each = np.diff(marks) / len(paths)
    return dict(zip(("prepare", "network", "mask"), each.round(4).tolist(), strict=True))


def cpu_seconds() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Time all of them, print, save."""
    import torch

    from zarrloc.config.simulate import SimulateConfig
    from zarrloc.simulate import simulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env", type=Path)
    parser.add_argument("--fovs", type=int, default=16)
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

    if device == "cuda":
        layouts = {"1 process": (1, 0), f"1 process, {CORES - 1} mask threads": (1, CORES - 1)}
    else:
        layouts = {
            f"{CORES} processes of 1 thread": (CORES, 0),
            "1 process, 1 mask thread": (1, 1),
        }
    runs: dict[str, Callable[[Path, Path, Path, str], None]] = {
        f"zarrloc, {name}": partial(ours, processes=processes, makers=makers)
        for name, (processes, makers) in layouts.items()
    }
    runs["cellpose 3.1, command line"] = partial(command_line, python)
    runs["cellpose 3.1, distributed_segmentation"] = partial(distributed, python)
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
        split = phases(sorted(folder.glob("*.tif"))[:BLOCK], weights, device)
    rivals = [name for name in seconds if name.startswith("cellpose")]
    best = min(seconds.keys() - set(rivals), key=seconds.__getitem__)
    ratios = {name: round(seconds[name] / seconds[best], 2) for name in rivals}
    cpu_ratios = {name: round(cpu[name] / cpu[best], 2) for name in rivals}
    for name in rivals:
        print(f"{best} against {name}: {ratios[name]} times, by CPU seconds {cpu_ratios[name]}")
    print("seconds a field:", split)
    result = {
        "device": device, "cores": CORES, "fovs": args.fovs, "seconds": seconds,
        "cpu_seconds": cpu, "ratios": ratios, "cpu_ratios": cpu_ratios, "seconds_a_field": split,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
