"""Figures for papers, as PNG and SVG: the map, scores of labels and folds, neighbours over k."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zarrloc.config.report import ReportConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import read_samples
from zarrloc.report.palette import ACCENT, FAINT, INK, Group, by_single_label, neighbour_ways
from zarrloc.report.projection import project
from zarrloc.scoring.metrics import truth_of
from zarrloc.store.location import Location

COLUMN_IN = 3.5
"""Width of a journal's column, 89 mm."""
STYLE = {
    "font.size": 7,
    "font.family": "sans-serif",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "svg.fonttype": "none",  # text stays text, for the journal's fonts
    "svg.hashsalt": "zarrloc",  # equal figures are equal files
}

MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D"}


def embedding_figures(
    store: str | Path | Location, name: str, directory: str | Path, config: ReportConfig
) -> list[Path]:
    """Draw the map of `embeddings/<name>` (paper, Figure 5) and return the files written."""
    samples = read_samples(Location.of(store), name)
    rows = samples.finite
    if not rows.any():
        raise ConfigError(f"nothing to draw: no row of '{samples.group}' has an embedding")
    positive = truth_of(samples.grade[rows]).positive
    points = project(samples.features[rows], config)
    with mpl.rc_context(STYLE):
        return save(draw_map(points, by_single_label(positive, samples.labels)), directory, name)


def score_figures(result: Mapping[str, Any], directory: str | Path) -> list[Path]:
    """Draw what `evaluate` returned: a head's labels and folds, neighbours, or a probe's labels."""
    with mpl.rc_context(STYLE):
        if "knn" in result:
            return save(draw_neighbours(result), directory, f"{result['embedding']}-knn")
        if "head" not in result:
            drawn = draw_labels(result["probe"]["per_label"], result["siblings"])
            return save(drawn, directory, f"{result['embedding']}-probe-labels")
        head = result["head"]
        return [
            *save(
                draw_labels(result["per_label"], result["siblings"]), directory, f"{head}-labels"
            ),
            *save(draw_folds(result), directory, f"{head}-folds"),
        ]


def save(figure: Figure, directory: str | Path, stem: str) -> list[Path]:
    """Write `<stem>.png` at 300 dpi and `<stem>.svg`; the directory is made."""
    folder = Path(directory)
    paths = [folder / f"{stem}.{kind}" for kind in ("png", "svg")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figure.savefig(path, dpi=300, bbox_inches="tight", metadata=_undated(path))
    except OSError as error:
        raise ConfigError(f"cannot write {paths[0]}: {error.strerror}") from error
    return paths


def _undated(path: Path) -> dict[str, None]:
    """Without the time of writing, equal figures are equal files."""
    return {"Date": None} if path.suffix == ".svg" else {}


def draw_map(points: npt.NDArray[np.float32], groups: Sequence[Group]) -> Figure:
    """Points `(n, 2)` under their groups' marks, many points as pixels also in the SVG."""
    figure, axes = _axes(2 * COLUMN_IN, 1.5 * COLUMN_IN)
    for group in groups:
        axes.scatter(
            points[group.rows, 0],
            points[group.rows, 1],
            s=float(np.clip(2e4 / len(points), 0.5, 12)),
            c=group.mark.colour,
            marker=MARKERS[group.mark.shape],
            linewidths=0,
            label=f"{group.name} ({len(group.rows):,})",
            rasterized=len(points) > 5000,
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()
    handles, names = axes.get_legend_handles_labels()
    legend = axes.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_sizes([14])  # type: ignore[attr-defined]
    return figure


def draw_labels(per_label: Mapping[str, Mapping[str, Any]], siblings: str = "protein") -> Figure:
    """F1 of each label, best above, with its bootstrap interval over `siblings`."""
    rows = sorted(
        ((label, row) for label, row in per_label.items() if row["f1"] is not None),
        key=lambda item: item[1]["f1"],
    )
    figure, axes = _axes(COLUMN_IN, 0.5 + 0.16 * len(rows))
    axes.barh([label for label, _ in rows], [row["f1"] for _, row in rows], 0.62, color=ACCENT)
    for at, (_, row) in enumerate(rows):
        if row["f1_ci"] and row["f1_ci"][0] is not None:
            axes.plot(row["f1_ci"], [at, at], color=INK, linewidth=0.8)
    axes.set(xlim=(0, 1), xlabel=f"F1 (95 % interval, {siblings}s resampled)")
    return figure


def draw_folds(result: Mapping[str, Any]) -> Figure:
    """Macro-F1 over the validation folds: the head, and what it is held against (Figure 3)."""
    shown = {"head": result} | ({"linear probe": result["probe"]} if "probe" in result else {})
    shown |= result.get("baselines", {})
    each = {
        title: [x for x in scores["validation"]["macro_f1"]["each"] if x is not None]
        for title, scores in shown.items()
    }
    figure, axes = _axes(COLUMN_IN, COLUMN_IN)
    boxes = axes.boxplot(list(each.values()), widths=0.5, showfliers=False, patch_artist=True)
    for box in boxes["boxes"]:
        box.set(facecolor="none", edgecolor=FAINT, linewidth=0.6)
    for line in boxes["medians"]:
        line.set(color=INK)
    for at, values in enumerate(each.values(), start=1):
        axes.scatter([at] * len(values), values, s=10, color=ACCENT if at == 1 else FAINT)
    axes.set_xticks(range(1, len(each) + 1), list(each), rotation=30, ha="right")
    axes.set(ylim=(0, 1), ylabel="macro-F1 of the validation folds")
    return figure


def draw_neighbours(result: Mapping[str, Any]) -> Figure:
    """Macro-F1 over the number of neighbours (paper, Figure 4), by who may vote."""
    table = result["knn"]
    ks = list(table)
    figure, axes = _axes(1.4 * COLUMN_IN, COLUMN_IN)
    for way, (title, colour) in neighbour_ways(list(table[ks[0]]["macro_f1_excluding"])).items():
        y = [_number(table[k]["macro_f1_excluding"][way]) for k in ks]
        axes.plot(ks, y, "o-", color=colour, markersize=3, linewidth=1.2, label=title)
    for (title, by_k), dash in zip(
        result.get("baselines", {}).items(), ("--", ":", "-.", (0, (1, 3))), strict=False
    ):
        y = [_number(by_k[k]["macro_f1"]) for k in ks]
        axes.plot(ks, y, linestyle=dash, color=FAINT, linewidth=0.8, label=title)
    axes.set(ylim=(0, 1.02), xlabel="neighbours k", ylabel="macro-F1")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
