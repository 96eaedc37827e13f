"""The page of results, from the JSON files that the benchmarks wrote; `conf.py` calls it."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
INTRO = """# Results

Figures of simulated fields, whose truth is known; `benchmarks/README.md` has the commands and
everything that is not a score. Folds are of whole proteins where nothing else is said: no protein
is trained on and scored. Intervals (95 %) are of resampled proteins. Nothing is chosen on the rows
that are scored: the number of neighbours and thresholds are the best of the other folds, or fixed
beforehand. This page is built from `benchmarks/results/`.
"""
NAMES = {
    "dino": "DINO",
    "dinov2": "DINOv2",
    "mae": "MAE",
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "classic": "classic features",
    "random": "that ViT, random weights",
    "intensity": "intensity statistics",
    "random weights": "that ViT, random weights",
}
NEIGHBOURS = ("1", "5", "20")


def results_page() -> str:
    """The page in Markdown."""
    parts = [INTRO, *objectives(_read("objectives")), *embeddings(_read("accuracy"))]
    return "\n".join([*parts, *paper(_read("paper"))])


def objectives(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every objective at equal time, beside what a network has to beat."""
    minutes = round(statistics.median(r["cpu_seconds"] for r in rows if "steps" in r) / 60, 1)
    plain = any(row.get("plain") for row in rows)
    shown = "eight plain patterns at 32 px" if plain else "17 labels"
    told = [
        "## Objectives at equal time",
        "",
        f"One small ViT, trained without a label for {minutes:g} minutes of CPU time by each "
        f"objective on simulated proteins, then scored on others: macro-F1 over {shown}. One seed: "
        "with its interval, where there is one; several: mean and sd.",
        "",
        *_head("features", "steps", "linear probe", "kNN", "head"),
    ]
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        scores = [_score([r[key] for r in mine if key in r]) for key in ("probe", "knn", "head")]
        steps = f"{mine[0]['steps']:,}" if "steps" in mine[0] else ""
        told.append(_row(NAMES.get(what, what), steps, *scores))
    return [*told, ""]


def embeddings(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The table of `accuracy/table.py`."""
    told = [
        "## What embeddings know",
        "",
        f"{next(iter(rows.values()))['rows']:,} simulated fields, two a protein; the ViT was "
        "trained on cells of other proteins by VICReg, for fifty minutes of CPU time.",
        "",
        *_head("rows, features", "head", "linear probe", "kNN, k = " + ", ".join(NEIGHBOURS)),
    ]
    for level in ("fields", "cells"):
        mine = {title: row for title, row in rows.items() if title.startswith(level)}
        if not mine:
            continue
        for name, score in next(iter(mine.values()))["baselines"].items():
            told.append(_row(f"{level}, {name}", "", f"{score:.3f}", ""))
        for title, row in mine.items():
            head = _score([{"macro_f1": row["head"], "interval": row["head_ci"]}])
            knn = ", ".join(f"{row['knn'][k]:.3f}" for k in NEIGHBOURS)
            told.append(_row(title, head, f"{row['probe']:.3f}", knn))
    return [*told, ""]


def paper(found: dict[str, Any]) -> list[str]:
    """The paper's orderings, then its tables, by small stand-ins on simulated OpenCell."""
    told = [
        "## The paper's orderings, by small stand-ins",
        "",
        "`zarrloc reproduce` on 500 simulated fields of 500 proteins, with backbones that two "
        "cores train in minutes in the place of the paper's; splits are the paper's, by image. "
        "Values cannot be compared, orders can. An ordering appears where every seed's interval "
        "lies above 0.",
        "",
        *_head("ordering", "the paper's difference", "here", "appears"),
    ]
    for row in found["orderings"]:
        each = []
        for seed in row["seeds"]:
            words = f"{seed['difference']:+.3f}"
            if "interval" in seed:
                words += " ({:+.3f} to {:+.3f})".format(*seed["interval"])
            each.append(words)
        if each:
            told.append(
                _row(row["ordering"], f"{row['paper']:+.3f}", "; ".join(each), row["appears"])
            )
    for name, table in found["tables"].items():
        told += ["", f"### {table['title']}", "", f"`{name}.yaml`", ""]
        told += _head("row", "figure", "paper", "here", "difference")
        for row in table["rows"]:
            for figure in dict.fromkeys([*row["paper"], *row["measured"]]):
                published, own = row["paper"].get(figure), row["measured"].get(figure)
                difference = f"{own['mean'] - published[0]:+.3f}" if own and published else ""
                told.append(
                    _row(
                        row["name"], figure, _mean_sd(*published) if published else "",
                        _mean_sd(own["mean"], own["sd"]) if own else row["missing"], difference,
                    )
                )  # fmt: skip
    return [*told, ""]


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _score(found: Sequence[Any]) -> str:
    each = [one if isinstance(one, float) else one["macro_f1"] for one in found]
    if len(each) > 1:
        return _mean_sd(statistics.mean(each), statistics.stdev(each)) + f", {len(each)} seeds"
    if not each or isinstance(found[0], float):
        return "".join(_mean_sd(one) for one in each)
    return "{:.3f} ({:.3f} to {:.3f})".format(*each, *found[0]["interval"])


def _mean_sd(mean: float, sd: float | None = None) -> str:
    return f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def _head(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
