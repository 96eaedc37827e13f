"""Heads on disk: `heads/<name>` in a store, or a safetensors file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import Field

from zarrloc.config.train import Pool
from zarrloc.errors import ConfigError
from zarrloc.store.attrs import CHANNEL_OF, WINDOW_UM, GroupAttrs, StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs
from zarrloc.store.whole_file import replacing

if TYPE_CHECKING:
    from torch import Tensor

Array32 = npt.NDArray[np.float32]

GATES: Mapping[str, tuple[str, ...]] = {
    "v": ("unit", "gate"),
    "v_bias": ("gate",),
    "u": ("unit", "gate"),
    "u_bias": ("gate",),
    "w": ("gate",),
    "level": (),
    "rest": ("label",),
}
"""The arrays of an attention by name, with their dims after the fold: first the weights, in the
order of `zarrloc.groups.pooling.gated`, then what `typical` says of the training fields."""

NOT_VALUES = frozenset({"weights", "precision", "cells", "all_cells", CHANNEL_OF, WINDOW_UM})
"""Settings of an embedding that may differ between two stores: where weights came from (their
hash counts), arithmetic, which cell table was embedded, and facts beside the pixels."""


class HeadAttrs(GroupAttrs):
    """Attributes of `heads/<name>`; a head's predictions on new images have the first two alone."""

    embedding: dict[str, Any] = Field({}, description="Settings of what it was trained on.")
    scores: dict[str, Any] = Field({}, description="What each fold, and the test set, scored.")
    labels_digest: str = Field("", description="Digest of the grades, or target, that it learned.")


@dataclass(frozen=True)
class Heads:
    """Trained heads, stacked: each field's first axis is the fold.

    `mean`, `scale` `(fold, f)` standardise the features; layer i is `weights[i]`
    `(fold, in, out)` and `biases[i]` `(fold, out)`, with ReLU between layers. All float32.
    """

    mean: Array32
    scale: Array32
    weights: tuple[Array32, ...]
    biases: tuple[Array32, ...]
    exclusive: bool = False
    """Whether classes exclude one another: the probabilities of a row then sum to 1."""
    pool: Pool = "none"
    """How a field is called by its cells; none: the rows themselves were labelled."""
    gates: tuple[Array32, ...] = ()
    """The arrays of `GATES`, where attention pools."""
    limit: Array32 | None = None
    """The logit from which a cell is called `(fold, label)`, where only fields were labelled."""

    def probability(self, features: Array32, device: str = "cpu", block: int = 4096) -> Array32:
        """Probabilities `(fold, n, label)` of features `(n, f)`; rows with NaN give NaN."""
        out = np.empty((len(self.mean), len(features), self.biases[-1].shape[1]), np.float32)
        for rows, logits in self.own_logits(features, device, block):
            p = logits.softmax(-1) if self.exclusive else logits.sigmoid()
            out[:, rows] = p.cpu().numpy()
        return out

    def own_logits(
        self, features: Array32, device: str, block: int = 4096
    ) -> "Iterator[tuple[slice, Tensor]]":
        """Rows and their logits `(fold, rows, label)`; of cells, as they stand for themselves."""
        import torch

        from zarrloc.groups.pooling import alone

        typical = [torch.from_numpy(gate).to(device) for gate in self.gates[5:]]
        limit = None if self.limit is None else torch.from_numpy(self.limit).to(device)[:, None]
        for rows, logits, attention in self.answers(features, device, block):
            if typical:
                logits = alone(logits, attention, *typical)
            yield rows, logits if limit is None else logits - limit

    def field_probability(
        self,
        features: Array32,
        field: npt.NDArray[np.int64],
        fields: int,
        device: str = "cpu",
        block: int = 4096,
    ) -> Array32:
        """Probabilities `(fold, fields, label)` of fields by their cells; NaN without cells.

        `features` `(n, f)`, finite, are of cells, and `field` `(n,)` says of which field each is.
        """
        import torch

        from zarrloc.groups.pooling import pooled_by

        _, logits, attention = zip(*self.answers(features, device, block), strict=True)
        p = pooled_by(
            torch.cat(logits, 1),
            torch.cat(attention, 1),
            torch.from_numpy(field).to(device),
            fields,
        )
        found = p.softmax(-1) if self.exclusive else p.sigmoid()
        return np.asarray(found.cpu().numpy(), np.float32)

    def answers(
        self, features: Array32, device: str, block: int = 4096
    ) -> "Iterator[tuple[slice, Tensor, Tensor]]":
        """Rows, their logits `(fold, rows, label)` and their attention `(fold, rows, 1)`."""
        import torch

        from zarrloc.groups.pooling import gated

        def put(values: Array32) -> "Tensor":
            return torch.from_numpy(values).to(device)

        layers = [
            (put(weight), put(bias)[:, None])
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        mean, scale = put(self.mean)[:, None], put(self.scale)[:, None]
        gates = [put(gate) for gate in self.gates[:5]]
        if gates:
            v, v_bias, u, u_bias, w = gates
            gates = [v, v_bias[:, None], u, u_bias[:, None], w[..., None]]
        for start in range(0, len(features), block):
            rows = slice(start, start + block)
            h = (put(features[rows]) - mean) / scale
            for weight, bias in layers[:-1]:
                h = torch.baddbmm(bias, h, weight).relu()
            logits = torch.baddbmm(layers[-1][1], h, layers[-1][0])
            yield rows, logits, gated(h, gates) if gates else torch.zeros_like(logits[..., :1])

    def arrays(self) -> dict[str, Array32]:
        """All arrays by name, as stored and exported: `mean`, `scale`, `weight_0`, `bias_0`..."""
        weights = {f"weight_{i}": weight for i, weight in enumerate(self.weights)}
        biases = {f"bias_{i}": bias for i, bias in enumerate(self.biases)}
        gates = {f"attention_{name}": gate for name, gate in zip(GATES, self.gates, strict=False)}
        limit = {} if self.limit is None else {"cell_limit": self.limit}
        return {"mean": self.mean, "scale": self.scale, **weights, **biases, **gates, **limit}

    @classmethod
    def of_arrays(
        cls, arrays: dict[str, Array32], exclusive: bool = False, pool: Pool = "none"
    ) -> "Heads":
        """The inverse of `arrays`."""
        depth = range(sum(name.startswith("weight_") for name in arrays))
        return cls(
            arrays["mean"],
            arrays["scale"],
            tuple(arrays[f"weight_{i}"] for i in depth),
            tuple(arrays[f"bias_{i}"] for i in depth),
            exclusive,
            pool,
            tuple(arrays[f"attention_{name}"] for name in GATES if f"attention_{name}" in arrays),
            arrays.get("cell_limit"),
        )


@dataclass(frozen=True)
class StoredHead:
    """A trained head with all that decides whether it may be used, and how."""

    path: str
    heads: Heads
    labels: tuple[str, ...]
    threshold: npt.NDArray[np.float64]
    row_fold: npt.NDArray[np.int8]
    """The fold every row had in training: the split of that name may have been replaced since."""
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
        from safetensors.numpy import save

        metadata = {
            "format": "zarrloc-head-1",
            "labels": json.dumps(self.labels),
            "threshold": json.dumps(self.threshold.tolist()),
            "exclusive": json.dumps(self.heads.exclusive),
            "pool": self.heads.pool,
            "embedding": json.dumps(dict(self.embedding)),
            "zarrloc": self.stage.model_dump_json(),
        }
        with replacing(Path(file)) as opened:
            opened.write(save(self.heads.arrays(), metadata))


def _figure(scores: Mapping[str, Any]) -> tuple[float, float]:
    values = (scores["macro_f1"]["mean"], scores["macro_f1"]["sd"])
    mean, sd = (np.nan if value is None else value for value in values)
    return mean, sd


def head_arrays(
    heads: Heads,
    *,
    labels: tuple[str, ...],
    rows: Mapping[str, Any],
    probability: Array32,
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
    for (name, dims), gate in zip(GATES.items(), heads.gates, strict=False):
        dims = tuple(units[depth - 1] if dim == "unit" else dim for dim in dims)
        weights[f"attention_{name}"] = (("fold", *dims), gate)
    if heads.limit is not None:
        weights["cell_limit"] = (("fold", "label"), heads.limit)
    return arrays | {f"weights/{name}": array for name, array in weights.items()}


def read_head(location: Location, name: str) -> StoredHead:
    """Read `heads/<name>`. `StoreError` where it is absent."""
    path = f"heads/{name}"
    group = need(location, path, f"train STORE --name {name}")
    weights = group["weights"]
    assert isinstance(weights, zarr.Group)
    names = [key for key, _ in weights.arrays()]
    values = {key: read_column(group, f"weights/{key}") for key in names}
    stage = stage_attrs(group)
    return StoredHead(
        path,
        Heads.of_arrays(
            values, stage.config.get("target") is not None, stage.config.get("pool", "none")
        ),
        tuple(map(str, read_column(group, "label"))),
        read_column(group, "threshold"),
        read_column(group, "row_fold"),
        dict(group.attrs["embedding"]),  # type: ignore[arg-type]
        dict(group.attrs["scores"]),  # type: ignore[arg-type]
        stage,
    )
