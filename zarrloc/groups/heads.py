"""Heads on disk: `heads/<name>` in a store, or a safetensors file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.errors import ConfigError
from zarrloc.scoring.heads import Heads
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs

NOT_VALUES = frozenset({"weights", "precision", "cells", "all_cells"})
"""Settings of an embedding that may differ between two stores: where weights came from (their
hash counts), arithmetic, and which cell table was embedded."""


@dataclass(frozen=True)
class StoredHead:
    """A trained head with all that decides whether it may be used, and how."""

    path: str
    heads: Heads
    labels: tuple[str, ...]
    threshold: npt.NDArray[np.float64]
    row_fold: npt.NDArray[np.int8]
    """The fold every row had in training: a split of that name may have been made anew since."""
    embedding: Mapping[str, Any]
    """The settings of the embedding it was trained on."""
    scores: Mapping[str, Any]
    stage: StageAttrs

    @property
    def validation(self) -> tuple[float, float]:
        """Macro-F1 over the validation folds: mean, sd."""
        return _figure(self.scores["validation"])

    @property
    def test(self) -> tuple[float, float] | None:
        """Macro-F1 of all folds' heads on the test set: mean, sd."""
        return _figure(self.scores["test"]) if "test" in self.scores else None

    def check_embedding(self, settings: Mapping[str, Any], path: str) -> None:
        """Refuse an embedding that was made otherwise, with the difference."""
        keys = sorted((settings.keys() | self.embedding.keys()) - NOT_VALUES)
        changes = [
            f"{key}: {self.embedding.get(key, '(none)')} -> {settings.get(key, '(none)')}"
            for key in keys
            if self.embedding.get(key) != settings.get(key)
        ]
        if changes:
            raise ConfigError(
                f"'{path}' was not made as the embedding that '{self.path}' was trained on "
                f"({'; '.join(changes)}); embed again with the head's settings, or train another"
            )

    def save(self, file: str | Path) -> None:
        """Write a safetensors file: the arrays, and labels, thresholds and settings as metadata."""
        from safetensors.numpy import save_file

        metadata = {
            "format": "zarrloc-head-1",
            "labels": json.dumps(self.labels),
            "threshold": json.dumps(self.threshold.tolist()),
            "embedding": json.dumps(dict(self.embedding)),
            "zarrloc": self.stage.model_dump_json(),
        }
        save_file(self.heads.arrays(), file, metadata)


def _figure(scores: Mapping[str, Any]) -> tuple[float, float]:
    values = (scores["macro_f1"]["mean"], scores["macro_f1"]["sd"])
    mean, sd = (np.nan if value is None else value for value in values)
    return mean, sd


def head_arrays(
    heads: Heads,
    *,
    labels: tuple[str, ...],
    rows: Mapping[str, Any],
    probability: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float64],
    scores: Mapping[str, Any],
) -> dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]]:
    """The arrays of `heads/<name>`, its `weights/` included: name -> dims, values.

    `rows` holds `level`, `fov`, `fov_index`, `fold`. `probability` `(n, label)` is out of fold,
    the mean of all heads on the test set.
    """
    dim = str(rows["level"])
    folds = np.arange(len(heads.mean))
    arrays: dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]] = {
        "probability": ((dim, "label"), probability),
        "threshold": (("label",), threshold),
        "label": (("label",), np.array(labels)),
        "fold": (("fold",), folds),
        "fov": ((dim,), rows["fov"]),
        "row_fold": ((dim,), rows["fold"]),
    }
    if dim == "cell":
        arrays["fov_index"] = (("cell",), rows["fov_index"])
    for part, found in scores.items():
        arrays[f"{part}_macro_f1"] = (("fold",), np.array(found["macro_f1"]["each"]))
    depth = len(heads.weights)
    units = ["feature", *(f"unit_{i}" for i in range(1, depth)), "label"]
    weights: dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]] = {
        "mean": (("fold", "feature"), heads.mean),
        "scale": (("fold", "feature"), heads.scale),
    }
    for i in range(depth):
        weights[f"weight_{i}"] = (("fold", units[i], units[i + 1]), heads.weights[i])
        weights[f"bias_{i}"] = (("fold", units[i + 1]), heads.biases[i])
    return arrays | {f"weights/{name}": array for name, array in weights.items()}


def read_head(location: Location, name: str) -> StoredHead:
    """Read `heads/<name>`. `StoreError` where it is absent."""
    path = f"heads/{name}"
    group = need(location, path, f"train STORE --name {name}")
    weights = group["weights"]
    assert isinstance(weights, zarr.Group)
    names = [key for key, _ in weights.arrays()]
    values = {key: read_column(group, f"weights/{key}") for key in names}
    return StoredHead(
        path,
        Heads.of_arrays(values),
        tuple(map(str, read_column(group, "label"))),
        read_column(group, "threshold"),
        read_column(group, "row_fold"),
        dict(group.attrs["embedding"]),  # type: ignore[arg-type]
        dict(group.attrs["scores"]),  # type: ignore[arg-type]
        stage_attrs(group),
    )
