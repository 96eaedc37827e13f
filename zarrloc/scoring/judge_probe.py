"""A linear probe on an embedding, on folds of its own."""

from typing import Any

import numpy as np

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.split import FOLDS
from zarrloc.errors import ConfigError
from zarrloc.scoring.evaluation import score_folds, training_rows
from zarrloc.scoring.heads import device_of
from zarrloc.scoring.judge_neighbours import judged
from zarrloc.scoring.probe import train_probe
from zarrloc.scoring.splits import make_folds
from zarrloc.store.location import Location


def judge_probe(location: Location, name: str, config: EvaluateConfig) -> dict[str, Any]:
    """Score a linear probe of the embedding `name`, cross-validated; what `evaluate` returns.

    A fold keeps together what `config.exclude_same` says; by default, what siblings share. Raises
    ConfigError where that makes fewer than two folds.
    """
    what = judged(location, name, config)
    chosen = what.chosen
    if chosen == "none":
        chosen = what.siblings.by
        group = what.siblings.group
    else:
        group = np.asarray(what.groups[chosen]).astype(np.str_)
    count = len(np.unique(group))
    if count < 2:
        raise ConfigError(
            f"--probe needs rows of two groups at least, to train on one and score the other; all "
            f"{len(group)} rows are of one {chosen}"
        )
    fold = make_folds(
        what.truth.positive, group, what.siblings.group,
        folds=min(FOLDS, count), test=0, seed=config.seed,
    )  # fmt: skip
    train = training_rows(fold, int(fold.max()) + 1)
    device = device_of(config.device)
    features = what.samples.features[what.rows]
    heads = train_probe(features, what.truth, train, device=device)
    scores = score_folds(
        what.truth, heads.probability(features, device), fold, what.siblings.group,
        what.samples.labels,
        tuned=config.threshold == "tuned", bootstrap=config.bootstrap, seed=config.seed,
    )  # fmt: skip
    return {
        "embedding": name,
        "labels": config.labels,
        "weak": config.weak,
        "threshold": config.threshold,
        "folds": len(train),
        "grouped_by": chosen,
        "siblings": what.siblings.by,
        "rows": len(fold),
        "probe": scores,
        "notes": what.notes,
        "target": config.target,
    }
