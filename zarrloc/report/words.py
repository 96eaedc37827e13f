"""Sentences and tables of the page: functions of its contents, called by the template."""

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from zarrloc.config.report import ReportConfig
from zarrloc.pretraining.log import Curves
from zarrloc.report.cards import SHOWN_ODD
from zarrloc.report.gather import Contents
from zarrloc.scoring.scorecard import HEADINGS as HEADINGS
from zarrloc.scoring.scorecard import figures, number, shown_parts, span
from zarrloc.store.attrs import StageAttrs

SHOWN_FAILURES = 200


class Tile(NamedTuple):
    """One key figure at the top."""

    title: str
    value: str
    note: str = ""
    warn: bool = False


class ScoreRow(NamedTuple):
    """One line of the table of scores."""

    title: str
    figures: list[str]
    own: bool = False


def lede(c: Contents) -> str:
    """What this store is, in a sentence or two."""
    facts = c.facts
    pixel = f", {facts.pixel_size_um:.3g} µm a pixel" if facts.pixel_size_um else ""
    text = f"Fields of {facts.size}{pixel}; channels {', '.join(facts.channels)}."
    if c.samples is not None:
        settings = c.samples.stage.config
        known = settings.get("weights") or "as published"
        weights = f"weights {known}, " if "weights_hash" in settings else ""
        text += (
            f" Embedding “{c.samples.group.split('/')[1]}”: {settings.get('backbone')}, "
            f"{weights}{c.samples.features.shape[1]} features a {_row(c)}."
        )
    return text


def tiles(c: Contents) -> list[Tile]:
    """The key figures."""
    facts = c.facts
    found = [
        Tile("fields of view", f"{facts.fields:,}", f"{facts.proteins:,} proteins"),
        Tile("labels", str(facts.labels), "in the vocabulary"),
    ]
    if facts.cells:
        found.append(Tile("single cells", f"{facts.cells:,}"))
    if c.scores is not None:
        scores = c.scores[shown_parts(c.scores)[-1]]
        where = span(scores.get("macro_f1_ci") or _ci(scores["macro_f1"]))
        found.append(Tile("macro-F1", _mean(scores["macro_f1"]), f"{where}, {scores['rows_are']}"))
    shown = next((split for split in c.splits if split.shown), None)
    if shown is not None:
        share = shown.leakage.sibling_share
        note = f"of fields have a sibling across split {shown.name}"
        if share is None:
            found.append(Tile("leakage", "not measured", "no field names a protein or a well"))
        else:
            found.append(Tile("leakage", f"{100 * share:.0f} %", note, warn=share > 0))
    failed = len(c.failures)
    found.append(Tile("failed rows", f"{failed:,}", "of all groups", warn=failed > 0))
    return found


def pretraining(c: Contents) -> list[str]:
    """How a backbone of `zarrloc pretrain` came to be; nothing for any other."""
    trained = _pretraining(c)
    if not trained:
        return []
    held_out = trained.get("held_out", "not recorded")
    found = [
        f"The backbone is one of `zarrloc pretrain`: from {trained.get('from')}, "
        f"{trained.get('steps')} steps on {trained.get('fields')} fields; held out: {held_out}."
    ]
    if "guard_at_start" in trained:
        f1 = (number(trained[f"guard_at_{when}"]["knn_macro_f1"]) for when in ("start", "end"))
        ranks = (trained[f"guard_at_{when}"]["effective_rank"] for when in ("start", "end"))
        found.append(
            f"Its guard, from start to end: kNN macro-F1 {' → '.join(f1)} (neighbours of other "
            f"proteins only), effective rank {' → '.join(f'{rank:.1f}' for rank in ranks)}."
        )
    return found


def run_notes(run: Curves) -> list[str]:
    """How to read the curves of one run."""
    found = []
    if run.loss:
        found.append(
            f"The loss is a mean since the last point, from {run.loss[0][1]:.3f} to "
            f"{run.loss[-1][1]:.3f} at step {run.loss[-1][0]:.0f}."
        )
    else:
        found.append("The run has no logged step yet.")
    measured = [row["knn_macro_f1"] for row in run.checks]
    if not run.checks:
        found.append("Nothing was checked; `zarrloc pretrain --eval-every 100` does so.")
    elif measured[0] is None:
        found.append("Neighbours could not be scored: too few labels, or none.")
    else:
        beside = ", ".join(f"{title} {number(f1)}" for title, f1 in run.baselines.items())
        found.append(
            f"Neighbours of other proteins call a training sample's labels with macro-F1 "
            f"{number(measured[0])} before the training and {number(measured[-1])} at its last "
            f"check{f'; on the same samples {beside}' if beside else ''}."
        )
    return found


def alarms(c: Contents) -> list[str]:
    """What the guard of that training complained of: collapse, or worse than its start."""
    return list(_pretraining(c).get("warnings", ()))


def _pretraining(c: Contents) -> Mapping[str, Any]:
    return c.samples.stage.config.get("pretraining", {}) if c.samples is not None else {}


def rows_word(c: Contents) -> str:
    """What a row of the embedding is, in the plural."""
    return f"{_row(c)}s"


def _row(c: Contents) -> str:
    return "cell" if c.samples is not None and c.samples.level == "cell" else "field"


def map_note(c: Contents) -> str:
    """How to read the map."""
    assert c.points is not None
    assert c.samples is not None
    left_out = len(c.samples.finite) - len(c.points)
    missing = f" {left_out:,} without an embedding are not shown." if left_out else ""
    coloured = "Proteins with a single reference label are coloured by it, the others grey."
    if c.samples.target:
        coloured = f"Coloured by {c.samples.target}."
    return (
        f"UMAP of {len(c.points):,} {rows_word(c)}, cosine distances. {coloured}{missing} Point "
        "at one to see it; "
        "click a name to hide its points; drag to move; zoom with the buttons, or Ctrl and the "
        "wheel. With the keyboard: Tab to the map, then arrows, +, - and 0."
    )


def map_alt(c: Contents) -> str:
    """The map for who can't see it."""
    assert c.points is not None
    return (
        f"Map of {len(c.points):,} {rows_word(c)}, coloured as the legend beside it says. "
        "Find names what is where."
    )


def scores_note(c: Contents) -> str:
    """What was scored, and by which rules."""
    assert c.scores is not None
    s = c.scores
    tuned = s["threshold"] == "tuned"
    threshold = "the threshold that is best on the other folds" if tuned else s["threshold"]
    rule = (
        f"Classes of {s['target']}: each row is given the most probable one, and micro-F1 is the "
        "share of right answers."
        if s["target"]
        else f"Weak labels (grades 1 and 2): {s['weak']}. A label is called from {threshold}."
    )
    return (
        f"Head “{s['head']}” on embedding “{s['embedding']}”, split “{s['split']}”. {rule} "
        f"{sentence(s['leakage'])}"
    )


def score_rows(c: Contents) -> list[ScoreRow]:
    """The head, then the baselines."""
    assert c.scores is not None
    found = [
        ScoreRow(f"head, {c.scores[part]['rows_are']}", figures(c.scores[part]), own=True)
        for part in shown_parts(c.scores)
    ]
    for title, scores in c.scores.get("baselines", {}).items():
        part = scores[shown_parts(scores)[-1]]
        found.append(ScoreRow(f"{title}, {part['rows_are']}", figures(part)))
    return found


def score_notes(c: Contents) -> list[str]:
    """What must be said beside the table."""
    assert c.scores is not None
    part = c.scores[shown_parts(c.scores)[-1]]
    ci = part.get("macro_f1_ci") or _ci(part["macro_f1"])
    where = f"{part['rows_are']}, {c.scores['siblings']}s resampled"
    found = [f"95 % interval of macro-F1, {where}: {span(ci)}."]
    if part["labels_without_positives"]:
        names = ", ".join(part["labels_without_positives"])
        found.append(f"Without positives, and so left out of the mean: {names}.")
    return found + [sentence(note) for note in c.scores["notes"]]


def sentence(note: str) -> str:
    """A note as evaluation gives it, as a sentence."""
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def with_code(text: str) -> Markup:
    """Text with its commands, which stand between backticks, as code.

    Examples
    --------
    >>> with_code("<3; make it with `zarrloc split`.")
    Markup('&lt;3; make it with <code>zarrloc split</code>.')
    """
    plain = str(escape(text))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", plain))


def per_label_rows(c: Contents) -> str:
    """Which rows the bars are computed on."""
    assert c.scores is not None
    if "test" in shown_parts(c.scores):
        return "mean of the folds’ heads on the test set"
    return f"all {rows_word(c)} out of fold, pooled"


def label_rows(c: Contents) -> Iterator[list[str]]:
    """The table of labels."""
    assert c.scores is not None
    for label, row in c.scores["per_label"].items():
        first = [number(row[key]) for key in ("precision", "recall", "f1")]
        last = [number(row[key]) for key in ("auroc", "average_precision")]
        yield [label, *first, span(row["f1_ci"]), *last, f"{row['support']:.0f}"]


def judged_note(c: Contents) -> str:
    """Which rows curves, confusion and examples are of."""
    assert c.calls is not None
    assert c.calls.row_fold is not None
    rows = c.judged
    where = "in the test set" if (c.calls.row_fold[rows] < 0).any() else "out of fold"
    return f"{int(rows.sum()):,} {rows_word(c)}, {where}."


def knn_note(c: Contents) -> str:
    """What the lines are."""
    assert c.knn is not None
    by = c.knn["siblings"]
    rule = "each is given the class of most votes" if c.knn["target"] else "called from 0.5"
    shared = (
        f"Neighbours of the same {by} share its labels: what “all neighbours” scores above “other "
        f"{by}s only” is leakage."
    )
    return (
        f"Leave-one-out votes of the k nearest of {c.knn['rows']:,} {rows_word(c)}, weighted "
        f"exp(s / 0.07); {rule}. {shared} Whiskers: 95 % intervals, {by}s resampled."
    )


def colours_note(c: Contents) -> str:
    """Which channel is which colour."""
    from zarrloc.report.preview import COLOURS

    names = {"nucleus": "blue", "protein": "green", "microtubules": "red", "er": "yellow",
             "mitochondria": "magenta", "actin": "orange"}  # fmt: skip
    assert names.keys() == COLOURS.keys()
    return ", ".join(f"{role} {names.get(role, 'grey')}" for role in c.facts.channels)


def failed_note(c: Contents) -> str:
    """How many rows failed, and how to see those that are not listed."""
    count = len(c.failures)
    text = f"{count:,} row{'' if count == 1 else 's'} failed; each cost itself alone."
    if count > SHOWN_FAILURES:
        text += (
            f" The first {SHOWN_FAILURES} are listed; `zarrloc info {c.facts.name} --errors` "
            "names all."
        )
    return text


def odd_note(c: Contents) -> str:
    """How many fields stand out, by which rules, and how to see the rest."""
    assert c.odd is not None
    count, of = len(c.odd.why), len(c.odd.measured)
    text = (
        f"{count:,} of {of:,} fields should be looked at before they are trusted: out of focus "
        "(little fine detail), empty (no light above the noise), saturated, or unlike the other "
        "fields of their protein."
    )
    if c.odd.replicates is None:
        text += " Replicates were not compared: there is no embedding."
    if count > SHOWN_ODD:
        text += f" {SHOWN_ODD} are shown; `zarrloc outliers {c.facts.name}` names all."
    return text


def made_with(config: ReportConfig) -> Iterator[tuple[str, str]]:
    """How this page itself was made."""
    yield from _flat(config.model_dump())
    packages = ("zarrloc", "umap-learn", "scikit-learn", "bokeh")
    yield "software", ", ".join(f"{name} {version(name)}" for name in packages)


def settings_of(stage: StageAttrs) -> Iterator[tuple[str, str]]:
    """A stage's settings, inputs, execution and software, flat."""
    yield from _flat(stage.config)
    yield from ((f"input {path}", value) for path, value in stage.inputs.items())
    yield from _flat(stage.execution)
    yield "software", ", ".join(f"{name} {value}" for name, value in stage.versions.items())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{prefix}{name}", str(value)


def _ci(value: Any) -> Sequence[float | None] | None:
    return value.get("ci") if isinstance(value, Mapping) else None


def _mean(value: Any) -> str:
    return number(value["mean"] if isinstance(value, Mapping) else value)
