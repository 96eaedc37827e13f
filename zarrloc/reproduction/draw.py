"""The figures of a reproduced table: what the paper draws of the same numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from zarrloc.config.report import ReportConfig
from zarrloc.groups.embeddings import read_labels, read_text
from zarrloc.groups.heads import read_head
from zarrloc.report.palette import ACCENT, FAINT, INK
from zarrloc.report.paper_figures import COLUMN_IN, STYLE, embedding_figures, save
from zarrloc.reproduction.results import Result
from zarrloc.scoring.metrics import truth_of
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs

EXAMPLES = 3
"""Examples of right calls, and as many of wrong ones."""


def draw(
    kind: str, results: Sequence[Result], location: Location, folder: Path, stem: str
) -> Path | None:
    """The PNG of a figure of this kind; None where nothing was measured that it could show."""
    found = [result for result in results if result.measured]
    if kind == "none" or not found:
        return None
    if kind == "map":
        name = found[-1].embedding
        made = embedding_figures(location, name, folder, ReportConfig())
        return _renamed(made, stem)
    with mpl.rc_context(STYLE):
        if kind == "neighbours":
            figure = neighbours(found)
        elif kind == "examples":
            figure = examples(location, found[-1])
        else:
            figure = boxes(found, by_fraction=kind == "fractions")
        return save(figure, folder, stem)[0]


def _renamed(made: Sequence[Path], stem: str) -> Path:
    for path in made:
        path.replace(path.with_name(f"{stem}{path.suffix}"))
    return made[0].with_name(f"{stem}.png")


def boxes(results: Sequence[Result], *, by_fraction: bool) -> Figure:
    """Macro-F1 of every fold by row, or by the fraction of the data (Figure 3)."""
    figure = Figure(figsize=(1.4 * COLUMN_IN, COLUMN_IN))
    axes = figure.add_subplot()
    shown = [result for result in results if "macro_f1" in result.measured]
    each = [
        result.measured["macro_f1"].each or (result.measured["macro_f1"].mean,) for result in shown
    ]
    drawn = axes.boxplot(each, widths=0.5, showfliers=False, patch_artist=True)
    for box in drawn["boxes"]:
        box.set(facecolor="none", edgecolor=FAINT, linewidth=0.6)
    for line in drawn["medians"]:
        line.set(color=INK)
    for at, (result, values) in enumerate(zip(shown, each, strict=True), start=1):
        axes.scatter([at] * len(values), values, s=8, color=ACCENT)
        if "macro_f1" in result.paper:
            axes.plot([at - 0.35, at + 0.35], [result.paper["macro_f1"][0]] * 2, ":", color=INK)
    fractions = [f"{result.fraction:g}" if result.fraction else "none" for result in shown]
    names = fractions if by_fraction else [result.name for result in shown]
    axes.set_xticks(range(1, len(shown) + 1), names)
    if not by_fraction:
        axes.tick_params(axis="x", labelrotation=90)
    axes.set(ylim=(0, 1), ylabel="macro-F1 (dotted: the paper)")
    if by_fraction:
        axes.set(xlabel="fraction of the training fields")
    return figure


def neighbours(results: Sequence[Result]) -> Figure:
    """Macro-F1 over k, a line a row (Figure 4); the paper's dotted."""
    figure = Figure(figsize=(1.6 * COLUMN_IN, COLUMN_IN))
    axes = figure.add_subplot()
    colours = mpl.colormaps["tab10"]
    for number, result in enumerate(results):
        colour = colours(number % 10)
        for values, style in (
            ({k: found.mean for k, found in result.measured.items()}, "o-"),
            ({k: value[0] for k, value in result.paper.items()}, ":"),
        ):
            ks = [k for k in values if k.startswith("k=")]
            axes.plot(
                [k[2:] for k in ks], [values[k] for k in ks], style, color=colour, markersize=3,
                label=result.name if style == "o-" else None,
            )  # fmt: skip
    axes.set(ylim=(0, 1.02), xlabel="neighbours k", ylabel="macro-F1 (dotted: the paper)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def examples(location: Location, result: Result) -> Figure:
    """Fields that the head called right, and wrong, with their protein and labels (Figure 6)."""
    head = read_head(location, result.head)
    group, fovs = need(location, head.path, "train"), need(location, "fovs", "ingest")
    probability = read_column(group, "probability")
    weak: Any = stage_attrs(group).config.get("weak", "ignore")
    truth = truth_of(read_labels(fovs).grade, weak)
    called = (probability >= 0.5) & np.isfinite(probability)
    right = (called == truth.positive).all(1) & truth.labelled
    sure = np.nan_to_num(np.abs(probability - 0.5)).mean(1)
    rows = [
        row
        for wanted in (right, ~right & truth.labelled)
        for row in sorted(np.flatnonzero(wanted), key=lambda row: -sure[row])[:EXAMPLES]
    ]
    figure = Figure(figsize=(2 * COLUMN_IN, 1.6 * COLUMN_IN))
    proteins = read_text(fovs, "protein")
    roles = read_text(fovs, "channel").tolist()
    for at, row in enumerate(rows, start=1):
        axes = figure.add_subplot(2, EXAMPLES, at)
        height, width = (int(read_column(fovs, name)[row]) for name in ("height", "width"))
        image = np.asarray(array_of(fovs, "image")[int(row)])[:, :height, :width]
        axes.imshow(_picture(image, roles))
        axes.set_axis_off()
        named = [
            ", ".join(label for label, on in zip(head.labels, which[row], strict=True) if on)
            for which in (called, truth.positive)
        ]
        axes.set_title(
            f"{proteins[row]}\npredicted: {named[0] or 'nothing'}\nlabel: {named[1]}", fontsize=6
        )
    figure.tight_layout()
    return figure


def _picture(image: npt.NDArray[np.integer], roles: Sequence[str]) -> npt.NDArray[np.float64]:
    """Protein white, nucleus blue, each from its 1st to its 99.8th percentile."""
    picture = np.zeros((*image.shape[1:], 3))
    for role, colour in (("nucleus", (0.1, 0.25, 0.9)), ("protein", (1.0, 1.0, 1.0))):
        if role in roles:
            channel = image[roles.index(role)].astype(np.float64)
            low, high = np.percentile(channel, (1, 99.8))
            unit = np.clip((channel - low) / max(high - low, 1e-9), 0, 1)
            picture += unit[..., None] * colour
    return np.clip(picture, 0, 1)
