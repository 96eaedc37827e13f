"""The page's interactive figures: scores, neighbours, curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool

from zarrloc.pretraining.log import Curves
from zarrloc.report.canvas import add_legend, canvas, plain
from zarrloc.report.gather import FoldScores
from zarrloc.report.palette import (
    ACCENT,
    DASHES,
    FAINT,
    INK,
    SECOND,
    SEVERAL,
    Mark,
    neighbour_ways,
)
from zarrloc.report.tallies import Curve


def bars_figure(per_label: Mapping[str, Mapping[str, Any]]) -> Any:
    """F1 of each label with its bootstrap interval, best above."""
    rows = sorted(
        ((plain(label), row) for label, row in per_label.items() if row["f1"] is not None),
        key=lambda item: item[1]["f1"],
    )
    names = [label for label, _ in rows]
    interval = [row["f1_ci"] or [None, None] for _, row in rows]
    source = ColumnDataSource(
        {
            "label": names,
            "low": [low if low is not None else np.nan for low, _ in interval],
            "high": [high if high is not None else np.nan for _, high in interval],
            **{
                key: [np.nan if row[key] is None else row[key] for _, row in rows]
                for key in ("f1", "precision", "recall", "support")
            },
        }
    )
    made = canvas(
        height=26 * len(names) + 60, y_range=names, x_range=(0, 1), x_axis_label="F1", name="bars"
    )
    made.ygrid.visible = False
    bars = made.hbar("label", right="f1", height=0.62, source=source, color=ACCENT, alpha=0.82)
    made.segment("low", "label", "high", "label", source=source, color=INK, line_width=1.5)
    for end in ("low", "high"):
        made.scatter(end, "label", source=source, marker="dash", angle=np.pi / 2, size=8, color=INK)
    made.add_tools(
        HoverTool(
            renderers=[bars],
            tooltips=[
                ("label", "@label"),
                ("F1", "@f1{0.000} (@low{0.000} to @high{0.000})"),
                ("precision", "@precision{0.000}"),
                ("recall", "@recall{0.000}"),
                ("support", "@support{0.}"),
            ],
        )
    )
    return made


def knn_figure(knn: Mapping[str, Any]) -> Any:
    """Macro-F1 over the number of neighbours, for each way of leaving neighbours out."""
    table = knn["knn"]
    ks = list(table)
    made = canvas(
        height=380,
        x_range=ks,
        y_range=(0, 1),
        x_axis_label="neighbours k",
        y_axis_label="macro-F1",
        name="knn",
    )
    made.xgrid.visible = False
    items = []
    there = table[ks[0]]["macro_f1_excluding"]
    ways = neighbour_ways(list(there))
    for way, (title, colour) in ways.items():
        y = [_number(table[k]["macro_f1_excluding"][way]) for k in ks]
        items.append((title, _line(made, ks, y, colour, title, width=2.5)))
    spans = [table[k].get("macro_f1_ci") or [None, None] for k in ks]
    made.segment(
        ks, [_number(low) for low, _ in spans], ks, [_number(high) for _, high in spans],
        color=ways[knn["exclude_same"]][1], line_width=1.2,
    )  # fmt: skip
    dashes = ("dashed", "dotted", "dotdash", "dashdot")
    for index, (title, by_k) in enumerate(knn.get("baselines", {}).items()):
        y = [_number(by_k[k]["macro_f1"]) for k in ks]
        drawn = _line(made, ks, y, FAINT, title, dash=dashes[index % len(dashes)])
        items.append((title, drawn))
    add_legend(made, items, "below")
    return made


def _line(made: Any, x: list[str], y: list[float], colour: str, title: str,
          *, width: float = 1.3, dash: str = "solid") -> list[Any]:  # fmt: skip
    source = ColumnDataSource({"x": x, "y": y, "title": [title] * len(x)})
    line = made.line("x", "y", source=source, color=colour, line_width=width, line_dash=dash)
    dots = made.scatter("x", "y", source=source, color=colour, size=7 if width > 2 else 4)
    made.add_tools(
        HoverTool(renderers=[dots], tooltips=[("", "@title"), ("k", "@x"), ("F1", "@y{0.000}")])
    )
    return [line, dots]


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def roc_figure(curves: Sequence[Curve], marks: Mapping[str, Mark]) -> Any:
    """One curve a label, in the map's colours, dashed from the seventh on; areas in the legend."""
    made = canvas(
        height=460,
        x_range=(0, 1),
        y_range=(0, 1.005),
        x_axis_label="false positive rate",
        y_axis_label="true positive rate",
        name="roc",
    )
    made.line([0, 1], [0, 1], color=SEVERAL, line_dash="dashed")
    items = []
    for curve in sorted(curves, key=lambda each: -each.area):
        source = ColumnDataSource(
            {
                "x": curve.false_positive_rate.astype(np.float32),
                "y": curve.true_positive_rate.astype(np.float32),
            }
        )
        colour, shape = marks[curve.label]
        drawn = made.line(
            "x", "y", source=source, color=colour, line_dash=DASHES[shape], line_width=1.8,
            alpha=0.9, hover_line_width=4, hover_line_color=colour, hover_line_alpha=1,
            name=plain(curve.label),
        )  # fmt: skip
        items.append((f"{curve.label}  {curve.area:.3f}", [drawn]))
    lines = [drawn for _, (drawn,) in items]
    made.add_tools(HoverTool(renderers=lines, tooltips=[("", "$name")], line_policy="nearest"))
    add_legend(made, items)
    return made


def run_figures(run: Curves) -> dict[str, Any]:
    """Loss, neighbours beside baselines, and effective rank of a training run, by name."""
    found = {}
    if run.loss:
        made = _over_steps("loss", run)
        source = ColumnDataSource(
            {"x": [x for x, _ in run.loss], "y": [y for _, y in run.loss]},
        )
        if len(run.loss) > 1:
            line = made.line("x", "y", source=source, color=ACCENT, line_width=1.8)
        else:
            line = made.scatter("x", "y", source=source, color=ACCENT, size=7)
        tips = [("step", "@x{0}"), ("loss", "@y{0.000}")]
        made.add_tools(HoverTool(renderers=[line], tooltips=tips, mode="vline"))
        found["loss"] = made
    measured = [row for row in run.checks if row["knn_macro_f1"] is not None]
    if measured:
        made = _over_steps("macro-F1", run, y_range=(0, 1))
        own = _checked(made, measured, "knn_macro_f1", "{0.000}")
        items = [("this run", own)]
        for index, (title, f1) in enumerate(run.baselines.items()):
            if f1 is not None:
                dash = ("dashed", "dotted", "dotdash", "dashdot")[index % 4]
                ends = [0, max(_last(run), 1)]
                flat = made.line(ends, [f1, f1], color=FAINT, line_dash=dash, line_width=1.3)
                items.append((title, [flat]))
        add_legend(made, items, "below")
        found["neighbours"] = made
    if run.checks:
        made = _over_steps("effective rank", run)
        made.y_range.start = 0
        _checked(made, run.checks, "effective_rank", "{0.0}")
        found["rank"] = made
    return found


def _over_steps(title: str, run: Curves, **settings: Any) -> Any:
    return canvas(
        height=240, x_range=(0, max(_last(run), 1)), x_axis_label="step", y_axis_label=title,
        name=title, **settings,
    )  # fmt: skip


def _last(run: Curves) -> float:
    steps = [step for step, _ in run.loss] + [row["step"] or 0 for row in run.checks]
    return max(steps, default=0)


def _checked(
    made: Any, checks: Sequence[Mapping[str, float | None]], name: str, digits: str
) -> list[Any]:
    """One figure of the guard's rows, as a line with a point a check."""
    source = ColumnDataSource(
        {"x": [row["step"] for row in checks], "y": [_number(row[name]) for row in checks]}
    )
    line = made.line("x", "y", source=source, color=ACCENT, line_width=2.5)
    dots = made.scatter("x", "y", source=source, color=ACCENT, size=7)
    tips = [("step", "@x{0}"), (name.replace("_", " "), f"@y{digits}")]
    made.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    return [line, dots]


def folds_figure(heads: Sequence[FoldScores]) -> Any:
    """Macro-F1 of every head of the store, a point a fold (paper, Figure 3)."""
    names = [plain(head.head) for head in heads]
    made = canvas(
        height=44 * len(heads) + 80, y_range=names[::-1], x_range=(0, 1),
        x_axis_label="macro-F1, a point a fold", name="folds",
    )  # fmt: skip
    made.ygrid.visible = False
    items = []
    for title, values, colour in (
        ("validation fold", [head.validation for head in heads], ACCENT),
        ("test set", [head.test for head in heads], SECOND),
    ):
        x = [x for each in values for x in each]
        y = [name for name, each in zip(names, values, strict=True) for _ in each]
        if x:
            dots = made.scatter(x, y, size=9, fill_color=colour, fill_alpha=0.5, line_color=colour)
            means = [
                (np.mean(each), name) for name, each in zip(names, values, strict=True) if each
            ]
            bars = made.scatter(
                *map(list, zip(*means, strict=True)), marker="dash", angle=np.pi / 2, size=24,
                color=colour, line_width=2,
            )  # fmt: skip
            items.append((title, [dots, bars]))
            made.add_tools(HoverTool(renderers=[dots], tooltips=[(title, "@x{0.000}")]))
    add_legend(made, items)
    return made
