"""Small labelled stores with embeddings of known truth, in the layout of the contract."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.written import write_group
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.document import ensure_root
from zarrloc.store.location import Location

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

    Each protein has one grade-3 label, every fifth two, and now and then a weak one. `embedding`
    settings go into the embeddings' recorded config.
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
        "block_bytes": (("block",), np.ones(1, np.int64)),
    }
    if labelled:
        fovs |= {"grade": (("fov", "label"), grade), "label": (("label",), np.array(LABELS))}
    settings = {"height": SIDE, "width": SIDE, "dtype": "uint16"}
    ingest = StageAttrs.of("ingest", settings, {}, block_rows=64)
    _write(location, "fovs", fovs, ingest, pixel_size_um=0.2063, shard_fovs=64)
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


def _write(
    location: Location, path: str, arrays: dict[str, Any], attrs: StageAttrs, **about: Any
) -> None:
    coords = [name for name, (dims, _) in arrays.items() if len(dims) == 1 and dims[0] != "block"]
    about["zarrloc"] = attrs.model_dump()
    write_group(location, path, arrays, attrs=about, coords=coords)


def add_cells(
    path: Path, *, per_field: int = 3, expert: bool = True, seed: int = 0, **embedding: Any
) -> None:
    """`cells/cp` and `embeddings/cells`: the truth, alike within a field. One cell is not kept.

    An expert has judged every second cell, found every fourth of those wanting, and says of the
    rest that they show the label after their field's. `embedding` settings as in `make_store`.
    """
    rng = np.random.default_rng(seed)
    location = Location.of(path)
    fovs = location.group("fovs", mode="r")
    grade, fov = read_column(fovs, "grade"), read_column(fovs, "fov")
    index = np.repeat(np.arange(len(fov)), per_field)
    n, keep = len(index), np.arange(len(index)) > 0
    judged = np.arange(n) % 2 == 0
    cells: dict[str, Any] = {
        "fov_index": (("cell",), index),
        "keep": (("cell",), keep),
        **{
            f"intensity_{name}": (("cell", "channel"), rng.random((n, 2)).astype(np.float32))
            for name in ("mean", "sd", "p5", "p50", "p95")
        },
    }
    if expert:
        cells |= {
            "label": (("label",), np.array(LABELS)),
            "expert_whole": (("cell",), judged),
            "expert_confirmed": (("cell",), judged & (np.arange(n) % 8 > 0)),
            "expert_grade": (("cell", "label"), np.roll(grade, 1, axis=1)[index] // 3 * 3),
        }
    segment = StageAttrs.of("segment", {"model": "planted"}, {})
    _write(location, "cells/cp", cells, segment)
    features = (grade[index] == 3) + 0.3 * rng.normal(size=(len(fov), len(LABELS)))[index]
    features += 0.01 * rng.normal(size=features.shape)
    features[~keep] = np.nan
    arrays = {
        "embedding": (("cell", "feature"), features.astype(np.float32)),
        "error": (("cell",), np.array([""] * n)),
        "fov": (("cell",), fov[index]),
        "fov_index": (("cell",), index),
        "keep": (("cell",), keep),
    }
    config = {"level": "cell", "cells": "cp", "backbone": "planted", **embedding}
    embed = StageAttrs.of("embed", config, {"cells/cp": segment.fingerprint})
    _write(location, "embeddings/cells", arrays, embed)
