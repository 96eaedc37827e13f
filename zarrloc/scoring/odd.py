"""Fields that are out of focus, empty, saturated, or unlike their own replicates."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zarrloc.groups.embeddings import read_samples, read_text
from zarrloc.groups.fields import Decoded, Fields
from zarrloc.pixels.quality import SATURATED_SHARE, Quality, quality, robust_z
from zarrloc.scoring.similar import own_similarity
from zarrloc.store.columns import read_column
from zarrloc.store.document import groups
from zarrloc.store.location import Location
from zarrloc.store.read import need

LIMIT = -4.0
"""How far below its like, in robust sd, a field must lie."""


@dataclass(frozen=True)
class Odd:
    """What was measured, and what stands out. Fields are rows of `fovs`."""

    names: npt.NDArray[np.str_]
    protein: npt.NDArray[np.str_]
    channels: tuple[str, ...]
    measured: Mapping[int, tuple[Quality, ...]]
    """Row -> its channels; rows without an image are left out."""
    replicates: npt.NDArray[np.float64] | None
    """Cosine of each field to the others of its protein; NaN where there are none."""
    embedding: str | None
    """The embedding that tells replicates apart."""
    why: Mapping[int, list[str]]
    """Row -> what is odd about it, for those that are odd."""
    failed: Mapping[str, str]
    """Field -> why it has no image."""


def odd_fields(location: Location, embedding: str | None = None) -> Odd:
    """Measure every field and name those that stand out; `zarrloc.outliers` says by which rules.

    Raises
    ------
    ConfigError, StoreError
        Where the embedding is absent, or fields are damaged.
    """
    chosen = embedding or _of_fields(location)
    replicates = None if chosen is None else _replicates(location, chosen)
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    fields = Fields(location, counts=True)
    names, error = read_text(fovs, "fov"), read_text(fovs, "error")
    protein = read_text(fovs, "protein") if "protein" in fovs else np.full(len(names), "")
    measured = dict(_measured(fields, read_column(fovs, "height"), read_column(fovs, "width")))
    return Odd(
        names=names,
        protein=protein,
        channels=fields.channels,
        measured=measured,
        replicates=replicates,
        embedding=chosen,
        why=_why(measured, fields.channels, replicates),
        failed={str(names[row]): str(error[row]) for row in np.flatnonzero(error != "").tolist()},
    )


def _of_fields(location: Location) -> str | None:
    for path in groups(location):
        name = path.removeprefix("embeddings/")
        if name != path and read_samples(location, name).level == "fov":
            return name
    return None


def _replicates(location: Location, embedding: str) -> npt.NDArray[np.float64]:
    """Cosine of each field to the others of its protein; of cells, the mean of a field's."""
    samples = read_samples(location, embedding)
    own = own_similarity(samples.features, samples.protein)
    if samples.level == "fov":
        return own
    rows = int(samples.fov_index.max(initial=-1)) + 1
    known = np.isfinite(own)
    total = np.bincount(samples.fov_index[known], own[known], rows)
    count = np.bincount(samples.fov_index[known], minlength=rows)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _measured(
    fields: Fields, height: npt.NDArray[np.integer], width: npt.NDArray[np.integer]
) -> Iterator[tuple[int, tuple[Quality, ...]]]:
    """Every field that has an image, shard by shard, on all cores: the filters leave the GIL."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard in np.unique(fields.shard[fields.usable]).tolist():
            rows = fields.usable[fields.shard[fields.usable] == shard]
            held = fields.load(rows)

            def measure(row: int, held: Decoded = held) -> tuple[Quality, ...]:
                image = held.images[row - held.first][:, : height[row], : width[row]]
                return tuple(quality(channel) for channel in image)

            yield from zip(rows.tolist(), pool.map(measure, rows.tolist()), strict=True)


def _why(
    measured: Mapping[int, tuple[Quality, ...]],
    channels: tuple[str, ...],
    replicates: npt.NDArray[np.float64] | None,
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    rows = list(measured)
    for at, channel in enumerate(channels):
        every = [measured[row][at] for row in rows]
        focus = np.array([np.nan if q.empty or q.focus <= 0 else q.focus for q in every])
        z = robust_z(np.log(focus))
        most = max((q.largest for q in every), default=0.0)
        for row, q, below in zip(rows, every, z, strict=True):
            if q.empty:
                found.setdefault(row, []).append(f"{channel} empty")
            elif below < LIMIT:
                found.setdefault(row, []).append(f"{channel} out of focus")
            if q.largest == most and q.at_largest > SATURATED_SHARE:
                found.setdefault(row, []).append(f"{channel} saturated ({q.at_largest:.1%})")
    if replicates is not None:
        z = robust_z(replicates)
        for row in rows:
            if row < len(z) and z[row] < LIMIT:
                found.setdefault(row, []).append("unlike its replicates")
    return dict(sorted(found.items()))
