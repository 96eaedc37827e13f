"""Outliers: fields that are out of focus, empty, saturated, or unlike their own replicates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.exports.images import Images
from zarrloc.groups.embeddings import read_samples
from zarrloc.pixels.quality import SATURATED_SHARE, Quality, quality, robust_z
from zarrloc.result import Result
from zarrloc.scoring.similar import own_similarity
from zarrloc.store.document import groups
from zarrloc.store.location import Location

LIMIT = -4.0
"""How far below its like, in robust sd, a field must lie."""


def outliers(store: str | Path | Location, *, embedding: str | None = None) -> Result:
    """Name the fields that one should look at before trusting them. Trains and writes nothing.

    A channel is out of focus where its share of fine detail lies 4 robust sd below the store's
    (on a log scale), empty where its bright pixels rise less than 6 noise sd above the rest,
    saturated where over 0.1 % of its pixels have the store's largest value. A field is unlike its
    replicates where its cosine to the other fields of its protein lies 4 robust sd below the
    store's; that takes an embedding, and three fields of the protein.

    Parameters
    ----------
    store
        Path or address of the store.
    embedding
        Which embedding of fields tells replicates apart; default: the first, if there is one.

    Returns
    -------
    Result
        `table` has a row a field that stands out: `fov`, `protein`, `why`, and what was measured;
        `failed` the fields that have no image.

    Raises
    ------
    ConfigError, StoreError
        Where the store or the embedding is absent, or its fields are damaged.

    Examples
    --------
    >>> import zarrloc as zl
    >>> sorted(zl.outliers("my.zarr").table.columns)[:2]  # doctest: +SKIP
    ['focus_nucleus', 'focus_protein']
    """
    location = Location.of(store)
    chosen = embedding or _of_fields(location)
    replicates = None if chosen is None else _replicates(location, chosen)
    images = Images.of(location, "fovs")
    measured = _measure(images)
    why = _why(measured, [channel.name for channel in images.channels], replicates)
    protein = images.text("protein")
    rows = [
        {
            "fov": str(images.names[row]),
            "protein": str(protein[row]),
            "why": "; ".join(reasons),
            **_figures(measured[row], images),
            "replicates": _number(None if replicates is None else replicates[row]),
        }
        for row, reasons in why.items()
    ]
    told = [f"{len(rows)} of {len(measured)} fields stand out"]
    told += [f"  {row['fov']} {row['protein']}: {row['why']}" for row in rows]
    if replicates is None:
        told.append("  replicates were not compared: there is no embedding of fields")
    if images.failed:
        told.append(f"  {len(images.failed)} more have no image; `zarrloc info STORE --errors`")
    return Result(
        what="fovs", done=len(measured), failures=dict(images.failed), told=told,
        details={"embedding": chosen, "rows": rows},
    )  # fmt: skip


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


def _measure(images: Images) -> dict[int, tuple[Quality, ...]]:
    return {field.row: tuple(quality(channel) for channel in field.image) for field in images}


def _why(
    measured: Mapping[int, tuple[Quality, ...]],
    channels: list[str],
    replicates: npt.NDArray[np.float64] | None,
) -> dict[int, list[str]]:
    """Row -> what is odd about it, for those that are odd."""
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


def _figures(measured: tuple[Quality, ...], images: Images) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for channel, q in zip(images.channels, measured, strict=True):
        figures[f"focus_{channel.name}"] = _number(q.focus)
        figures[f"light_{channel.name}"] = _number(q.light)
        figures[f"saturated_{channel.name}"] = _number(q.at_largest)
    return figures


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)
