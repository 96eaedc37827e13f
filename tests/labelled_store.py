"""Small labelled stores with embeddings of known truth, in the layout of the contract."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.location import Location
from zarrloc.store import StageAttrs, ensure_root, write_group

LABELS = ("chromatin", "er", "golgi", "vesicles")
SIDE = 12


def make_store(
    path: Path,
    *,
    proteins: int = 40,
    fields: int = 5,
    seed: int = 0,
    noise: float = 0.05,
    labelled: bool = True,
    **embedding: Any,
) -> Path:
    """`proteins` x `fields` fields; embedding `planted` is the truth + `noise`, `noise` is noise.

    Each protein has one grade-3 label, every fifth two, and now and then a weak one. `embedding` settings
    go into the embeddings' recorded config.
    """
    rng = np.random.default_rng(seed)
    grade = np.zeros((proteins, len(LABELS)), np.uint8)
    grade[np.arange(proteins), np.arange(proteins) % len(LABELS)] = 3
    pairs = np.arange(0, proteins, 5)
    grade[pairs, (pairs + 1) % len(LABELS)] = 3
    grade[(rng.random(grade.shape) < 0.1) & (grade == 0)] = 2
    rows = np.repeat(np.arange(proteins), fields)
    grade, n = grade[rows], len(rows)

    location = Location.of(path)
    ensure_root(location)
    fov = np.array([f"FID{i:05d}" for i in range(n)])
    protein = np.array([f"P{i:03d}" for i in rows])
    image = rng.poisson(500, (n, 2, SIDE, SIDE)).astype(np.uint16)
    fovs = {
        "image": (("fov", "channel", "y", "x"), image),
        "fov": (("fov",), fov),
        "protein": (("fov",), protein),
        "plate": (("fov",), np.array([f"plate{i % 10}" for i in rows])),
        "channel": (("channel",), np.array(["nucleus", "protein"])),
        "height": (("fov",), np.full(n, SIDE, np.int32)),
        "width": (("fov",), np.full(n, SIDE, np.int32)),
        "background": (("fov", "channel"), np.full((n, 2), 500, np.float32)),
        "error": (("fov",), np.array([""] * n)),
        "ensg": (("fov",), np.array([""] * n)),
        "cell_line": (("fov",), np.array([""] * n)),
        "block_output": (("block",), np.ones(1, np.uint64)),
    }
    if labelled:
        fovs |= {"grade": (("fov", "label"), grade), "label": (("label",), np.array(LABELS))}
    settings = {"height": SIDE, "width": SIDE, "dtype": "uint16", "pixel_size_um": 0.2063}
    ingest = StageAttrs.of("ingest", settings, {}, block_rows=64)
    _write(location, "fovs", fovs, ingest)
    truth = (grade == 3).astype(np.float32)
    for name, features in {
        "planted": truth + noise * rng.normal(size=truth.shape),
        "noise": rng.normal(size=truth.shape),
    }.items():
        write_embedding(location, name, features, fov, protein, ingest, **embedding)
    return path


def write_embedding(
    location: Location,
    name: str,
    features: npt.NDArray[Any],
    fov: npt.NDArray[Any],
    protein: npt.NDArray[Any],
    ingest: StageAttrs,
    **settings: Any,
) -> None:
    """`embeddings/<name>` of whole fields."""
    config = {"level": "fov", "backbone": "planted", "size": "native", "norm": "zscore", **settings}
    attrs = StageAttrs.of("embed", config, {"fovs": ingest.fingerprint})
    arrays = {
        "embedding": (("fov", "feature"), features.astype(np.float32)),
        "error": (("fov",), np.array([""] * len(fov))),
        "fov": (("fov",), fov),
        "protein": (("fov",), protein),
    }
    _write(location, f"embeddings/{name}", arrays, attrs)


def _write(location: Location, path: str, arrays: dict[str, Any], attrs: StageAttrs) -> None:
    coords = [name for name, (dims, _) in arrays.items() if len(dims) == 1 and dims[0] != "block"]
    write_group(location, path, arrays, attrs={"zarrloc": attrs.model_dump()}, coords=coords)
