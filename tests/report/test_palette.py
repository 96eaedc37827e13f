"""Colours stay apart for every kind of colour vision, and marks never repeat too soon."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from zarrloc.report.palette import COLOURS, MOST_MARKS, by_single_label, by_value, marks

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def seen(colour: str, vision: str) -> npt.NDArray[np.float64]:
    rgb = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    shown = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    again = np.where(shown <= 0.0031308, shown * 12.92, 1.055 * shown ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(again))


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_differ_for_everyone(vision: str) -> None:
    for one, other in itertools.combinations(COLOURS, 2):
        assert deltaE_ciede2000(seen(one, vision), seen(other, vision)) > 9, (one, other)


def test_no_mark_comes_twice_before_all_have_come() -> None:
    assert len(set(marks(MOST_MARKS))) == MOST_MARKS
    assert marks(MOST_MARKS + 1)[-1] == marks(1)[0]


def test_single_labels_have_their_mark_and_the_rest_is_grey_behind() -> None:
    positive = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1]], bool)
    groups = by_single_label(positive, ("a", "b"))
    assert [group.name for group in groups] == ["no label", "several labels", "b", "a"]
    assert [group.rows.tolist() for group in groups] == [[3], [2], [1, 4], [0]]
    assert [group.mark for group in groups[2:]] == marks(2)[::-1]


def test_values_are_groups_and_an_empty_one_says_so() -> None:
    groups = by_value(np.array(["B", "", "A", "B"]))
    assert {group.name: group.rows.tolist() for group in groups} == {
        "A": [2],
        "B": [0, 3],
        "not named": [1],
    }
