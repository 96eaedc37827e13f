"""Predict: new images through a trained head, into `heads/<name>` of their own store and a CSV."""

import contextlib
import csv
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from zarrloc.config.evaluate import PredictConfig
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import AnyPlan, Array, Before, Plan
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import Samples, fields_of, read_samples
from zarrloc.groups.heads import StoredHead, read_head
from zarrloc.scoring.heads import device_of
from zarrloc.scoring.metrics import called_of
from zarrloc.store.attrs import StageAttrs, check_name
from zarrloc.store.digest import digest
from zarrloc.store.location import Location
from zarrloc.store.read import committed, stage_attrs


@dataclass(frozen=True)
class PredictSummary:
    """What was predicted; rows that failed have no probabilities."""

    path: str
    rows: int
    failed: int
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """3 where some rows have no embedding."""
        return 3 if self.failed else 0

    def lines(self) -> list[str]:
        """What was done, as lines of text."""
        called = ", ".join(f"{label} {n}" for label, n in self.calls.items() if n)
        lines = [f"{self.path}: {self.rows} rows; called: {called or 'nothing'}"]
        if self.failed:
            lines.append(f"  {self.failed} rows have no embedding and so no prediction")
        return lines


def predict(
    store: str | Path | Location,
    config: PredictConfig,
    name: str | None = None,
    *,
    overwrite: bool = False,
    out: str | Path | None = None,
) -> PredictSummary:
    """Write the mean probability of a head's folds, and the calls, to `heads/<name>` of `store`.

    A head that pools cells says so of cells (`probability`, `called`) and of their fields
    (`field_probability`, `field_called`).

    `name` defaults to the head's; `out` is a CSV as well, `-` for standard output. Raises
    `ConfigError` where the embedding was made otherwise than the head's, or where `name` is a
    trained head; `StoreError` where one of them is absent.
    """
    head = _head_at(config.head)
    location = Location.of(store)
    path = f"heads/{check_name(name or config.head.rsplit('/', 1)[-1])}"
    samples = read_samples(location, config.embedding)
    head.check_embedding(samples.stage.config, samples.group)
    threshold = head.threshold if config.threshold == "tuned" else np.full(len(head.labels), 0.5)
    target = head.stage.config.get("target")
    wanted = StageAttrs.of(
        "predict",
        {"threshold": config.threshold, **({"target": target} if target else {})},
        {
            samples.group: samples.stage.fingerprint,
            "head": head.stage.fingerprint,
            "features": f"{digest({'x': samples.features}):016x}",
        },
    )
    probability = head.heads.probability(samples.features, device_of(config.device)).mean(axis=0)
    called = called_of(probability, threshold, head.heads.exclusive)
    arrays = _arrays(samples, head, probability, called, threshold)
    if head.heads.pool != "none":
        arrays |= _of_fields(samples, head, threshold, device_of(config.device))

    def make(_: Before) -> AnyPlan:
        there = committed(location, path)
        if there is not None and stage_attrs(there).stage == "train":
            raise ConfigError(f"'{path}' of {location.uri} is a trained head; pass another --name")
        names = [name for name in ("label", "fov", "fov_index", "field_index") if name in arrays]
        return Plan.whole(wanted, arrays, coordinates=names)

    carry_out(location, path, make, overwrite=overwrite)
    if out is not None:
        _write_csv(out, samples, head.labels, probability, called)
    return PredictSummary(
        path,
        len(called),
        int((~samples.finite).sum()),
        dict(zip(head.labels, called.sum(axis=0).tolist(), strict=True)),
    )


def _head_at(address: str) -> StoredHead:
    store, mark, name = address.rstrip("/").rpartition("/heads/")
    if not (store and mark and name):
        raise ConfigError(
            f"--head is STORE/heads/NAME, such as oc.zarr/heads/head; got {address!r}"
        )
    return read_head(Location.of(store), name)


def _arrays(
    samples: Samples,
    head: StoredHead,
    probability: npt.NDArray[np.float32],
    called: npt.NDArray[np.bool_],
    threshold: npt.NDArray[np.float64],
) -> dict[str, Array]:
    dim = samples.level
    rows: dict[str, Array] = {"fov": ((dim,), samples.fov)}
    if dim == "cell":
        rows["fov_index"] = ((dim,), samples.fov_index)
    return {
        "probability": ((dim, "label"), probability),
        "called": ((dim, "label"), called),
        "threshold": (("label",), threshold),
        "label": (("label",), np.array(head.labels)),
        **rows,
    }


def _of_fields(
    samples: Samples, head: StoredHead, threshold: npt.NDArray[np.float64], device: str
) -> dict[str, Array]:
    """What a head that pools says of the fields that have a cell."""
    fields, field = fields_of(samples)
    cells = field >= 0
    every = head.heads.field_probability(
        samples.features[cells], field[cells], len(fields.features), device
    )
    probability = every.mean(axis=0)
    return {
        "field_probability": (("field", "label"), probability),
        "field_called": (
            ("field", "label"), called_of(probability, threshold, head.heads.exclusive)
        ),
        "field_index": (("field",), fields.fov_index),
    }  # fmt: skip


def _write_csv(
    out: str | Path,
    samples: Samples,
    labels: tuple[str, ...],
    probability: npt.NDArray[np.float32],
    called: npt.NDArray[np.bool_],
) -> None:
    """One line a row: its field, row number, the labels called, every probability."""
    with contextlib.ExitStack() as stack:
        file = sys.stdout if str(out) == "-" else stack.enter_context(_opened(out))
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["fov", samples.level + "_row", "called", *labels])
        for row, (fov, p, c) in enumerate(zip(samples.fov, probability, called, strict=True)):
            names = ";".join(label for label, yes in zip(labels, c, strict=True) if yes)
            lines.writerow([fov, row, names, *("" if np.isnan(x) else f"{x:.4f}" for x in p)])


def _opened(out: str | Path) -> TextIO:
    try:
        return open(out, "w", newline="", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
