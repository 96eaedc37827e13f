"""The rows of `fovs`: which field of view stands where, from which files, with which labels.

Pure bookkeeping over names; no pixel is read. Rows keep their place for ever: the first ingest
orders them by file name, later ones append in the same way.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.images.fields import FovSource, further
from zarrloc.images.label_table import LabelTable, Row
from zarrloc.store.columns import array_of, read_column

IDENTITY_COORDS = ("protein", "ensg", "cell_line")
"""Text coordinates every store has; empty where the source does not say."""


Arrays = dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]]
"""Name -> dims, values."""

_NO_COORDS = {"fov", "source", "error", "height", "width"}


@dataclass(frozen=True)
class Catalog:
    """Rows of `fovs`, in order. `sources[i]` is None for a row the present SOURCE does not hold."""

    fov: tuple[str, ...]
    source: tuple[str, ...]
    """Where each row's file lies, several files joined by `|`."""
    coords: dict[str, tuple[str, ...]]
    """Text coordinates along `fov`."""
    sources: tuple[FovSource | None, ...] = ()
    labels: tuple[str, ...] = ()
    grades: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))

    def __len__(self) -> int:
        return len(self.fov)

    def arrays(self) -> Arrays:
        """What no worker writes: names, text coordinates and grades of every row."""
        named = {"fov": self.fov, "source": self.source, **self.coords}
        texts: Arrays = {name: (("fov",), _text(values)) for name, values in named.items()}
        if not self.labels:
            return texts
        grades: Arrays = {
            "label": (("label",), _text(self.labels)),
            "grade": (("fov", "label"), self.grades),
        }
        return texts | grades


EMPTY = Catalog((), (), {})


def stored(group: zarr.Group) -> Catalog:
    """The rows of a store's `fovs`, without their present sources."""

    def text(name: str) -> tuple[str, ...]:
        return tuple(map(str, read_column(group, name)))

    coords = {
        name: text(name)
        for name, array in group.arrays()
        if array.metadata.dimension_names == ("fov",)  # type: ignore[union-attr]
        and name not in _NO_COORDS
        and array.dtype.kind == "T"
    }
    labelled = "grade" in group
    rows = array_of(group, "fov").shape[0]
    return Catalog(
        text("fov"),
        text("source"),
        coords,
        labels=text("label") if labelled else (),
        grades=read_column(group, "grade") if labelled else np.zeros((rows, 0), np.uint8),
    )


def with_sources(catalog: Catalog) -> Catalog:
    """The same, each row with a source that knows its names: what a table can be matched to."""
    return replace(catalog, sources=tuple(_named(catalog, row) for row in range(len(catalog))))


def _named(catalog: Catalog, row: int) -> FovSource:
    coords = {name: values[row] for name, values in catalog.coords.items()}
    paths = tuple(catalog.source[row].split("|"))
    return FovSource(catalog.fov[row], paths, 0, "image", coords)


def _text(values: Sequence[str]) -> npt.NDArray[Any]:
    return np.array(list(values), np.dtypes.StringDType())


def merge(
    old: Catalog,
    found: Sequence[FovSource],
    same_file: Callable[[int, FovSource], bool] = lambda row, one: True,
) -> Catalog:
    """The rows of `old`, with their present sources, and new ones appended in name order.

    A row is the same while its FOV name and its files' base names are; files may move. Where they
    lie elsewhere than they did, `same_file(row, source)` says whether they are the same ones.
    """
    place = {key: row for row, key in enumerate(_keys(old.fov, old.source))}
    counts = Counter(old.source)
    at = {path: row for row, path in enumerate(old.source) if counts[path] == 1}
    sources: list[FovSource | None] = [None] * len(old)
    rest: list[tuple[tuple[str, str, int], FovSource]] = []
    keys = _keys([one.fov for one in found], [one.source for one in found])
    for key, one in zip(keys, found, strict=True):
        row = at.get(one.source)
        if row is not None and sources[row] is None and _same_name(old.fov[row], one):
            sources[row] = one
        else:
            rest.append((key, one))
    new = []
    taken = set(old.fov)
    for key, one in rest:
        row = place.get(key)
        if row is not None and sources[row] is None and same_file(row, one):
            sources[row] = one
        else:
            clash = one.fov in taken and not one.problem and not one.given and row is not None
            new.append(further(one, taken) if clash else one)
            taken.add(new[-1].fov)
    where = [
        path if one is None else one.source for path, one in zip(old.source, sources, strict=True)
    ]
    every = [*sources, *new]
    names = list(
        dict.fromkeys([*IDENTITY_COORDS, *old.coords, *(c for one in found for c in one.coords)])
    )
    return Catalog(
        fov=(*old.fov, *(one.fov for one in new)),
        source=(*where, *(one.source for one in new)),
        coords={
            name: tuple(
                one.coords[name]
                if one is not None and name in one.coords
                else (old.coords[name][row] if row < len(old) and name in old.coords else "")
                for row, one in enumerate(every)
            )
            for name in names
        },
        sources=tuple(every),
        labels=old.labels,
        grades=_grown(old.grades, len(every)),
    )


def _same_name(fov: str, one: FovSource) -> bool:
    """Whether a field has this name, ignoring the parts of its path added to make it unique."""
    return fov == one.fov or fov == one.short or fov.endswith(f"/{one.short or one.fov}")


def _keys(fovs: Sequence[str], sources: Sequence[str]) -> list[tuple[str, str, int]]:
    seen: Counter[tuple[str, str]] = Counter()
    keys = []
    for fov, source in zip(fovs, sources, strict=True):
        names = "|".join(path.rsplit("/", 1)[-1] for path in source.split("|"))
        seen[fov, names] += 1
        keys.append((fov, names, seen[fov, names]))
    return keys


def _grown(grades: npt.NDArray[np.uint8], rows: int) -> npt.NDArray[np.uint8]:
    grown = np.zeros((rows, grades.shape[1]), np.uint8)
    grown[: len(grades)] = grades
    return grown


def label(catalog: Catalog, table: LabelTable) -> tuple[Catalog, list[str]]:
    """Grades and coords from `table` for every row it speaks of; what matched, in notes.

    Rows outside the present SOURCE keep what they have. The vocabulary is the table's, and whatever
    labels such rows have; a table that speaks of no labels leaves all of them alone.
    """
    found = [one for one in catalog.sources if one is not None]
    absent = [_named(catalog, row) for row, one in enumerate(catalog.sources) if one is None]
    notes = table.account(found, absent)
    matches = [None if one is None else table.match(one) for one in catalog.sources]
    coords = dict(catalog.coords)
    for name in table.coords:
        before = coords.get(name, ("",) * len(catalog))
        coords[name] = tuple(
            old if match is None else match.values[name]
            for old, match in zip(before, matches, strict=True)
        )
    if not table.labelled:
        return replace(catalog, coords=coords), notes
    labels, grades = _graded(catalog, table, matches)
    return replace(catalog, coords=coords, labels=labels, grades=grades), notes


def _graded(
    catalog: Catalog, table: LabelTable, matches: Sequence[Row | None]
) -> tuple[tuple[str, ...], npt.NDArray[np.uint8]]:
    kept = [row for row, one in enumerate(catalog.sources) if one is None]
    used = {
        name
        for index, name in enumerate(catalog.labels)
        if kept and catalog.grades[kept, index].any()
    }
    labels = tuple(sorted(used.union(table.labels)))
    grades = np.zeros((len(catalog), len(labels)), np.uint8)
    for row, match in enumerate(matches):
        if match is not None:
            grades[row, [labels.index(name) for name in table.labels]] = match.grades
    for row in kept:
        for name in used:
            grades[row, labels.index(name)] = catalog.grades[row, catalog.labels.index(name)]
    return labels, grades


def commonest(values: Mapping[str, object] | Sequence[object]) -> object:
    """The most frequent value; of equals, the largest."""
    items = list(values.values()) if isinstance(values, Mapping) else list(values)
    counts = Counter(items)
    return max(counts, key=lambda value: (counts[value], value))
