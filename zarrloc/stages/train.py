"""Train: a classification head on a stored embedding, one model a fold, in `heads/<name>`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.train import TrainConfig
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import AnyPlan, Before, Plan
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import (
    Samples,
    fields_of,
    fold_of_fields,
    need_labels,
    notes_on,
    read_samples,
    row_folds,
)
from zarrloc.groups.heads import Heads, head_arrays, read_head
from zarrloc.scoring.bags import Bags
from zarrloc.scoring.evaluation import (
    finite,
    never_called,
    out_of_fold,
    score_folds,
    training_rows,
)
from zarrloc.scoring.heads import device_of, precision_of, train_heads
from zarrloc.scoring.metrics import best_thresholds, called_of, truth_of
from zarrloc.store.attrs import StageAttrs, check_name
from zarrloc.store.columns import read_column
from zarrloc.store.digest import digest
from zarrloc.store.location import Location
from zarrloc.store.read import need

COORDINATES = ("label", "fold", "fov", "fov_index", "field_index")
"""Of a head's arrays, those that name rows."""


@dataclass(frozen=True)
class TrainSummary:
    """What was trained, and the paper's figure of it."""

    path: str
    rule: str
    """What counts as a label, and from where one is called."""
    validation: tuple[float, float]
    """Macro-F1 over the validation folds: mean, sd."""
    test: tuple[float, float] | None
    notes: list[str] = field(default_factory=list)
    exit_code: int = 0

    def lines(self) -> list[str]:
        """What was done, as lines of text."""
        lines = [
            f"{self.path}: macro-F1 {self.validation[0]:.3f} ± {self.validation[1]:.3f} on "
            f"validation folds ({self.rule})"
        ]
        if self.test is not None:
            lines.append(f"  {self.test[0]:.3f} ± {self.test[1]:.3f} on the test set")
        return [*lines, *(f"  {note}" for note in self.notes)]


def train(
    store: str | Path | Location,
    config: TrainConfig,
    name: str,
    *,
    overwrite: bool = False,
    save: str | Path | None = None,
) -> TrainSummary:
    """Train a classification head on an embedding, every fold of a split at once.

    `heads/<name>` then holds the weights of each fold, float32, what each row's own fold says of it
    (`probability`, float32 `(fov or cell, label)`), thresholds and scores; where fields are pooled
    from cells, also `field_probability` `(field, label)`, of which scores and thresholds are. Rows
    without an embedding or a label are left out and counted.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Embedding, split, target, and how the head is optimised.
    name
        Name of the head.
    overwrite
        Replace a head of that name.
    save
        Also write the weights to this safetensors file.

    Returns
    -------
    TrainSummary
        Macro-F1 on the validation folds, and on the test set where there is one.

    Raises
    ------
    ConfigError
        Where no row has both an embedding and a label, a fold has none to learn from, or another
        head has that name.
    StoreError
        Where the store, the embedding or the split is absent.
    LockedError
        While another run writes that head.

    Examples
    --------
    >>> config = TrainConfig(embedding="dino", split="honest", target="condition")
    >>> train("my.zarr", config, "head").validation  # doctest: +SKIP
    (0.91, 0.03)
    """
    location, path = Location.of(store), f"heads/{check_name(name)}"
    samples = read_samples(location, config.embedding, config.target)
    need_labels(samples)
    if config.pool != "none" and samples.level != "cell":
        raise ConfigError(
            f"--pool {config.pool} calls a field by its cells, and '{samples.group}' is of whole "
            "fields; leave --pool out, or name an embedding made with --level cell"
        )
    fold = row_folds(location, config.split, samples)
    device = device_of(config.device)
    content = digest({"features": samples.features, "grade": samples.grade, "fold": fold})
    wanted = StageAttrs.of(
        "train",
        config.model_dump(
            mode="json",
            exclude={"device"}
            | ({"target"} if not config.target else set())
            | ({"pool"} if config.pool == "none" else set()),
        ),
        {
            samples.group: samples.stage.fingerprint,
            "features, labels and folds": f"{content:016x}",
        },
        execution={"device": device, "precision": precision_of(config.precision, device)},
    )
    notes = notes_on(samples)

    def make(before: Before) -> AnyPlan:
        if before.attrs is not None:
            return Plan(wanted, {})
        trained = _fit(samples, fold, config, device)
        return _head(samples, fold, config, wanted, trained, _labels_digest(location, config))

    if not carry_out(location, path, make, overwrite=overwrite).made:
        notes.insert(0, "nothing to do: trained already with these settings on these values")
    head = read_head(location, name)
    notes += _silence(location, path, samples, config)
    if save is not None:
        head.save(save)
        notes.append(f"weights saved to {save}")
    rule = f"weak labels: {config.weak}, threshold 0.5"
    if config.pool != "none":
        rule = f"fields by the {config.pool} of their cells; {rule}"
    if config.target:
        rule = f"classes of {config.target}: {', '.join(samples.labels)}"
    return TrainSummary(path, rule, head.validation, head.test, notes)


def _silence(location: Location, path: str, samples: Samples, config: TrainConfig) -> list[str]:
    """Whether the head calls anything at all."""
    truth = truth_of(samples.grade, config.weak, config.target is not None)
    rows = samples.finite & truth.labelled
    group = need(location, path, "train STORE")
    own = read_column(group, "probability")[rows]
    called = called_of(own, 0.5, truth.exclusive)
    return never_called(truth[rows], own, called, samples.labels)


def _labels_digest(location: Location, config: TrainConfig) -> str:
    """Digest of the column that is learned; `info` compares it to see changes."""
    digests: Any = need(location, "fovs", "ingest SOURCE STORE").attrs.get("column_digests", {})
    return str(digests.get(config.target or "grade", ""))


def _fit(samples: Samples, fold: npt.NDArray[np.int8], config: TrainConfig, device: str) -> Heads:
    """Heads of all folds on the rows that can teach."""
    folds = int(fold.max()) + 1
    if config.pool != "none":
        return _fit_fields(samples, fold, folds, config, device)
    truth = truth_of(samples.grade, config.weak, config.target is not None)
    usable = samples.finite & truth.labelled
    rows = training_rows(fold[usable], folds)
    return train_heads(samples.features[usable], truth[usable], rows, config, device=device)


def _fit_fields(
    samples: Samples, fold: npt.NDArray[np.int8], folds: int, config: TrainConfig, device: str
) -> Heads:
    """The same on cells of which only the fields' labels are known."""
    assert config.pool != "none"
    fields, field = fields_of(samples)
    truth = truth_of(fields.grade, config.weak, config.target is not None)
    number = np.where(truth.labelled, truth.labelled.cumsum() - 1, -1)
    of = np.where(field >= 0, number[field], -1)
    cells = of >= 0
    own = fold_of_fields(fold, field)[truth.labelled]
    return train_heads(
        samples.features[cells],
        truth[truth.labelled],
        training_rows(own, folds),
        config,
        device=device,
        bags=Bags(of[cells], config.pool),
    )


def _head(
    samples: Samples,
    fold: npt.NDArray[np.int8],
    config: TrainConfig,
    attrs: StageAttrs,
    trained: Heads,
    labels_digest: str,
) -> AnyPlan:
    """The group of a head: its weights, what it says of every row, and its scores."""
    every = trained.probability(samples.features)
    own = out_of_fold(every, fold)
    of_fields: dict[str, Any] = {}
    called, called_fold, answers = samples, fold, every
    if trained.pool != "none":
        called, field = fields_of(samples)
        called_fold = fold_of_fields(fold, field)
        cells = field >= 0
        answers = trained.field_probability(
            samples.features[cells], field[cells], len(called.features)
        )
        of_fields = {
            "field_probability": (("field", "label"), out_of_fold(answers, called_fold)),
            "field_index": (("field",), called.fov_index),
        }
    truth = truth_of(called.grade, config.weak, config.target is not None)
    usable = called.finite & truth.labelled
    judged = usable & (called_fold >= 0)
    scores = score_folds(
        truth[usable],
        answers[:, usable],
        called_fold[usable],
        called.siblings.group[usable],
        called.labels,
    )
    per_fold: dict[str, Any] = {"validation": scores["validation"]}
    if (called_fold[usable] < 0).any():
        per_fold["test"] = scores["test"]
    rows = {
        "level": samples.level,
        "fov": samples.fov,
        "fov_index": samples.fov_index,
        "fold": fold,
    }
    arrays = head_arrays(
        trained,
        labels=samples.labels,
        rows=rows,
        probability=own,
        threshold=best_thresholds(truth[judged], out_of_fold(answers, called_fold)[judged]),
        scores=per_fold,
    )
    arrays |= of_fields
    return Plan.whole(
        attrs,
        arrays,
        coordinates=[name for name in COORDINATES if name in arrays],
        embedding=dict(samples.stage.config),
        scores=finite(per_fold),
        labels_digest=labels_digest,
    )
