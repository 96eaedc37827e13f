"""Leave-one-out neighbours: zarrloc's blocks against scikit-learn's brute force, in one run.

    python benchmarks/knn.py [--rows 6120] [--features 768] [--k 20] [--threads 2]

Both rivals are `NearestNeighbors(algorithm="brute")`: with `metric="cosine"` on the features, and
with the Euclidean metric on normalised features, which ranks equally and is scikit-learn's
faster path. Repeats are interleaved and the best of each counts. The neighbours are compared: the
similarities of every rank, and the rows wherever no rival neighbour is as near to 1e-6.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from machine import sampled_memory
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from zarrloc.scoring.knn import neighbours


def embeddings(rows: int, features: int) -> np.ndarray:
    """Clustered features, as embeddings of fields of a few hundred proteins are."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(rows // 5, 1), features)).astype(np.float32)
    return centres[np.arange(rows) % len(centres)] + rng.normal(size=(rows, features)).astype("f4")


def scikit(x: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(similarity, index) by scikit-learn; leave-one-out is what `kneighbors()` does."""
    if metric == "euclidean":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(x)
    distance, index = search.kneighbors()
    return (1 - distance if metric == "cosine" else 1 - distance**2 / 2), index


def same(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether both name the same neighbours, up to those that are equally near."""
    (s, i), (t, j) = ours, theirs
    gap = np.diff(t, axis=1, append=-np.inf)
    before = np.diff(t, axis=1, prepend=np.inf)
    clear = (np.abs(gap) > 4e-6) & (np.abs(before) > 4e-6)
    clear[:, -1] = False  # the next one is not known
    return bool(np.abs(s - t).max() < 4e-6 and (i == j)[clear].all())


def main() -> None:
    """Time, compare, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=6120)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="only zarrloc: memory at a large n")
    parser.add_argument("--out", default="benchmarks/results/knn.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    x = embeddings(options.rows, options.features)
    runs = {"zarrloc": lambda: (n := neighbours(x, options.k)[0]) and (n.similarity, n.index)}
    if not options.alone:
        runs["scikit-learn cosine"] = lambda: scikit(x, options.k, "cosine")
        runs["scikit-learn euclidean"] = lambda: scikit(x, options.k, "euclidean")
    seconds: dict[str, float] = dict.fromkeys(runs, np.inf)
    results = {}
    grown: dict[str, float] = dict.fromkeys(runs, 0)
    with threadpool_limits(options.threads):
        for _ in range(options.repeats):
            for name, run in runs.items():
                held = psutil.Process().memory_info().rss
                with sampled_memory(0.05) as samples:
                    began = time.perf_counter()
                    results[name] = run()
                    seconds[name] = min(seconds[name], time.perf_counter() - began)
                peak = max((sum(sample.values()) for sample in samples), default=held)
                grown[name] = max(grown[name], (peak - held) / 2**20)
    table = {
        "rows": options.rows,
        "features": options.features,
        "k": options.k,
        "threads": options.threads,
        "seconds": seconds,
        "ratio": {name: seconds[name] / seconds["zarrloc"] for name in runs if name != "zarrloc"},
        "same_neighbours": {
            name: same(results["zarrloc"], results[name]) for name in runs if name != "zarrloc"
        },
        "features_mb": x.nbytes / 2**20,
        "peak_growth_mb": {name: round(mb) for name, mb in grown.items()},
    }
    print(json.dumps(table, indent=2))
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
