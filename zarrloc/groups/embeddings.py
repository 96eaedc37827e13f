"""What heads learn from and are judged by: embeddings with their fields, proteins and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.receipts import ROW_DIGEST, check_array
from zarrloc.groups.splits import read_fold
from zarrloc.store.attrs import GroupAttrs, StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs
from zarrloc.store.template import PENDING, Variable


class EmbeddingAttrs(GroupAttrs):
    """Attributes of `embeddings/<name>`."""


def template(
    dim: str, rows: int, width: int, block_rows: int, coords: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Variable]:
    """The arrays of an embedding of `rows` fields or cells, in blocks of `block_rows`."""
    meaning = {"long_name": "largest absolute value that went into the backbone"}
    return {
        "embedding": Variable((dim, "feature"), "float32", (rows, width), np.nan, block_rows),
        "error": Variable((dim,), "string", (rows,), PENDING),
        "largest_input": Variable((dim,), "float32", (rows,), attrs=meaning),
        **{name: Variable.like((dim,), values) for name, values in coords.items()},
    }


@dataclass(frozen=True)
class Labels:
    """Labels of the fields of a store, in their order; `grade` uint8 `(fov, label)`."""

    names: tuple[str, ...]
    grade: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Samples:
    """One embedding's rows: features float32 `(n, f)`, and what each row shows."""

    group: str
    level: str
    stage: StageAttrs
    features: npt.NDArray[np.float32]
    fov_index: npt.NDArray[np.int64]
    fov: npt.NDArray[np.str_]
    protein: npt.NDArray[np.str_]
    labels: tuple[str, ...]
    grade: npt.NDArray[np.uint8]
    siblings: "Siblings"
    """Which rows are siblings of which."""
    target: str | None = None
    """The coordinate whose values the labels are: classes, one a row."""

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Rows that have an embedding, bool `(n,)`."""
        return np.asarray(np.isfinite(self.features).all(axis=1))

    @property
    def cells(self) -> str | None:
        """The cell table these rows are of, such as `cells/cp`."""
        return next((path for path in self.stage.inputs if path.startswith("cells/")), None)


def read_samples(location: Location, embedding: str, target: str | None = None) -> Samples:
    """Read an embedding with what its rows show. `StoreError` where it is absent.

    Without labels in the store, `labels` is empty and `grade` has no columns. With a `target` they
    are the classes of that coordinate, as `read_labels` says.
    """
    path = f"embeddings/{embedding}"
    group = need(location, path, f"embed STORE --name {embedding}")
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    stage = stage_attrs(group)
    rows = len(read_column(fovs, "fov"))
    level = str(stage.config.get("level", "fov"))
    fov_index = read_column(group, "fov_index") if level == "cell" else np.arange(rows)
    features = read_column(group, "embedding")
    check_array(path, features, read_column(group, ROW_DIGEST))
    features = features.astype(np.float32, copy=False)
    if len(features) != len(fov_index):
        raise StoreError(
            f"'{path}' has {len(features)} rows for {rows} fields; run the same `zarrloc embed` "
            "again to add the new ones"
        )
    labels = read_labels(fovs, target)
    siblings = siblings_of(fovs, target)
    return Samples(
        path,
        level,
        stage,
        features,
        fov_index,
        read_text(fovs, "fov")[fov_index],
        proteins_of(fovs)[fov_index],
        labels.names,
        labels.grade[fov_index],
        siblings[fov_index],
        target,
    )


def fields_of(samples: Samples) -> tuple[Samples, npt.NDArray[np.int64]]:
    """The fields of an embedding of cells: one row a field that has a cell, its cells' mean.

    Also, for each cell, the row of its field, int64 `(cell,)`; -1 for a cell without an embedding.
    """
    own = np.flatnonzero(samples.finite)
    index, first, where = np.unique(samples.fov_index[own], return_index=True, return_inverse=True)
    field = np.full(len(samples.features), -1, np.int64)
    field[own] = where
    one = own[first]
    pooled = replace(
        samples,
        features=mean_of(samples.features, field, len(index)),
        fov_index=index,
        fov=samples.fov[one],
        protein=samples.protein[one],
        grade=samples.grade[one],
        siblings=samples.siblings[one],
    )
    return pooled, field


def fold_of_fields(
    fold: npt.NDArray[np.int8], field: npt.NDArray[np.int64]
) -> npt.NDArray[np.int8]:
    """The fold of each field, int8 `(field,)`, from those of its cells `(cell,)`."""
    found = np.zeros(int(field.max(initial=-1)) + 1, np.int8)
    found[field[field >= 0]] = fold[field >= 0]
    return found


def mean_of(
    features: npt.NDArray[np.float32], field: npt.NDArray[np.int64], fields: int
) -> npt.NDArray[np.float32]:
    """Mean features `(fields, f)` of the cells of each field; those of field -1 are left out."""
    own = field >= 0
    total = np.zeros((fields, features.shape[1]))
    np.add.at(total, field[own], features[own])
    return (total / np.bincount(field[own], minlength=fields)[:, None]).astype(np.float32)


def read_labels(fovs: zarr.Group, target: str | None = None) -> Labels:
    """The label vocabulary and grades of `fovs`; empty where none were ingested.

    With a `target` the classes of that coordinate: its values, each field grade 3 in its own and 0
    in the others; a field where it is empty has no class. Raises ConfigError where the fields have
    no such coordinate, or it makes no two classes of which one has two fields.
    """
    if target is not None:
        return _classes(fovs, target)
    if "grade" not in fovs:
        return Labels((), np.zeros((len(read_column(fovs, "fov")), 0), np.uint8))
    return Labels(tuple(read_text(fovs, "label").tolist()), read_column(fovs, "grade"))


def proteins_of(fovs: zarr.Group, unnamed: str = "field ") -> npt.NDArray[np.str_]:
    """The protein of each field; one that names none counts as one of its own, `unnamed` FOV."""
    fov = read_text(fovs, "fov")
    protein = read_text(fovs, "protein") if "protein" in fovs else np.full(len(fov), "")
    return np.where(protein == "", np.char.add(unnamed, fov), protein)


@dataclass(frozen=True)
class Siblings:
    """Which rows show the same thing, so that one of them gives away the labels of the others.

    `by` is the coordinate that says so: `protein` where any field names one, else `well`, else
    `field`: then every field stands alone, and what siblings give away can't be measured.
    """

    by: str
    group: npt.NDArray[np.str_]
    """`(row,)`; a field that does not say is a group of its own."""
    known: npt.NDArray[np.bool_]
    """`(row,)` whether its field says."""

    def __getitem__(self, rows: Any) -> "Siblings":
        """The siblings among some of the rows."""
        return Siblings(self.by, self.group[rows], self.known[rows])


def siblings_of(fovs: zarr.Group, target: str | None = None) -> Siblings:
    """The siblings among the fields of a store; a target itself cannot make fields siblings."""
    for by in ("protein", "well"):
        if by != target and by in fovs and (known := read_text(fovs, by) != "").any():
            return Siblings(by, group_of(fovs, by), known)
    fields = group_of(fovs, "field")
    return Siblings("field", fields, np.zeros(len(fields), bool))


def _classes(fovs: zarr.Group, target: str) -> Labels:
    group_of(fovs, target)  # refuses what is no coordinate
    value = read_text(fovs, target)
    names = sorted({*value.tolist()} - {""})
    fields = int((value != "").sum())
    if len(names) < 2 or len(names) == fields:
        raise ConfigError(
            f"'{target}' has {len(names)} values for {fields} fields; a target needs two classes "
            "at least, and more fields than classes"
        )
    return Labels(tuple(names), np.where(value[:, None] == np.array(names), 3, 0).astype(np.uint8))


def group_of(fovs: zarr.Group, by: str) -> npt.NDArray[np.str_]:
    """The group of each field by a coordinate; a field where it is empty is a group of its own.

    `field` (`fov`, `image`) is each field alone; a well is that of its plate. Raises ConfigError
    where the fields have no such coordinate, or it is empty everywhere.
    """
    fov = read_text(fovs, "fov")
    alone = np.char.add("field ", np.arange(len(fov)).astype(str))
    if by in ("field", "fov", "image"):
        return alone
    found = text_coords(fovs)
    if by not in found:
        there = sorted(name for name in found if (read_text(fovs, name) != "").any())
        raise ConfigError(
            f"no coordinate '{by}' along the fields; there are {', '.join(['field', *there])}"
        )
    value = read_text(fovs, by)
    if not (value != "").any():
        raise ConfigError(f"no field says its {by}: the coordinate '{by}' is empty everywhere")
    name = value
    if by == "well" and "plate" in found:
        name = np.char.add(np.char.add(read_text(fovs, "plate"), " "), value)
    return np.where(value == "", alone, name)


def text_coords(fovs: zarr.Group) -> tuple[str, ...]:
    """Coordinates of the fields that can group them: text, but no name, address or error."""
    rows = len(read_column(fovs, "fov"))
    return tuple(
        name
        for name, array in fovs.arrays()
        if array.dtype.kind in "TU"
        and array.shape == (rows,)
        and array.metadata.dimension_names == ("fov",)  # type: ignore[union-attr]
        and name not in ("fov", "source", "error")
    )


def read_text(group: zarr.Group, name: str) -> npt.NDArray[np.str_]:
    """A column of text; fixed-width, which numpy's set routines are fastest and safest on."""
    values: list[Any] = read_column(group, name).tolist()
    return np.array([str(value) for value in values], dtype=np.str_)


def row_folds(location: Location, split: str, samples: Samples) -> npt.NDArray[np.int8]:
    """The fold of every row: cells follow their field."""
    return read_fold(location, split)[samples.fov_index]


def need_labels(samples: Samples) -> None:
    """Refuse a store without labels, or with labels for none of these rows."""
    if not samples.labels:
        raise ConfigError(
            "the store has no labels; bring them in with `zarrloc annotate STORE --labels TABLE`, "
            "or name what else is to be learnt, such as --target condition"
        )
    usable = samples.finite & (samples.grade > 0).any(axis=1)
    if not usable.any():
        raise ConfigError(
            f"no row of '{samples.group}' has both an embedding and a label: of {len(usable)}, "
            f"{int(samples.finite.sum())} have an embedding and "
            f"{int((samples.grade > 0).any(axis=1).sum())} a label; check the label table and "
            "`zarrloc info STORE --errors`"
        )


def notes_on(samples: Samples) -> list[str]:
    """Notes on rows that can neither teach nor be scored, and on what the backbone has seen."""
    notes = []
    if missing := int((~samples.finite).sum()):
        notes.append(f"{missing} of {len(samples.finite)} rows left out: no embedding")
    if unlabelled := int((samples.finite & ~(samples.grade > 0).any(axis=1)).sum()):
        notes.append(f"{unlabelled} of {len(samples.finite)} rows left out: no label")
    if pretraining := samples.stage.config.get("pretraining"):
        notes.append(
            f"the backbone was trained, without labels, on {pretraining['fields']} fields; "
            f"held out: {pretraining['held_out']}"
        )
        if pretraining.get("views") == "protein":
            notes.append(
                "two fields of one protein were two views of its training: only proteins that were "
                "held out are new to it"
            )
        notes += pretraining["warnings"]
    return notes
