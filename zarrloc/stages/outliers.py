"""Outliers: fields that are out of focus, empty, saturated, or unlike their own replicates."""

from pathlib import Path
from typing import Any

import numpy as np

from zarrloc.result import Result
from zarrloc.scoring.odd import Odd, odd_fields
from zarrloc.store.location import Location


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
    odd = odd_fields(Location.of(store), embedding)
    rows = [
        {
            "fov": str(odd.names[row]),
            "protein": str(odd.protein[row]),
            "why": "; ".join(reasons),
            **_figures(odd, row),
            "replicates": _number(None if odd.replicates is None else odd.replicates[row]),
        }
        for row, reasons in odd.why.items()
    ]
    lines = [f"{len(rows)} of {len(odd.measured)} fields stand out"]
    lines += [f"  {row['fov']} {row['protein']}: {row['why']}" for row in rows]
    if odd.replicates is None:
        lines.append("  replicates were not compared: there is no embedding of fields")
    if odd.failed:
        lines.append(f"  {len(odd.failed)} more have no image; `zarrloc info STORE --errors`")
    return Result(
        what="fovs", done=len(odd.measured), failures=dict(odd.failed), summary=lines,
        details={"embedding": odd.embedding, "rows": rows},
    )  # fmt: skip


def _figures(odd: Odd, row: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for channel, q in zip(odd.channels, odd.measured[row], strict=True):
        figures[f"focus_{channel}"] = _number(q.focus)
        figures[f"light_{channel}"] = _number(q.light)
        figures[f"saturated_{channel}"] = _number(q.at_largest)
    return figures


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 5)
