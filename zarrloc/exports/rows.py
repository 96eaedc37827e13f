"""The rows of a group with everything the store says of each: what any table is made from.

Facts of a field stand once a field, and a cell's are its field's: a million cells cost a few
bytes a column. Wide arrays (embeddings) are not held at all but read in blocks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.embeddings import Labels, read_labels, read_text
from zarrloc.groups.receipts import ROW_DIGEST, check_array
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.document import groups
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs

BLOCK_ROWS = 8192
"""Rows that are read, turned and written at once."""

KINDS = ("fovs", "embeddings", "cells", "heads", "splits")

FIRST = ("fov", "plate", "well", "protein", "ensg", "cell_line")
"""Facts of a field that come first, in this order."""

INTERNAL = frozenset({"source_digest", "source_hash", ROW_DIGEST, "fov_index"})

Block = Callable[[int, int], npt.NDArray[Any]]


@dataclass(frozen=True)
class Matrix:
    """A wide array along the rows: `(rows, len(names))`, read in blocks."""

    names: tuple[str, ...]
    read: Block
    """Rows `start` to `stop`, float32."""
    rows: int

    @classmethod
    def of(cls, names: Sequence[str], values: npt.NDArray[Any]) -> "Matrix":
        """One that is in memory already."""
        return cls(tuple(names), lambda start, stop: values[start:stop], len(values))

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Blocks in order, each with its first row."""
        for start in range(0, self.rows, BLOCK_ROWS):
            yield start, self.read(start, min(start + BLOCK_ROWS, self.rows))

    def whole(self) -> npt.NDArray[np.float32]:
        """All of it, in memory."""
        return np.concatenate([block for _, block in self.blocks()]).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """Rows of a group: `obs` has a column a fact; `matrix` is what the group is about."""

    what: str
    level: str
    """`fov` or `cell`."""
    obs: pd.DataFrame
    matrix: Matrix
    names: pd.Index
    """A unique name a row: the field's, or `<field>_<mask label>`."""
    spatial: npt.NDArray[np.float64] | None = None
    """`(rows, 2)`: x, y of a cell in its field, px."""
    predictions: Mapping[str, tuple[tuple[str, ...], npt.NDArray[np.float32]]] = field(
        default_factory=dict
    )
    """Head -> its labels and probabilities `(rows, label)`, for an embedding."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How the group came to be: its `zarrloc` attributes."""
    masks: str | None = None
    """The segmentation that cells are of."""

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def failed(self) -> dict[str, str]:
        """Rows with an error, by name."""
        if "error" not in self.obs:
            return {}
        error = self.obs["error"].astype(str).to_numpy()
        bad = np.flatnonzero(error != "").tolist()
        return {str(self.names[row]): str(error[row]) for row in bad}

    def frames(self) -> Iterator[pd.DataFrame]:
        """The whole table, block by block: facts first, then the matrix, a column a name."""
        for start, values in self.matrix.blocks():
            part = self.obs.iloc[start : start + len(values)].reset_index(drop=True)
            wide = pd.DataFrame(values, columns=list(self.matrix.names))
            yield pd.concat([part, wide], axis=1)


def read_rows(location: Location, what: str) -> Rows:
    """The rows of group `what`.

    Raises
    ------
    ConfigError
        Where `what` is no kind of group that has rows.
    StoreError
        Where the group is absent, or was made for other rows.
    """
    kind, _, name = what.partition("/")
    if kind not in KINDS or (kind == "fovs") == bool(name):
        there = [path for path in groups(location) if path.split("/")[0] in KINDS]
        raise ConfigError(f"cannot export '{what}'; the store has {', '.join(there) or 'nothing'}")
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    facts = _Facts.of(fovs)
    if kind == "fovs":
        return _of_fovs(fovs, facts)
    if kind == "cells":
        return _of_cells(location, name, facts, fovs)
    if kind == "embeddings":
        return _of_embedding(location, name, facts, fovs)
    if kind == "heads":
        return _of_head(location, name, facts, fovs)
    return _of_split(location, name, facts)


# --- facts of fields ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Facts:
    """What is known of each field, and how rows take it."""

    table: pd.DataFrame
    channels: tuple[str, ...]
    pixel_size_um: float | None

    @classmethod
    def of(cls, fovs: zarr.Group) -> "_Facts":
        text = {
            name: read_text(fovs, name)
            for name, array in fovs.arrays()
            if _dims(array) == ("fov",) and array.dtype.kind == "T" and name not in INTERNAL
        }
        labels = read_labels(fovs)
        last = {name: text.pop(name) for name in ("source", "error") if name in text}
        stated = {name: values for name, values in text.items() if (values != "").any()}
        order = [name for name in FIRST if name in stated]
        order += sorted(set(stated) - set(order))
        columns: dict[str, Any] = {name: category(stated[name]) for name in order}
        if labels.names:
            columns |= _labels(labels)
        columns |= {name: category(values) for name, values in last.items()}
        pixel: Any = fovs.attrs.get("pixel_size_um")
        channels = tuple(read_text(fovs, "channel").tolist())
        return cls(pd.DataFrame(columns), channels, pixel)

    def rows(self, index: npt.NDArray[np.integer[Any]]) -> dict[str, Any]:
        """The facts of the fields of rows, a column a fact; `error` is left to the rows' own."""
        skip = {"error", "source"}
        return {
            str(name): self.table[name].array.take(index) for name in self.table if name not in skip
        }


def category(texts: Iterable[Any]) -> pd.Categorical:
    """Texts of which many are alike; the categories are plain Python strings."""
    codes, found = pd.factorize(np.array([str(text) for text in texts], dtype=object), sort=True)
    return pd.Categorical.from_codes(codes, categories=pd.Index(found, dtype=object))


def _labels(labels: Labels) -> dict[str, Any]:
    """Labels by name, and a column for each grade."""
    return {
        "labels": category(_joined(labels.names, labels.grade == 3)),
        "weaker_labels": category(_joined(labels.names, (labels.grade == 1) | (labels.grade == 2))),
        **{f"grade_{name}": labels.grade[:, i] for i, name in enumerate(labels.names)},
    }


def _joined(names: Sequence[str], held: npt.NDArray[np.bool_]) -> list[str]:
    return ["; ".join(n for n, yes in zip(names, row, strict=True) if yes) for row in held]


def _dims(array: Any) -> tuple[str, ...]:
    return tuple(array.metadata.dimension_names or ())


# --- one function a kind ------------------------------------------------------------------------


def _nothing(rows: int) -> Matrix:
    return Matrix.of((), np.zeros((rows, 0), np.float32))


def _about(group: zarr.Group) -> dict[str, Any]:
    return stage_attrs(group).model_dump(exclude={"digested", "block_rows", "array"})


def _of_fovs(fovs: zarr.Group, facts: _Facts) -> Rows:
    table = facts.table.copy()
    tail = [name for name in ("source", "error") if name in table]
    for name in ("height", "width"):
        table[f"{name}_px"] = read_column(fovs, name)
    for index, channel in enumerate(facts.channels):
        table[f"background_{channel}"] = read_column(fovs, "background")[:, index]
    table = table[[name for name in table if name not in tail] + tail]
    names = pd.Index(table["fov"].astype(str).tolist())
    return Rows("fovs", "fov", table, _nothing(len(table)), names, about=_about(fovs))


def _of_cells(location: Location, name: str, facts: _Facts, fovs: zarr.Group) -> Rows:
    found = _Cells.of(location, name, facts, fovs)
    measured = found.measured
    matrix = Matrix.of(
        list(measured),
        np.stack([np.asarray(v, np.float32) for v in measured.values()], axis=1)
        if measured
        else np.zeros((len(found.names), 0), np.float32),
    )
    return Rows(
        f"cells/{name}", "cell", pd.DataFrame(found.obs), matrix, found.names,
        spatial=found.spatial, about=_about(found.group), masks=name,
    )  # fmt: skip


def _of_embedding(location: Location, name: str, facts: _Facts, fovs: zarr.Group) -> Rows:
    path = f"embeddings/{name}"
    group = need(location, path, f"embed STORE --name {name}")
    attrs = stage_attrs(group)
    obs, names, level, cells = _under(location, group, facts, fovs, dict(attrs.config))
    rows = array_of(group, "embedding").shape[0]
    _same_length(path, rows, len(names))
    obs["error"] = category(read_text(group, "error"))
    digests = read_column(group, ROW_DIGEST)

    def read(start: int, stop: int) -> npt.NDArray[Any]:
        values = read_column(group, "embedding", stop, start)
        check_array(path, values, digests[start:stop], start)
        return values.astype(np.float32, copy=False)

    width = array_of(group, "embedding").shape[1]
    predictions = _predictions(location, path, rows)
    for head, (labels, probability) in predictions.items():
        obs[f"{head}_predicted"] = category(_best(labels, probability, 0))
    return Rows(
        path, level, pd.DataFrame(obs),
        Matrix(tuple(f"feature_{i}" for i in range(width)), read, rows), names,
        spatial=None if cells is None else cells.spatial,
        predictions=predictions,
        about=_about(group), masks=None if cells is None else cells.name,
    )  # fmt: skip


def _of_head(location: Location, name: str, facts: _Facts, fovs: zarr.Group) -> Rows:
    path = f"heads/{name}"
    group = need(location, path, f"train STORE --name {name}")
    embedding = _embedding_of(group)
    source = need(location, embedding, f"embed STORE --name {embedding.split('/')[1]}")
    settings = dict(stage_attrs(source).config)
    obs, names, level, cells = _under(location, group, facts, fovs, settings)
    labels = tuple(read_text(group, "label").tolist())
    probability = read_column(group, "probability")
    _same_length(path, len(probability), len(names))
    called = probability >= read_column(group, "threshold")
    if "called" in group:
        called = read_column(group, "called").astype(bool)
    obs["predicted"] = category(_joined(labels, called))
    for place in range(min(3, len(labels))):
        obs[f"top_{place + 1}"] = category(_best(labels, probability, place, share=True))
    if "row_fold" in group:
        obs["fold"] = read_column(group, "row_fold")
    return Rows(
        path, level, pd.DataFrame(obs), Matrix.of(labels, probability), names,
        spatial=None if cells is None else cells.spatial,
        about=_about(group), masks=None if cells is None else cells.name,
    )  # fmt: skip


def _of_split(location: Location, name: str, facts: _Facts) -> Rows:
    group = need(location, f"splits/{name}", f"split STORE --name {name}")
    fold = read_column(group, "fold")
    _same_length(f"splits/{name}", len(fold), len(facts.table))
    obs = facts.rows(np.arange(len(fold)))
    obs["fold"] = category(["test" if one < 0 else f"fold {one}" for one in fold])
    table = pd.DataFrame(obs)
    names = pd.Index(table["fov"].astype(str).tolist())
    return Rows(f"splits/{name}", "fov", table, _nothing(len(table)), names, about=_about(group))


def _same_length(path: str, rows: int, expected: int) -> None:
    if rows != expected:
        raise StoreError(
            f"'{path}' has {rows} rows for {expected} there are now; run the command that made it "
            "again"
        )


def _under(
    location: Location,
    group: zarr.Group,
    facts: _Facts,
    fovs: zarr.Group,
    settings: Mapping[str, Any],
) -> "tuple[dict[str, Any], pd.Index, str, _Cells | None]":
    """Facts and names of the rows that an embedding, or a head on it, stands on."""
    if settings.get("level", "fov") == "fov":
        obs = facts.rows(np.arange(len(facts.table)))
        return obs, pd.Index(facts.table["fov"].astype(str).tolist()), "fov", None
    cells = _Cells.of(location, str(settings["cells"]), facts, fovs)
    return {**cells.obs, **cells.measured}, cells.names, "cell", cells


@dataclass(frozen=True)
class _Cells:
    """A cell table: facts, measurements, names and positions."""

    name: str
    group: zarr.Group
    obs: dict[str, Any]
    measured: dict[str, npt.NDArray[Any]]
    names: pd.Index
    spatial: npt.NDArray[np.float64] | None

    @classmethod
    def of(cls, location: Location, name: str, facts: _Facts, fovs: zarr.Group) -> "_Cells":
        group = need(location, f"cells/{name}", f"segment STORE --name {name}")
        index = read_column(group, "fov_index")
        rows = len(index)
        obs, measured = facts.rows(index), dict[str, npt.NDArray[Any]]()
        for key, array in sorted(group.arrays()):
            dims = _dims(array)
            if dims[:1] != ("cell",) or key in INTERNAL:
                continue
            values = read_column(group, key)
            if dims == ("cell", "channel"):
                measured |= {f"{key}_{c}": values[:, i] for i, c in enumerate(facts.channels)}
            elif dims == ("cell",) and values.dtype.kind in "TUO":
                if key not in obs:
                    obs[key] = category(values)
            elif (dims == ("cell",) and values.dtype.kind == "f") or key == "area_px":
                measured[key] = values
            elif dims == ("cell",):
                obs[key] = values
        if facts.pixel_size_um and "area_px" in measured:
            measured["area_um2"] = measured["area_px"] * np.float32(facts.pixel_size_um**2)
        label = obs.get("mask_label", np.arange(rows))
        fov = read_text(fovs, "fov")[index]
        names = pd.Index([f"{f}_{one}" for f, one in zip(fov.tolist(), label, strict=True)])
        spatial = None
        if "centroid_x" in measured:
            spatial = np.stack([measured["centroid_x"], measured["centroid_y"]], axis=1)
        return cls(name, group, obs, measured, names, spatial)


# --- predictions --------------------------------------------------------------------------------


def _embedding_of(head: zarr.Group) -> str:
    return next(path for path in stage_attrs(head).inputs if path.startswith("embeddings/"))


def _predictions(
    location: Location, embedding: str, rows: int
) -> dict[str, tuple[tuple[str, ...], npt.NDArray[np.float32]]]:
    """What the heads on an embedding say of its rows."""
    found = {}
    for path in groups(location):
        if path.startswith("heads/"):
            group = need(location, path, "train STORE")
            if _embedding_of(group) == embedding:
                probability = read_column(group, "probability")
                if len(probability) == rows:
                    labels = tuple(read_text(group, "label").tolist())
                    found[path.split("/")[1]] = (labels, probability)
    return found


def _best(
    labels: Sequence[str], probability: npt.NDArray[Any], place: int, share: bool = False
) -> list[str]:
    """The label in `place` of each row, with its probability if asked for; "" where unknown."""
    known = np.isfinite(probability).all(axis=1)
    order = np.argsort(-np.nan_to_num(probability), axis=1, kind="stable")[:, place]
    value = np.take_along_axis(probability, order[:, None], axis=1)[:, 0]
    names = np.array(labels, dtype=object)[order]
    texts = [f"{n} ({v:.2f})" for n, v in zip(names, value, strict=True)] if share else names
    return ["" if not k else str(text) for k, text in zip(known, texts, strict=True)]
