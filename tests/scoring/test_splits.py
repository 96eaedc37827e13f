"""Splits: groups stay whole, labels are spread, leakage is what it says."""

import csv

import numpy as np
import pytest

from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import Siblings
from zarrloc.scoring.splits import leakage_of, make_folds, stratify

LABELS = ("common", "middling", "rare")


def population(proteins=120, fields=5, seed=0):
    """Labels of `proteins` proteins with 4 to 6 fields each; `rare` has exactly 10 proteins."""
    rng = np.random.default_rng(seed)
    label = np.stack([rng.random(proteins) < 0.6, rng.random(proteins) < 0.2], axis=1)
    rare = np.zeros(proteins, bool)
    rare[rng.choice(proteins, 10, replace=False)] = True
    index = np.repeat(np.arange(proteins), rng.integers(fields - 1, fields + 2, proteins))
    return np.column_stack([label, rare])[index], np.char.add("P", index.astype(str))


def of_protein(protein):
    return Siblings("protein", protein, protein != "")


def test_grouped_folds_keep_proteins_whole_and_spread_labels():
    positive, protein = population()
    fold = make_folds(positive, protein, protein, folds=5, test=0, seed=0)
    assert fold.dtype == np.int8
    assert set(fold) == set(range(5))
    for name in np.unique(protein):
        assert len(set(fold[protein == name])) == 1
    for label in range(3):
        holders = [len(np.unique(protein[(fold == f) & positive[:, label]])) for f in range(5)]
        assert max(holders) - min(holders) <= 1
    sizes = np.bincount(fold)
    assert sizes.max() - sizes.min() <= 6  # one protein


def test_image_split_with_test_set_is_the_papers_shape_and_leaks():
    positive, protein = population()
    fields = np.arange(len(protein)).astype(str)
    fold = make_folds(positive, fields, protein, folds=5, test=0.1, seed=0)
    assert (fold == -1).mean() == pytest.approx(0.1, abs=0.005)
    assert np.bincount(fold[fold >= 0]).std() < 2
    leakage = leakage_of(fold, positive, of_protein(protein), LABELS)
    assert leakage.sibling_share > 0.95
    assert leakage.parts[0].fold == -1


def test_leakage_by_hand():
    fold = np.array([-1, -1, 0, 0, 1, 1], np.int8)
    protein = np.array(["A", "B", "A", "C", "C", "D"])
    positive = np.array([[1, 0]] * 4 + [[1, 1]] * 2, bool)
    leakage = leakage_of(fold, positive, of_protein(protein), ("x", "y"))
    assert [(p.fold, p.fields, p.proteins, p.shared_proteins) for p in leakage.parts] == [
        (-1, 2, 2, 1),
        (0, 2, 2, 1),
        (1, 2, 2, 1),
    ]
    assert leakage.sibling_share == pytest.approx(3 / 6)
    assert leakage.thin_labels == {"y": 0}


def test_leakage_is_measured_among_the_fields_that_say_what_they_show():
    fold = np.array([0, 0, 1, 1], np.int8)
    positive = np.ones((4, 1), bool)
    some = Siblings(
        "protein", np.array(["A", "field 1", "A", "field 3"]), np.array([1, 0, 1, 0]) > 0
    )
    leakage = leakage_of(fold, positive, some, ("x",))
    assert leakage.sibling_share == 1
    assert "100.0% of the fields have one of the same protein" in leakage.sentence()
    assert "2 do not" in leakage.sentence()
    none = Siblings("field", np.array(["0", "1", "2", "3"]), np.zeros(4, bool))
    leakage = leakage_of(fold, positive, none, ("x",))
    assert leakage.sibling_share is None
    assert "leakage: not measured" in leakage.sentence()


def test_grouped_split_leaks_nothing_and_names_thin_labels():
    positive, protein = population()
    positive[:, 2] &= np.isin(protein, np.unique(protein[positive[:, 2]])[:9])  # nine proteins
    fold = make_folds(positive, protein, protein, folds=5, test=0, seed=0)
    leakage = leakage_of(fold, positive, of_protein(protein), LABELS)
    assert leakage.sibling_share == 0
    assert leakage.thin_labels == {"rare": 1}


def test_seed_decides():
    positive, protein = population()
    split = [make_folds(positive, protein, protein, folds=5, test=0, seed=s) for s in (0, 0, 1)]
    np.testing.assert_array_equal(split[0], split[1])
    assert (split[0] != split[2]).any()


def test_coordinate_groups_of_mixed_labels_stay_whole():
    positive, protein = population()
    plate = np.random.default_rng(0).integers(0, 20, len(protein)).astype(str)
    fold = make_folds(positive, plate, protein, folds=4, test=0.2, seed=0)
    for name in np.unique(plate):
        assert len(set(fold[plate == name])) == 1
    share = [positive[fold == f].mean(axis=0) for f in range(4)]
    assert np.ptp(share, axis=0).max() < 0.1


def test_unlabelled_fields_are_dealt_too():
    protein = np.arange(50).astype(str)
    fold = make_folds(np.zeros((50, 3), bool), protein, protein, folds=5, test=0, seed=0)
    assert np.bincount(fold).tolist() == [10] * 5


def test_too_few_groups_are_refused():
    group = (np.arange(30) % 3).astype(str)
    with pytest.raises(ConfigError, match="3 groups do not fill 5 folds"):
        make_folds(np.ones((30, 2), bool), group, group, folds=5, test=0, seed=0)


def test_stratify_gives_each_part_its_ratio():
    rng = np.random.default_rng(0)
    content = np.column_stack([rng.random((2000, 4)) < [0.02, 0.1, 0.3, 0.7], np.ones(2000)])
    part = stratify(content.astype(float), np.array([0.1, 0.3, 0.6]), seed=0)
    held = np.stack([content[part == p].sum(axis=0) for p in range(3)]) / content.sum(axis=0)
    assert np.abs(held - np.array([[0.1], [0.3], [0.6]])).max() < 0.03


def test_opencell_labels_leave_no_fold_without_a_label(shared):
    path = shared("opencell", "labels", "opencell-localization-annotations.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [set(filter(None, row["annotations_grade_3"].split(";"))) for row in rows]
    labels = tuple(sorted(set().union(*names)))
    positive = np.repeat([[label in held for label in labels] for held in names], 5, axis=0)
    protein = np.repeat([row["target_name"] for row in rows], 5)
    fold = make_folds(positive, protein, protein, folds=5, test=0, seed=0)
    assert leakage_of(fold, positive, of_protein(protein), labels).thin_labels == {}
