"""Square tables say what was counted."""

import numpy as np

from zarrloc.report.matrix import count_matrix, share_matrix
from zarrloc.report.tallies import Confusion


def test_shares_are_per_cent_of_the_row_with_their_counts() -> None:
    found = Confusion(np.array([[3, 1], [1, 399]]), np.array([4, 400]))
    matrix = share_matrix(found, ("a", "b"))
    assert matrix.labels == ("a", "b")
    (label, total, cells), (_, _, second) = matrix.rows
    assert (label, total) == ("a", "4")
    assert [(cell.text, cell.note, cell.shade) for cell in cells] == [
        ("75", "3", 0.75),
        ("25", "1", 0.25),
    ]
    assert second[0].text == "<1"
    assert second[0].title == "b, called a: 1 of 400 (0.2 %)"


def test_a_label_without_rows_has_empty_cells() -> None:
    matrix = share_matrix(Confusion(np.array([[0]]), np.array([0])), ("a",))
    assert matrix.rows[0][2][0][:1] == ("",)


def test_counts_are_shaded_by_their_share_of_the_diagonal() -> None:
    matrix = count_matrix(np.array([[4, 1], [1, 2]]), ("a", "b"), "proteins")
    cells = matrix.rows[1][2]
    assert [(cell.text, cell.shade) for cell in cells] == [("1", 0.5), ("2", 1.0)]
    assert [cell.title for cell in cells] == ["b and a: 1 proteins", "b: 2 proteins"]
