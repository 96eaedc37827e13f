"""From a store to what the page shows, as plain data: nothing here knows of HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.report import ReportConfig
from zarrloc.errors import ConfigError, ZarrlocError
from zarrloc.groups.embeddings import Samples, read_samples, read_text
from zarrloc.groups.splits import Leakage, Part
from zarrloc.pretraining.log import Curves, read_curves
from zarrloc.scoring.evaluation import finite
from zarrloc.scoring.judge_head import judge_head
from zarrloc.scoring.judge_neighbours import judge_neighbours
from zarrloc.scoring.metrics import Truth, called_of, truth_of
from zarrloc.scoring.odd import Odd, odd_fields
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.columns import read_column
from zarrloc.store.document import groups
from zarrloc.store.info import info
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs

Array32 = npt.NDArray[np.float32]
Projection = Callable[[Array32, ReportConfig], Array32]


@dataclass(frozen=True)
class Facts:
    """The store in a few numbers."""

    name: str
    fields: int
    proteins: int
    labels: int
    cells: int
    channels: tuple[str, ...]
    size: str
    pixel_size_um: float | None


@dataclass(frozen=True)
class Calls:
    """A head's answers on every row of its embedding."""

    name: str
    trained: bool
    """Trained in this store; else it only predicted here."""
    labels: tuple[str, ...]
    probability: Array32
    """Out of fold; on the test set the mean of all heads. NaN where there is no embedding."""
    threshold: npt.NDArray[np.floating[Any]]
    """The probability from which each label is called."""
    row_fold: npt.NDArray[np.int8] | None
    weak: str
    split: str
    target: str | None = None
    """The coordinate whose values the labels are: classes, one a row."""

    @property
    def called(self) -> npt.NDArray[np.bool_]:
        """Which labels each row is given, `(n, label)`."""
        return called_of(self.probability, self.threshold, self.target is not None)


AUTO_OUTLIERS = 2000
"""Fields up to which outliers are looked for unasked: a minute or two."""

NOT_COLOURS = frozenset({"fov", "protein", "source", "error"})
"""Texts of a field that the page shows elsewhere."""


class FoldScores(NamedTuple):
    """Macro-F1 of one head, fold by fold."""

    head: str
    embedding: str
    split: str
    validation: list[float]
    test: list[float]


class Split(NamedTuple):
    """One split and what it lets through."""

    name: str
    group: str
    leakage: Leakage
    shown: bool
    """It is the split of the head on this page."""


class Failure(NamedTuple):
    """One row that failed."""

    group: str
    name: str
    error: str


@dataclass(frozen=True)
class Contents:
    """Everything the page shows. `absent` has one line for each section that is None."""

    facts: Facts
    stages: Mapping[str, StageAttrs]
    failures: list[Failure]
    splits: list[Split]
    heads: list[FoldScores]
    samples: Samples | None = None
    truth: Truth | None = None
    points: Array32 | None = None
    """The projection of the rows that have an embedding, `(n, 2)`."""
    coords: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    """What else a row's field is: plate, well, condition and the like, a text a row."""
    calls: Calls | None = None
    scores: Mapping[str, Any] | None = None
    knn: Mapping[str, Any] | None = None
    runs: Sequence[Curves] = ()
    odd: Odd | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Rows that curves, confusion and examples are of: the test set, or all out of fold."""
        assert self.samples is not None
        assert self.truth is not None
        assert self.calls is not None
        rows = self.samples.finite & self.truth.labelled
        fold = self.calls.row_fold
        assert fold is not None
        return rows & (fold < 0) if (rows & (fold < 0)).any() else rows & (fold >= 0)


def gather(location: Location, config: ReportConfig, project: Projection) -> Contents:
    """Read and score what the page shows.

    What is missing in the store is named in `absent` with the command that makes it. Raises
    `StoreError` or `ConfigError` where there is no store, or not the embedding, head or run asked
    for.
    """
    runs = [read_curves(folder) for folder in config.runs]
    described = info(location.uri, errors=True)["groups"]
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    stages = {path: stage_attrs(need(location, path, path)) for path in groups(location)}
    absent: dict[str, str] = {}
    embedding, head = chosen(stages, config)
    samples = points = truth = calls = scores = knn = None
    coords: dict[str, npt.NDArray[np.str_]] = {}
    if embedding is None:
        absent["map"] = "There is no embedding yet; make one with `zarrloc embed`."
    else:
        calls = _calls(location, head, stages, config) if head else None
        target = config.target or (calls.target if calls and calls.trained else None)
        samples = read_samples(location, embedding, target)
        weak: Any = calls.weak if calls else "ignore"
        truth = truth_of(samples.grade, weak, target is not None)
        coords = _coords(fovs, samples)
        if samples.finite.any():
            points = project(samples.features[samples.finite], config)
        else:
            absent["map"] = f"No row of '{samples.group}' has an embedding."
    if head is None:
        of = f" --target {config.target}" if config.target else ""
        absent["scores"] = (
            f"There is no head yet; make one with `zarrloc split{of}` and `zarrloc train{of}`."
        )
    elif stages[f"heads/{head}"].stage != "train":
        absent["scores"] = f"Head '{head}' only predicted here; it is scored where it was trained."
    else:
        scores = _judge(location, absent, "scores", config, head=head)
    if embedding is None:
        absent["knn"] = absent["map"]
    elif not config.knn:
        absent["knn"] = "Left out of this page; `zarrloc report --knn 1,3,5,10,20` scores it."
    else:
        knn = _judge(
            location, absent, "knn", config,
            embedding=embedding, knn=config.knn, exclude_same="auto",
            weak=calls.weak if calls else "ignore",
            target=samples.target if samples else None,
        )  # fmt: skip
    return Contents(
        facts=_facts(location, fovs, described),
        stages=stages,
        failures=[
            Failure(path, row["fov"], row["error"])
            for path, group in described.items()
            for row in group.get("rows", {}).get("errors", ())
        ],
        splits=[_split(location, path, calls) for path in stages if path.startswith("splits/")],
        heads=_fold_scores(location, stages),
        samples=samples,
        truth=truth,
        points=points,
        coords=coords,
        calls=calls,
        scores=scores,
        knn=knn,
        runs=runs,
        odd=_odd(location, embedding, described["fovs"]["rows"]["total"], absent, config),
        absent=absent,
    )


def chosen(stages: Mapping[str, StageAttrs], config: ReportConfig) -> tuple[str | None, str | None]:
    """The names of the embedding and the head to show, of what `stages` (path -> attrs) has.

    Raises `ConfigError` for a name that isn't there, or a head of another embedding.
    """
    heads = [(path, attrs) for path, attrs in stages.items() if path.startswith("heads/")]
    heads.sort(key=lambda head: head[1].stage != "train")  # what was trained here comes first
    of_head = {
        path.split("/")[1]: next(p for p in attrs.inputs if p.startswith("embeddings/"))
        for path, attrs in heads
    }
    embeddings = [path for path in stages if path.startswith("embeddings/")]
    for kind, name, there in (
        ("embedding", config.embedding, [path.split("/")[1] for path in embeddings]),
        ("head", config.head, list(of_head)),
    ):
        if name is not None and name not in there:
            raise ConfigError(f"no {kind} '{name}'; the store has {', '.join(there) or 'none'}")
    wanted = f"embeddings/{config.embedding}" if config.embedding else None
    if config.head and wanted and of_head[config.head] != wanted:
        raise ConfigError(
            f"head '{config.head}' stands on '{of_head[config.head]}', not on '{wanted}'; "
            "leave --embedding out, or name another --head"
        )
    targets = {path.split("/")[1]: attrs.config.get("target") for path, attrs in heads}
    if config.head and config.target not in (None, targets[config.head]):
        raise ConfigError(
            f"head '{config.head}' was trained on {targets[config.head] or 'labels'}, not on "
            f"{config.target}; leave --target out, or name another --head"
        )
    fitting = [
        name
        for name, path in of_head.items()
        if wanted in (None, path) and config.target in (None, targets[name])
    ]
    head = config.head or (fitting[0] if fitting else None)
    path = of_head[head] if head else wanted or (embeddings[0] if embeddings else None)
    return path.split("/")[1] if path else None, head


def _odd(
    location: Location,
    embedding: str | None,
    fields: int,
    absent: dict[str, str],
    config: ReportConfig,
) -> Odd | None:
    """Fields that stand out; replicates are compared by the embedding of the page."""
    if config.outliers == "no":
        absent["outliers"] = (
            "Left out of this page; `zarrloc report --outliers yes` looks for them."
        )
        return None
    if config.outliers == "auto" and fields > AUTO_OUTLIERS:
        absent["outliers"] = (
            f"Not looked for among more than {AUTO_OUTLIERS:,} fields; `zarrloc report --outliers "
            "yes` does it, `zarrloc outliers` without a page."
        )
        return None
    try:
        return odd_fields(location, embedding)
    except ZarrlocError as error:
        absent["outliers"] = str(error)
        return None


def _facts(location: Location, fovs: Any, described: Mapping[str, Any]) -> Facts:
    settings = described["fovs"]["config"]
    proteins = set(read_text(fovs, "protein").tolist()) - {""} if "protein" in fovs else set()
    tables = [group for path, group in described.items() if path.startswith("cells/")]
    return Facts(
        name=location.name,
        fields=described["fovs"]["rows"]["total"],
        proteins=len(proteins),
        labels=len(described["fovs"].get("labels", ())),
        cells=max((table["arrays"]["fov_index"]["shape"][0] for table in tables), default=0),
        channels=tuple(described["fovs"]["channels"]),
        size=f"{settings['width']} × {settings['height']} px",
        pixel_size_um=described["fovs"].get("pixel_size_um"),
    )


def _coords(fovs: zarr.Group, samples: Samples) -> dict[str, npt.NDArray[np.str_]]:
    """The texts that stand beside the fields, for every row; those that say nothing left out."""
    found = {
        name: read_text(fovs, name)
        for name, array in sorted(fovs.arrays())
        if array.metadata.dimension_names == ("fov",)  # type: ignore[union-attr]
        and array.dtype.kind in "TUO"
        and name not in NOT_COLOURS
    }
    return {
        name: values[samples.fov_index] for name, values in found.items() if (values != "").any()
    }


def _calls(
    location: Location, head: str, stages: Mapping[str, StageAttrs], config: ReportConfig
) -> Calls:
    group = need(location, f"heads/{head}", f"train STORE --name {head}")
    attrs = stages[f"heads/{head}"]
    trained = attrs.stage == "train"
    labels = tuple(map(str, read_column(group, "label")))
    tuned = config.threshold == "tuned"
    return Calls(
        head,
        trained,
        labels,
        read_column(group, "probability"),
        read_column(group, "threshold") if tuned else np.full(len(labels), 0.5),
        read_column(group, "row_fold") if trained else None,
        attrs.config.get("weak", "ignore"),
        attrs.config.get("split", ""),
        attrs.config.get("target"),
    )


def _judge(
    location: Location, absent: dict[str, str], section: str, config: ReportConfig, **what: Any
) -> Mapping[str, Any] | None:
    """What `zarrloc evaluate` would say; why it can't goes into `absent`."""
    settings = config.model_dump(include={"baselines", "bootstrap", "seed", "device", "threshold"})
    try:
        judge = EvaluateConfig.of({**settings, **what})
        if judge.head:
            return dict(finite(judge_head(location, judge.head, judge)))
        assert judge.embedding is not None
        return dict(finite(judge_neighbours(location, judge.embedding, judge)))
    except ZarrlocError as error:
        absent[section] = str(error)
        return None


def _split(location: Location, path: str, calls: Calls | None) -> Split:
    group = need(location, path, "split STORE")
    stored: Any = group.attrs["leakage"]
    leakage = Leakage(**{**stored, "parts": tuple(Part(**part) for part in stored["parts"])})
    name = path.split("/")[1]
    shown = calls is not None and calls.split == name
    return Split(name, stage_attrs(group).config["group"], leakage, shown)


def _fold_scores(location: Location, stages: Mapping[str, StageAttrs]) -> list[FoldScores]:
    found = []
    for path, attrs in stages.items():
        if attrs.stage == "train":
            scores: Any = need(location, path, "train STORE").attrs["scores"]
            each = {
                part: [x for x in scores[part]["macro_f1"]["each"] if x is not None]
                for part in ("validation", "test")
                if part in scores
            }
            found.append(
                FoldScores(
                    path.split("/")[1],
                    attrs.config["embedding"],
                    attrs.config["split"],
                    each["validation"],
                    each.get("test", []),
                )
            )
    return found
