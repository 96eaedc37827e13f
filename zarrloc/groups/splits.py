"""`splits/<name>`: which fold each field is in, and what the split lets through."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from zarrloc.errors import StoreError
from zarrloc.store.attrs import GroupAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need


@dataclass(frozen=True)
class Part:
    """One fold or the test set, and how many of its proteins are also outside it."""

    fold: int
    fields: int
    proteins: int
    shared_proteins: int
    fields_with_sibling_outside: int


@dataclass(frozen=True)
class Leakage:
    """The split's parts, and the labels too thin to judge: `{label: fewest proteins in a fold}`."""

    parts: tuple[Part, ...]
    thin_labels: dict[str, int]

    @property
    def sibling_share(self) -> float:
        """Share of the fields whose protein is also in another part: 0 = none leaks, 1 = all do."""
        fields = sum(part.fields for part in self.parts)
        return sum(part.fields_with_sibling_outside for part in self.parts) / max(fields, 1)


class SplitAttrs(GroupAttrs):
    """Attributes of `splits/<name>`."""

    leakage: Leakage = Field(description="How much the parts know of one another.")


def read_fold(location: Location, split: str) -> npt.NDArray[np.int8]:
    """The fold of every field. `StoreError` where the split was made for fewer fields."""
    group = need(location, f"splits/{split}", f"split STORE --name {split}")
    fold = read_column(group, "fold")
    rows = len(read_column(need(location, "fovs", "ingest SOURCE STORE"), "fov"))
    if len(fold) != rows:
        raise StoreError(
            f"'splits/{split}' deals {len(fold)} of {rows} fields; make it again with "
            f"`zarrloc split STORE --name {split} --overwrite`"
        )
    return fold
