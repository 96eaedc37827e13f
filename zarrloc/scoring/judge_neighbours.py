"""Leave-one-out nearest neighbours of an embedding, beside the baselines (paper, section 2.6.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import (
    Samples,
    Siblings,
    group_of,
    need_labels,
    notes_on,
    read_samples,
)
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.scoring.baseline_features import baseline_features, without_classic
from zarrloc.scoring.baselines import permuted, siblings_elsewhere
from zarrloc.scoring.evaluation import from_one_group, score_votes
from zarrloc.scoring.heads import device_of, standardisation
from zarrloc.scoring.knn import Neighbours, neighbours
from zarrloc.scoring.metrics import Truth, called_of, score, truth_of
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need

Array32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """The rows of an embedding that can be scored, and who may not help whom."""

    samples: Samples
    rows: npt.NDArray[np.bool_]
    truth: Truth
    """Which labels each of these rows has."""
    field_truth: Truth
    siblings: Siblings
    groups: Mapping[str, npt.NDArray[Any]]
    """Ways of leaving neighbours out: name -> the rows' groups."""
    chosen: str
    """One of them, or `none`."""
    notes: list[str]


def judged(location: Location, name: str, config: EvaluateConfig) -> Judged:
    """What there is to score of an embedding. Raises ConfigError where it is too little."""
    samples = read_samples(location, name, config.target)
    need_labels(samples)
    field_truth = truth_of(samples.grade, config.weak, config.target is not None)
    if config.labels == "expert" and config.target:
        raise ConfigError(f"an expert's labels are no {config.target}; leave --target out")
    if config.labels == "expert":
        truth, usable = _expert(location, samples)
        notes = [f"{int(usable.sum())} cells that an expert ticked whole and confirmed"]
    else:
        truth, usable, notes = field_truth, field_truth.labelled, notes_on(samples)
    rows = samples.finite & usable
    if rows.sum() < 2:
        raise ConfigError(
            f"{int(rows.sum())} rows of '{samples.group}' have an embedding and a label; "
            "neighbours need two"
        )
    siblings = samples.siblings[rows]
    groups: dict[str, npt.NDArray[Any]] = {}
    if samples.level == "cell":
        groups["fov"] = samples.fov_index[rows]
    if siblings.by != "field":
        groups[siblings.by] = siblings.group
    chosen = config.exclude_same
    if chosen == "auto":
        chosen = next(reversed(groups), "none")
    elif chosen in ("field", "image"):
        chosen = "fov"
    if chosen == "fov" and samples.level != "cell":
        chosen = "none"
        notes.append("--exclude-same fov leaves nobody out: the rows are whole fields")
    elif chosen not in ("none", *groups):
        fovs = need(location, FOVS, "ingest SOURCE STORE")
        groups[chosen] = group_of(fovs, chosen)[samples.fov_index][rows]
    if siblings.by == "field":
        notes.append(
            "what siblings give away was not measured: no field names a protein or a well, and "
            "neighbours that show the same may vote; --exclude-same takes any coordinate"
        )
    return Judged(samples, rows, truth[rows], field_truth[rows], siblings, groups, chosen, notes)


def judge_neighbours(location: Location, name: str, config: EvaluateConfig) -> dict[str, Any]:
    """Score the votes of every row's nearest others, for every k; what `evaluate` returns."""
    what = judged(location, name, config)
    samples, rows, truth = what.samples, what.rows, what.truth
    groups, chosen, notes = what.groups, what.chosen, what.notes
    siblings, labels = what.siblings, samples.labels

    def votes_on(answers: Truth, found: Neighbours, bootstrap: int = 0) -> dict[str, Any]:
        return score_votes(
            found, answers, siblings.group, labels,
            ks=config.knn, temperature=config.temperature, norm=config.vote_norm,
            bootstrap=bootstrap, seed=config.seed,
        )  # fmt: skip

    def search(features: Array32) -> dict[str, Neighbours]:
        found = neighbours(
            features, max(config.knn), list(groups.values()), device_of(config.device)
        )
        return dict(zip(("none", *groups), found, strict=True))

    found = search(samples.features[rows])
    table = votes_on(truth, found[chosen], config.bootstrap)
    for title, others in found.items():
        for k, scores in votes_on(truth, others).items():
            table[k].setdefault("macro_f1_excluding", {})[title] = scores["macro_f1"]
    if config.labels == "expert":
        for k, scores in votes_on(what.field_truth, found[chosen]).items():
            table[k]["macro_f1_weak_labels"] = scores["macro_f1"]
    notes += _notes(found[chosen], truth, groups, labels, chosen)
    result = {
        "embedding": name,
        "labels": config.labels,
        "weak": config.weak,
        "vote_norm": config.vote_norm,
        "threshold": "0.5",
        "exclude_same": chosen,
        "siblings": siblings.by,
        "rows": int(rows.sum()),
        "knn": table,
        "notes": notes,
    }
    if config.baselines:
        rivals = baseline_features(location, samples)
        notes += without_classic(rivals, samples)
        look_up = {}
        if siblings.by != "field":
            seen = siblings_elsewhere(truth, siblings.group, samples.fov_index[rows])
            scores = score(truth, seen, called_of(seen, 0.5, truth.exclusive), labels).as_dict()
            look_up["sibling look-up"] = {str(k): scores for k in config.knn}
        result["baselines"] = {
            "permuted labels": votes_on(permuted(truth, config.seed), found[chosen]),
            **look_up,
        } | {
            title: votes_on(truth, search(_standardised(statistics[rows]))[chosen])
            for title, statistics in rivals.items()
        }
    return {**result, "target": config.target}


def _notes(
    found: Neighbours,
    truth: Truth,
    groups: Mapping[str, npt.NDArray[Any]],
    labels: tuple[str, ...],
    chosen: str,
) -> list[str]:
    notes = []
    if found.short:
        notes.append(
            f"{found.short} rows have fewer than {found.index.shape[1]} neighbours to ask; "
            "those they have voted"
        )
    if chosen != "none" and (alone := from_one_group(truth, groups[chosen], labels)):
        notes.append(
            f"labels whose rows all come from one {chosen}, so that nobody can vote for them: "
            f"{', '.join(alone)}"
        )
    return notes


def _expert(location: Location, samples: Samples) -> tuple[Truth, npt.NDArray[np.bool_]]:
    """An expert's answers `(cell, label)` in the samples' vocabulary, and which cells count."""
    if samples.cells is None:
        raise ConfigError(f"--labels expert is for cells; '{samples.group}' is of whole fields")
    table = need(location, samples.cells, "segment STORE")
    if "expert_grade" not in table:
        raise ConfigError(
            f"'{samples.cells}' has no expert labels; bring them in with `zarrloc label`"
        )
    ticked = read_column(table, "expert_whole") & read_column(table, "expert_confirmed")
    known = list(map(str, read_column(table, "label")))
    grade = np.zeros((len(ticked), len(samples.labels)), np.uint8)
    for column, label in enumerate(samples.labels):
        if label in known:
            grade[:, column] = read_column(table, "expert_grade")[:, known.index(label)]
    return truth_of(grade), ticked & (grade > 0).any(axis=1)


def _standardised(statistics: Array32) -> Array32:
    """Columns of mean 0 and sd 1, so that the cosine sees more than the overall brightness."""
    (mean,), (scale,) = standardisation(statistics, np.ones((1, len(statistics)), bool))
    return np.asarray((statistics - mean) / scale)
