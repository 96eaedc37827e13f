"""What was written against what is read: digests of rows and of the columns beside them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.errors import DamageError
from zarrloc.store.columns import array_of, decoded
from zarrloc.store.digest import digest, row_digests

ROW_DIGEST = "row_digest"
"""The column that holds a digest of each row of a stage's grid array."""


def digest_of_rows(columns: Mapping[str, npt.NDArray[Any]], start: int, stop: int) -> int:
    """One digest of rows `start` to `stop` of the columns; of a block, its `block_output`."""
    return digest({name: values[start:stop] for name, values in columns.items()})


def check_rows(
    path: str,
    array: npt.NDArray[Any],
    columns: Mapping[str, npt.NDArray[Any]],
    start: int,
    expect: int,
) -> None:
    """Compare rows of a grid array, and the columns beside them, with what was written.

    Raises
    ------
    DamageError
        Naming the first row that differs.
    """
    if digest(dict(columns)) != expect:
        raise DamageError(
            f"rows {start} to {start + len(array) - 1} of '{path}' are not those that were there "
            "when this run began: they were made again meanwhile, or are damaged; run it again, "
            "and if that does not help, `zarrloc verify STORE --deep --repair`"
        )
    check_array(path, array, columns[ROW_DIGEST], start)


def check_array(
    path: str, array: npt.NDArray[Any], digests: npt.NDArray[np.uint64], start: int = 0
) -> None:
    """Compare rows of a grid array with their digests.

    Raises
    ------
    DamageError
        Naming the first row that differs.
    """
    wrong = np.flatnonzero(row_digests(array) != digests)
    if len(wrong):
        raise DamageError(
            f"row {start + int(wrong[0])} of '{path}' is damaged: its values are not those that "
            "were written; `zarrloc verify STORE --deep --repair` marks what has to be done again"
        )


def read_row(
    group: zarr.Group,
    name: str,
    row: int,
    digests: npt.NDArray[np.uint64],
    at: int | None = None,
) -> Any:
    """One row of a grid array, compared with its digest, which is `digests[at]` or that of `row`.

    Raises
    ------
    DamageError
        Where they differ.
    """
    at = row if at is None else at
    values = decoded(array_of(group, name), row)
    check_array(group.path, values[None], digests[at : at + 1], row)
    return values
