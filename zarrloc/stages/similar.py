"""Similar: which proteins look most like one, by an embedding, with a strip of pictures."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import Samples, read_samples
from zarrloc.report.preview import contact_sheet, open_group, read_picture
from zarrloc.result import Result
from zarrloc.scoring.similar import group_means
from zarrloc.store.document import groups, read_root
from zarrloc.store.location import Location

PANEL_PX = 240


def similar(
    store: str | Path | Location,
    protein: str,
    *,
    embedding: str | None = None,
    top: int = 10,
    out: str | Path | None = None,
) -> Result:
    """Find the proteins whose fields look most like those of `protein`. Trains nothing.

    The score is the cosine between the proteins' mean embeddings, each feature standardised over
    all rows and the average protein taken off: 1 the same, 0 unrelated, below 0 opposite.

    Parameters
    ----------
    store
        Path or address of the store.
    protein
        Name of the protein, in any case.
    embedding
        Which embedding; default: the store's first.
    top
        How many proteins.
    out
        A picture to write, such as a .png: a field of the protein, and one of each neighbour.

    Returns
    -------
    Result
        `table` has a row a protein: `protein`, `score`, `labels`, `fields`.

    Raises
    ------
    ConfigError
        Where the protein is unknown, with the nearest name, or the store has no embedding.
    StoreError
        Where the store or the embedding is absent.

    Examples
    --------
    >>> import zarrloc as zl
    >>> found = zl.similar("my.zarr", "SIM0001", top=3)
    >>> len(found.table)
    3
    """
    location = Location.of(store)
    if top < 1:
        raise ConfigError(f"top is {top}; expected at least 1", {"top": f"got {top}, at least 1"})
    samples = read_samples(location, embedding or first_embedding(location))
    names, means = group_means(samples.features, samples.protein)
    at = _index(protein, names)
    score = means @ means[at]
    order = [row for row in np.argsort(-score, kind="stable").tolist() if row != at][:top]
    rows = [
        {
            "protein": str(names[row]),
            "score": round(float(score[row]), 4),
            "labels": "; ".join(_labels(samples, str(names[row]))),
            "fields": len(_fields(samples, str(names[row]))),
        }
        for row in order
    ]
    width = max((len(str(row["protein"])) for row in rows), default=0)
    lines = [f"most like {names[at]} ({'; '.join(_labels(samples, str(names[at])))}):"]
    lines += [f"  {row['protein']:{width}}  {row['score']:6.3f}  {row['labels']}" for row in rows]
    if out is not None:
        shown = [(str(names[row]), f"{score[row]:.3f}") for row in order]
        _strip(location, samples, [(str(names[at]), "asked for"), *shown], Path(out))
        lines.append(f"pictures -> {out}")
    details = {"protein": str(names[at]), "embedding": samples.group, "rows": rows}
    return Result(what=samples.group, done=len(rows), details=details, summary=lines)


def first_embedding(location: Location) -> str:
    """The name of the store's first embedding. `ConfigError` where there is none."""
    read_root(location)
    found = [path for path in groups(location) if path.startswith("embeddings/")]
    if not found:
        raise ConfigError(
            "the store has no embedding; make one, without any training or download, with "
            "`zarrloc embed STORE --backbone classic --name classic`"
        )
    return found[0].split("/")[1]


def _index(protein: str, names: npt.NDArray[np.str_]) -> int:
    known = {name.lower(): row for row, name in enumerate(names.tolist())}
    if protein.lower() not in known:
        near = get_close_matches(protein.lower(), known, n=1)
        hint = f"did you mean {names[known[near[0]]]}?" if near else f"such as {names[0]}"
        raise ConfigError(f"no protein '{protein}' with an embedding among {len(names)}; {hint}")
    return known[protein.lower()]


def _fields(samples: Samples, protein: str) -> npt.NDArray[np.int64]:
    """Rows in `fovs` that show a protein."""
    return np.unique(samples.fov_index[samples.protein == protein])


def _labels(samples: Samples, protein: str) -> list[str]:
    grade = samples.grade[samples.protein == protein].max(axis=0, initial=0)
    return [name for name, best in zip(samples.labels, grade, strict=True) if best == 3]


def _strip(location: Location, samples: Samples, shown: list[tuple[str, str]], out: Path) -> None:
    """One field of each protein, side by side."""
    fovs = open_group(location, "fovs", "ingest SOURCE STORE")
    fine = fovs["error"].values == ""
    pictures = []
    for protein, lines in shown:
        rows = [row for row in _fields(samples, protein).tolist() if fine[row]]
        if rows:
            picture = read_picture(fovs, None, rows[0])
            pictures.append(replace(picture, title=f"{protein}   {lines}"))
    page = contact_sheet(pictures, "contrast per image, for display only", PANEL_PX)
    try:
        page.save(out)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"cannot write {out} ({error}); name a .png file in a folder that exists"
        ) from error
