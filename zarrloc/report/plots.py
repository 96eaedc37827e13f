"""Which figures and tables of labels a store's contents give."""

from typing import Any, NamedTuple

from zarrloc.report import figures
from zarrloc.report.gather import Contents
from zarrloc.report.matrix import Matrix, count_matrix, share_matrix
from zarrloc.report.palette import marks
from zarrloc.report.tallies import confusion, cooccurrence, roc_curves


class Drawn(NamedTuple):
    """Bokeh figures and square tables, by name."""

    figures: dict[str, Any]
    matrices: dict[str, Matrix]


def draw(contents: Contents) -> Drawn:
    """All figures and tables that the contents allow."""
    models: dict[str, Any] = {}
    matrices: dict[str, Matrix] = {}
    samples, truth = contents.samples, contents.truth
    if contents.scores is not None:
        if any(row["f1"] is not None for row in contents.scores["per_label"].values()):
            models["bars"] = figures.bars_figure(contents.scores["per_label"])
        judged = _judged(contents)
        models |= judged.figures
        matrices |= judged.matrices
    if len(contents.heads) > 1:
        models["folds"] = figures.folds_figure(contents.heads)
    if contents.knn is not None:
        models["knn"] = figures.knn_figure(contents.knn)
    for index, run in enumerate(contents.runs):
        models |= {f"{kind}_{index}": made for kind, made in figures.run_figures(run).items()}
    several = truth is not None and truth.positive.any() and not truth.exclusive
    if samples is not None and truth is not None and several:
        by = samples.siblings.by
        counts = cooccurrence(truth.positive, samples.siblings.group)
        matrices["cooccurrence"] = count_matrix(counts, samples.labels, f"{by}s")
    return Drawn(models, matrices)


def _judged(contents: Contents) -> Drawn:
    samples, truth, calls = contents.samples, contents.truth, contents.calls
    assert samples is not None
    assert truth is not None
    assert calls is not None
    rows = contents.judged
    shares = share_matrix(confusion(truth[rows], calls.called[rows]), samples.labels)
    curves = roc_curves(truth[rows], calls.probability[rows], samples.labels)
    by_label = dict(zip(samples.labels, marks(len(samples.labels)), strict=True))
    drawn = {"roc": figures.roc_figure(curves, by_label)} if curves else {}
    return Drawn(drawn, {"confusion": shares})
