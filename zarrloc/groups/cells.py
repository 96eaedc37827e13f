"""What later stages read of `cells/<name>`: which rows there are and where they lie."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zarrloc.errors import StoreError
from zarrloc.store.location import Location
from zarrloc.store.template import need, read_column, stage_attrs


@dataclass(frozen=True)
class CellTable:
    """Rows of a cell table, without their measurements."""

    fingerprint: str
    block_rows: int
    block_output: npt.NDArray[np.uint64]
    fov_index: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]

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
        )
