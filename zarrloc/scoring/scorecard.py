"""Scores as a text table; the dicts are those of `zarrloc.stages.evaluate`."""

from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("macro_f1", "macro_f1_all", "micro_f1", "macro_auroc", "macro_average_precision")
HEADINGS = ("macro-F1", "over all labels", "micro-F1", "AUROC", "avg. precision")


def lines(result: Mapping[str, Any]) -> list[str]:
    """The result as text, line by line."""
    if "head" in result:
        return _head(result)
    lines = _neighbours(result) if "knn" in result else []
    if "probe" in result:
        lines += [""] * bool(lines) + _probe(result)
    return [*lines, *_notes(result)]


def shown_parts(scores: Mapping[str, Any]) -> list[str]:
    """What to show: the test set only where there is one."""
    own_test = scores["test"]["rows_are"] == "test set"
    return ["validation", "test"] if own_test else ["validation", "pooled"]


def figures(scores: Mapping[str, Any]) -> list[str]:
    """The figures under `HEADINGS`."""
    return [number(scores[key]) for key in FIGURES]


def number(value: Any) -> str:
    """A figure, or a mean with its sd; a dash where there is none."""
    if isinstance(value, Mapping):
        sd = "" if value["sd"] is None else f" ± {value['sd']:.3f}"
        return "–" if value["mean"] is None else f"{value['mean']:.3f}{sd}"
    return "–" if value is None else f"{value:.3f}"


def span(ci: Sequence[float | None] | None) -> str:
    """An interval."""
    return "–" if not ci or ci[0] is None else f"{ci[0]:.3f} to {ci[1]:.3f}"


def _head(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"head {result['head']} on embedding {result['embedding']}, split {result['split']}; "
        f"{_rule(result)}",
        result["leakage"],
        "",
    ]
    table = [["", *HEADINGS]]
    for title, scores in (("head", result), ("linear probe", result.get("probe"))):
        if scores is not None:
            table += [
                [f"{title}, {scores[part]['rows_are']}", *figures(scores[part])]
                for part in shown_parts(scores)
            ]
    for title, scores in result.get("baselines", {}).items():
        part = shown_parts(scores)[-1]
        table.append([f"{title}, {scores[part]['rows_are']}", *figures(scores[part])])
    lines += _aligned(table)
    lines += [
        "",
        f"95 % interval of macro-F1, {result['siblings']}s resampled: {_interval(result)}",
    ]
    lines += _missing({part: result[part] for part in shown_parts(result)})

    table = [["label", "precision", "recall", "F1", "95 %", "AUROC", "avg. precision", "support"]]
    for label, row in result["per_label"].items():
        first = [number(row[key]) for key in ("precision", "recall", "f1")]
        last = [number(row[key]) for key in ("auroc", "average_precision")]
        table.append([label, *first, span(row["f1_ci"]), *last, f"{row['support']:.0f}"])
    return [*lines, "", *_aligned(table), *_notes(result)]


def _neighbours(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"embedding {result['embedding']}: leave-one-out neighbours of {result['rows']} rows; "
        f"{_rule(result)}; votes over "
        f"their {result['vote_norm']}; neighbours excluded: {result['exclude_same']}",
        "",
    ]
    others = list(next(iter(result["knn"].values()))["macro_f1_excluding"])
    expert = result["labels"] == "expert"
    excluding = [f"excl. {other}" for other in others]
    table = [["k", *HEADINGS, "95 %", *excluding, *["field's labels"] * expert]]
    for k, row in result["knn"].items():
        beside = [number(row["macro_f1_excluding"][other]) for other in others]
        weak = [number(row["macro_f1_weak_labels"])] if expert else []
        interval = span(row.get("macro_f1_ci"))
        table.append([k, *figures(row), interval, *beside, *weak])
    lines += _aligned(table)
    if result.get("baselines"):
        ks = list(result["knn"])
        table = [["macro-F1 of", *(f"k={k}" for k in ks)]]
        for title, by_k in result["baselines"].items():
            table.append([title, *(number(by_k[k]["macro_f1"]) for k in ks)])
        lines += ["", *_aligned(table)]
    first = next(iter(result["knn"].values()))
    return [*lines, *_missing({"all rows": first})]


def _probe(result: Mapping[str, Any]) -> list[str]:
    scores = result["probe"]
    part = scores["pooled"]
    return [
        f"linear probe of embedding {result['embedding']}: {result['rows']} rows in "
        f"{result['folds']} folds grouped by {result['grouped_by']}; {_rule(result)}",
        "",
        *_aligned(
            [
                ["", *HEADINGS, "95 %"],
                ["linear probe, out of fold", *figures(part), span(part.get("macro_f1_ci"))],
            ]
        ),
        *_missing({"all rows": part}),
    ]


def _rule(result: Mapping[str, Any]) -> str:
    """What counts as a label, and from where one is called."""
    if result["target"]:
        return (
            f"classes of {result['target']}, each row in the most probable one, so that micro-F1 "
            "is the share of right answers"
        )
    labels = f"labels: {result['labels']}; " if "labels" in result else ""
    return f"{labels}weak labels: {result['weak']}; threshold: {result['threshold']}"


def _interval(result: Mapping[str, Any]) -> str:
    return span(result["test"]["macro_f1"].get("ci"))


def _missing(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"labels without positives in {title}, left out of the mean: {', '.join(names)}"
        for title, scores in parts.items()
        if (names := scores["labels_without_positives"])
    ]


def _notes(result: Mapping[str, Any]) -> list[str]:
    return [""] * bool(result["notes"]) + [f"note: {note}" for note in result["notes"]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(c.rjust(w) for c, w in zip(row[1:], rest, strict=True))])
        for row in rows
    ]
