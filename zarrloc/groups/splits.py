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
    """One fold or the test set, and how many of its proteins are also outside it.

    Where no field names a protein they are wells, or the fields themselves: `Leakage.by`.
    """

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

    by: str = "protein"
    """What siblings share: protein, well, or field where nothing is known of siblings."""
    unnamed: int = 0
    """Fields without a value for it."""

    @property
    def sibling_share(self) -> float | None:
        """Share of the fields with a sibling in another part: 0 = none leaks, 1 = all do.

        Of the fields that say what they show; None where none does.
        """
        fields = sum(part.fields for part in self.parts) - self.unnamed
        if fields <= 0 or self.by == "field":
            return None
        return sum(part.fields_with_sibling_outside for part in self.parts) / fields

    def sentence(self, rows: str = "fields") -> str:
        """The leakage in one sentence."""
        if self.sibling_share is None:
            return (
                f"leakage: not measured, since no field names a protein or a well: {rows} that "
                "show the same may lie on both sides. Give the fields such a coordinate (protein, "
                "plate and well), or group the split by one they have"
            )
        some = f", of the {rows} that name one; {self.unnamed} do not" if self.unnamed else ""
        return (
            f"leakage: {self.sibling_share:.1%} of the {rows} have one of the same {self.by} on "
            f"the other side of the split{some}"
        )


class SplitAttrs(GroupAttrs):
    """Attributes of `splits/<name>`."""

    leakage: Leakage = Field(description="How much the parts know of one another.")
    made_by: dict[str, str] = Field(
        {}, description="Column whose fields it keeps together, or that tells siblings -> its xxh3."
    )


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
