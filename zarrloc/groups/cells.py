"""What later stages read of `cells/<name>`: which rows there are and where they lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zarrloc.errors import StoreError
from zarrloc.pixels import measure
from zarrloc.store.attrs import GroupAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs
from zarrloc.store.template import PENDING, Variable


class CellsAttrs(GroupAttrs):
    """Attributes of `cells/<name>`."""

    block_cells: int = Field(ge=1, description="Cells in one block.")


def template(
    channels: int, rows: int, coords: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Variable]:
    """The columns of a table of `rows` cells, in fields of `channels` channels."""
    sizes = {"cell": rows, "channel": channels}
    return {
        **{
            name: Variable(
                column.dims, column.dtype, tuple(sizes[d] for d in column.dims), attrs=column.attrs
            )
            for name, column in measure.COLUMNS.items()
        },
        "error": Variable(("cell",), "string", (rows,), PENDING),
        **{
            name: Variable.like(("channel" if name == "channel" else "cell",), values)
            for name, values in coords.items()
        },
    }


@dataclass(frozen=True)
class CellTable:
    """Rows of a cell table, without their measurements."""

    fingerprint: str
    block_rows: int
    block_output: npt.NDArray[np.uint64]
    fov_index: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]
    mask_label: npt.NDArray[Any]
    centroid_y: npt.NDArray[np.floating[Any]]
    centroid_x: npt.NDArray[np.floating[Any]]

    @classmethod
    def of(cls, location: Location, name: str) -> "CellTable":
        """Read it. `StoreError` where it is absent or not complete."""
        path = f"cells/{name}"
        group = need(location, path, f"segment STORE --name {name}")
        output = read_column(group, "block_output")
        if (output == 0).any():
            raise StoreError(f"'{path}' is not complete; run the same `zarrloc segment` again")
        attrs = stage_attrs(group)
        return cls(
            attrs.fingerprint,
            attrs.block_rows,
            output,
            read_column(group, "fov_index"),
            read_column(group, "keep"),
            read_column(group, "mask_label"),
            read_column(group, "centroid_y"),
            read_column(group, "centroid_x"),
        )

    def rows(self, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """What embedding rows `start` to `stop` takes of the table."""
        names = ("fov_index", "mask_label", "centroid_y", "centroid_x", "keep")
        return {name: getattr(self, name)[start:stop] for name in names}
