"""Folds and test sets: groups stay together, labels are spread evenly, leakage is counted."""

from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import Siblings
from zarrloc.groups.splits import Leakage, Part

Strings = npt.NDArray[Any]


def stratify(
    content: npt.NDArray[np.floating[Any]], ratios: npt.NDArray[np.float64], seed: int
) -> npt.NDArray[np.int64]:
    """Deal groups into parts so that every label is spread as `ratios` say.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) with groups for examples:
    the rarest label left goes first, each of its groups, largest first, to the part that still
    lacks most of that label, then most of everything, each as a share of the part's own size: by
    number, a small test set would never be the one that lacks most.

    Args:
        content: `(group, label)`, how much of each label a group holds. The last column must be
            the group's size, at least 1: it places the groups without labels.
        ratios: `(part,)`, summing to 1.
        seed: of the random ties.

    Returns:
        The part of each group, int `(group,)`.
    """
    rng = np.random.default_rng(seed)
    part = np.full(len(content), -1)
    wanted = np.outer(ratios, content.sum(axis=0))
    while (waiting := part < 0).any():
        left = content[waiting].sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        queue = rng.permutation(np.flatnonzero(waiting & (content[:, label] > 0)))
        for group in queue[np.argsort(-content[queue, label], kind="stable")]:
            ties = rng.random(len(ratios))
            lacks = wanted[:, [-1, label]] / ratios[:, None]
            choice = np.lexsort((ties, *lacks.T))[-1]
            part[group] = choice
            wanted[choice] -= content[group]
    return part


def make_folds(
    positive: npt.NDArray[np.bool_],
    groups: Strings,
    proteins: Strings,
    *,
    folds: int,
    test: float,
    seed: int,
) -> npt.NDArray[np.int8]:
    """The fold of every field, int8 `(n,)`: -1 is the test set, the rest 0 to `folds` - 1.

    Args:
        positive: bool `(n, label)`, the labels to spread; a label counts once a protein and
            group, because fields of one protein tell the same.
        groups: `(n,)`, fields of one group share a fold.
        proteins: `(n,)`, the protein a field shows.
        folds: number of folds.
        test: share of the fields in the test set; 0 = none.
        seed: of the random ties.

    Raises:
        ConfigError: there are too few groups to fill every part.
    """
    names, code = np.unique(groups, return_inverse=True)
    pairs, pair = np.unique(np.stack([code, _codes(proteins)]), axis=1, return_inverse=True)
    held = np.zeros((pairs.shape[1], positive.shape[1]))
    np.maximum.at(held, pair.ravel(), positive)
    content = np.zeros((len(names), positive.shape[1] + 1))
    np.add.at(content[:, :-1], pairs[0], held)
    content[:, -1] = np.bincount(code)

    shares = [test] * (test > 0) + [(1 - test) / folds] * folds
    fold = stratify(content, np.array(shares), seed) - (test > 0)
    empty = set(range(-1 if test > 0 else 0, folds)) - set(fold.tolist())
    if empty:
        most = len(names) - (test > 0)
        finer = "a finer --group (image: each field alone, which siblings then leak between)"
        raise ConfigError(
            f"{len(names)} groups do not fill {folds} folds"
            f"{' and a test set' if test > 0 else ''}: {len(empty)} would be empty; "
            + (f"ask for at most {most} folds, or {finer}" if most > 1 else f"ask for {finer}")
        )
    return fold[code].astype(np.int8)


def folds_that_fit(positive: npt.NDArray[np.bool_], groups: Strings, most: int) -> int:
    """Folds of which each can hold a group of every class, 2 at least and `most` at most."""
    holders = [len(np.unique(groups[column])) for column in positive.T]
    return max(2, min(most, *holders))


def _codes(names: Strings) -> npt.NDArray[np.int64]:
    return np.unique(names, return_inverse=True)[1]


def leakage_of(
    fold: npt.NDArray[np.int8],
    positive: npt.NDArray[np.bool_],
    siblings: Siblings,
    labels: tuple[str, ...],
) -> Leakage:
    """Count what a split lets through.

    The test set is held against all folds; a fold is held against the other folds. A label is
    thin when some fold has fewer than two proteins (or wells, or fields) with it.
    """
    group = siblings.group
    parts, fewest = [], np.full(len(labels), np.iinfo(np.int64).max)
    for number in np.unique(fold):
        inside = fold == number
        outside = (fold >= 0) & ~inside
        own = np.unique(group[inside])
        shared = own[np.isin(own, group[outside])]
        count = int(np.isin(group[inside], shared).sum())
        parts.append(Part(int(number), int(inside.sum()), len(own), len(shared), count))
        for index in range(len(labels) if number >= 0 else 0):
            holders = len(np.unique(group[inside & positive[:, index]]))
            fewest[index] = min(fewest[index], holders)
    thin = {label: int(n) for label, n in zip(labels, fewest, strict=True) if n < 2}
    return Leakage(tuple(parts), thin, siblings.by, int((~siblings.known).sum()))
