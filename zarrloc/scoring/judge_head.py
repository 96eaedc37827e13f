"""A stored head's scores, beside a linear probe's and the baselines'."""

from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import (
    Samples,
    fields_of,
    fold_of_fields,
    mean_of,
    need_labels,
    notes_on,
    read_samples,
)
from zarrloc.groups.heads import StoredHead, read_head
from zarrloc.scoring.baseline_features import baseline_features, without_classic
from zarrloc.scoring.baselines import permuted, siblings_in_training
from zarrloc.scoring.evaluation import never_called, out_of_fold, score_folds, training_rows
from zarrloc.scoring.heads import device_of
from zarrloc.scoring.metrics import Truth, called_of, truth_of
from zarrloc.scoring.probe import train_probe
from zarrloc.scoring.splits import leakage_of
from zarrloc.store.location import Location

Array32 = npt.NDArray[np.float32]


def judge_head(location: Location, name: str, config: EvaluateConfig) -> dict[str, Any]:
    """Score the head called `name`; what `evaluate` returns."""
    device = device_of(config.device)
    head = read_head(location, name)
    trained = head.stage.config
    target = trained.get("target")
    if config.target not in (None, target):
        raise ConfigError(
            f"'{head.path}' was trained on {target or 'labels'}, not on {config.target}; leave "
            f"--target out, or train a head with `zarrloc train --target {config.target}`"
        )
    samples = read_samples(location, trained["embedding"], target)
    head.check_embedding(samples.stage.config, samples.group)
    _check_same_rows(head, samples)
    rivals: dict[str, Array32] = {}
    if config.baselines:
        rivals = baseline_features(location, samples)
    missing = without_classic(rivals, samples) if config.baselines else []
    probability, fold = None, head.row_fold
    notes = notes_on(samples)
    if head.heads.pool != "none":
        cells, (samples, field) = samples, fields_of(samples)
        own = field >= 0
        probability = head.heads.field_probability(
            cells.features[own], field[own], len(samples.features), device
        )
        fold = fold_of_fields(fold, field)
        rivals = {title: mean_of(found, field, len(fold)) for title, found in rivals.items()}
    truth = truth_of(samples.grade, trained["weak"], target is not None)
    rows = samples.finite & truth.labelled
    truth, fold, siblings = truth[rows], fold[rows], samples.siblings[rows]
    train = training_rows(fold, len(head.heads.mean))

    def judge(answers: Truth, probability: Array32) -> dict[str, Any]:
        return score_folds(
            answers, probability, fold, siblings.group, samples.labels,
            tuned=config.threshold == "tuned", bootstrap=config.bootstrap, seed=config.seed,
        )  # fmt: skip

    def probe(answers: Truth, features: Array32) -> dict[str, Any]:
        heads = train_probe(features, answers, train, device=device)
        return judge(answers, heads.probability(features, device))

    features = samples.features[rows]
    leakage = leakage_of(fold, truth.positive, siblings, samples.labels)
    if probability is None:
        probability = head.heads.probability(samples.features, device)
    probability = probability[:, rows]
    own_fold = out_of_fold(probability, fold)
    called = called_of(
        own_fold, head.threshold if config.threshold == "tuned" else 0.5, truth.exclusive
    )
    result: dict[str, Any] = {
        "head": name,
        "embedding": trained["embedding"],
        "split": trained["split"],
        "weak": trained["weak"],
        **({"pool": head.heads.pool} if head.heads.pool != "none" else {}),
        "threshold": config.threshold,
        "target": target,
        "siblings": siblings.by,
        "sibling_share": leakage.sibling_share,
        "leakage": leakage.sentence("rows"),
        **judge(truth, probability),
        "notes": notes + never_called(truth, own_fold, called, samples.labels),
    }
    if config.probe:
        result["probe"] = probe(truth, features)
    if config.baselines:
        shuffled = permuted(truth, config.seed)
        result["notes"] += missing
        look_up = {}
        if siblings.by != "field":
            seen = siblings_in_training(truth, siblings.group, train)
            look_up["sibling look-up"] = judge(truth, seen)
        found = {
            "permuted labels": probe(shuffled, features),
            **look_up,
            **{title: probe(truth, statistics[rows]) for title, statistics in rivals.items()},
        }
        result["baselines"] = {title: _overall(scores) for title, scores in found.items()}
    return result


def _overall(scores: dict[str, Any]) -> dict[str, Any]:
    return {part: scores[part] for part in ("test", "validation", "pooled")}


def _check_same_rows(head: StoredHead, samples: Samples) -> None:
    """Refuse to score a head on rows or labels that are not those it was trained among."""
    need_labels(samples)
    changes = []
    if head.stage.inputs[samples.group] != samples.stage.fingerprint:
        changes.append("the embedding was made again from other inputs")
    if len(head.row_fold) != len(samples.features):
        changes.append(f"{len(head.row_fold)} rows then, {len(samples.features)} now")
    if samples.labels != head.labels:
        changes.append(f"labels {', '.join(head.labels)} then, {', '.join(samples.labels)} now")
    if changes:
        raise ConfigError(
            f"'{samples.group}' is not what '{head.path}' was trained on "
            f"({'; '.join(changes)}); train again with --overwrite"
        )
