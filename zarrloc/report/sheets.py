"""Numbered contact sheets and an empty table, for an expert to judge single cells with.

One picture a field: the whole field with numbered outlines, and beside it every kept cell, its
surroundings dimmed. The table has a row a cell and two ticks, as in the paper's Appendix B.
"""

import csv
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from PIL import Image, ImageDraw, ImageFont

from zarrloc.errors import ConfigError
from zarrloc.groups.judgements import COLUMNS, Cells, read_cells
from zarrloc.report.preview import FovPicture, composite, draw_field, open_group, read_picture
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need

PAPER_FIELDS = 41
TABLE = "cells.csv"
FIELD_PX = 900
CELL_PX = 150
CELL_UM = 40.0
CELL_FALLBACK_PX = 200
MARGIN_PX = 14
DIMMED = 0.35


def select_paper(
    grades: npt.NDArray[np.uint8],
    labels: Sequence[str],
    proteins: Sequence[str],
    usable: npt.NDArray[np.bool_],
    fields: int = PAPER_FIELDS,
) -> list[int]:
    """Rows of the fields that Appendix B would show an expert, at most `fields`.

    `grades` (fov, label). Fields with grade 3 only and without big_aggregates: two of each single
    label, then one of each combination of labels from the commonest down, and round again.
    Within a set of labels, proteins take turns. 16 labels and 9 combinations make the paper's 41.
    """
    strong = usable & (grades == 3).any(1) & ((grades == 3) | (grades == 0)).all(1)
    if "big_aggregates" in labels:
        strong &= grades[:, list(labels).index("big_aggregates")] == 0
    by_labels: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in np.flatnonzero(strong).tolist():
        by_labels[tuple(np.flatnonzero(grades[row]).tolist())].append(row)
    single = sorted(key for key in by_labels if len(key) == 1)
    combined = sorted(
        (key for key in by_labels if len(key) > 1), key=lambda key: (-len(by_labels[key]), key)
    )
    waiting = {key: iter(_in_turns(rows, proteins)) for key, rows in by_labels.items()}
    turns = itertools.cycle([*single, *single, *combined])
    chosen: list[int] = []
    while len(chosen) < min(fields, int(strong.sum())):
        chosen.extend(itertools.islice(waiting[next(turns)], 1))
    return chosen


def _in_turns(rows: list[int], proteins: Sequence[str]) -> list[int]:
    """`rows` with the first field of every protein before any second one."""
    met: Counter[str] = Counter()
    turn = {}
    for row in rows:
        turn[row] = met[proteins[row]]
        met[proteins[row]] += 1
    return sorted(rows, key=lambda row: (turn[row], row))


def export_sheets(
    store: str | Path | Location,
    cells: str,
    directory: str | Path,
    *,
    select: Literal["all", "paper"] = "all",
    fields: int | None = None,
) -> tuple[int, int]:
    """Write `NNN_<fov>.png` for each selected field and `cells.csv`; returns fields and cells.

    `select="paper"` takes 41 fields by default, `"all"` every field that has kept
    cells, or `fields` of them evenly spaced. Raises ConfigError where nothing fits, or where
    `directory` holds a table already: it may be a filled-in one.
    """
    location, directory = Location.of(store), Path(directory)
    table_path = directory / TABLE
    if table_path.exists():
        raise ConfigError(f"{table_path} exists and may be filled in; name another directory")
    known = read_cells(location, cells)
    table = need(location, f"cells/{cells}", "segment")
    keep = read_column(table, "keep").astype(bool)
    centroids = np.stack([read_column(table, f"centroid_{axis}") for axis in "yx"], axis=1)
    fovs = open_group(location, "fovs", "ingest")
    masks = open_group(location, f"segmentations/{cells}", "segment")
    rows = _selected(known, keep, fovs, select, fields)
    if not rows:
        raise ConfigError(f"no field with kept cells fits --select {select}")
    directory.mkdir(parents=True, exist_ok=True)
    names = list(known.fovs)
    lines: list[dict[str, Any]] = []
    for number, row in enumerate(rows, start=1):
        shown = np.flatnonzero((known.fov_index == row) & keep)
        ids = known.mask_label[shown].tolist()
        said = ";".join(known.labels[label] for label in np.flatnonzero(known.grades[row]))
        heading = f"sheet {number}" + (f"   {said}" if said else "")
        page = draw_sheet(read_picture(fovs, masks, row), ids, centroids[shown], heading)
        plain = re.sub(r"[^\w.+-]", "_", names[row])  # plate1/A01, as fields may be named
        page.save(directory / f"{number:03d}_{plain}.png")
        lines += [
            {"sheet": number, "fov": names[row], "mask_label": label, "field_labels": said}
            for label in ids
        ]
    with table_path.open("w", encoding="utf-8", newline="") as file:
        header = [column for column in COLUMNS if column not in ("y", "x")]
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return len(rows), len(lines)


def _selected(
    cells: Cells, keep: npt.NDArray[np.bool_], fovs: xr.Dataset, select: str, fields: int | None
) -> list[int]:
    usable = np.isin(np.arange(len(cells.fovs)), cells.fov_index[keep])
    if select == "paper":
        # Without a protein coordinate every field counts as one of its own.
        proteins = fovs["protein" if "protein" in fovs else "fov"].values.tolist()
        return select_paper(cells.grades, cells.labels, proteins, usable, fields or PAPER_FIELDS)
    rows = np.flatnonzero(usable)
    picks = np.linspace(0, len(rows) - 1, min(fields or len(rows), len(rows))).round().astype(int)
    return [int(row) for row in rows[picks]]


def draw_sheet(
    picture: FovPicture,
    ids: Sequence[int],
    centroids: npt.NDArray[np.floating[Any]],
    heading: str,
) -> Image.Image:
    """The field with numbered outlines on the left, its numbered cells on the right.

    `ids` are the mask's ids of the cells to judge and `centroids` (cell, 2) where they lie.
    """
    scale = FIELD_PX / max(picture.image.shape[1:])
    field = draw_field(picture, scale)
    font = ImageFont.load_default(size=20)
    draw = ImageDraw.Draw(field)
    for label, (y, x) in zip(ids, centroids * scale, strict=True):
        _number(draw, (x, y), label, "mm")
    rows = (FIELD_PX + MARGIN_PX) // (CELL_PX + MARGIN_PX)
    columns = math.ceil(len(ids) / rows)
    top = 3 * MARGIN_PX
    size = (
        FIELD_PX + 2 * MARGIN_PX + columns * (CELL_PX + MARGIN_PX),
        FIELD_PX + top + MARGIN_PX,
    )
    page = Image.new("RGB", size, "white")
    page.paste(field, (MARGIN_PX, top))
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN_PX, MARGIN_PX), f"{picture.title}   {heading}", fill="black", font=font)
    for place, (label, cell) in enumerate(zip(ids, _cells(picture, ids, centroids), strict=True)):
        row, column = divmod(place, columns)
        x = FIELD_PX + 2 * MARGIN_PX + column * (CELL_PX + MARGIN_PX)
        y = top + row * (CELL_PX + MARGIN_PX)
        page.paste(cell.resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS), (x, y))
        _number(draw, (x + 5, y + 3), label, "la")
    return page


def _number(draw: ImageDraw.ImageDraw, at: tuple[float, float], label: int, anchor: str) -> None:
    font = ImageFont.load_default(size=20)
    draw.text(
        at, str(label), fill="white", font=font, anchor=anchor, stroke_width=2, stroke_fill="black"
    )


def _cells(
    picture: FovPicture, ids: Sequence[int], centroids: npt.NDArray[np.floating[Any]]
) -> Iterator[Image.Image]:
    """Each cell in a window of one size, the field's own contrast, its surroundings dimmed."""
    size_um = picture.pixel_size_um
    half = round(CELL_UM / size_um / 2) if size_um else CELL_FALLBACK_PX // 2
    rgb = composite(picture.image, picture.background, picture.roles)
    rgb = np.pad(rgb, ((half, half), (half, half), (0, 0)))
    assert picture.mask is not None
    mask = np.pad(picture.mask, half)
    for label, (y, x) in zip(ids, np.rint(centroids).astype(int), strict=True):
        window = slice(y, y + 2 * half), slice(x, x + 2 * half)
        light = np.where(mask[window] == label, 1.0, DIMMED)[..., None]
        yield Image.fromarray((rgb[window] * light).astype(np.uint8))
