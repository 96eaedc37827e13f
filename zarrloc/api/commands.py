"""The commands as functions: keywords with defaults, or a config object, and one kind of result."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zarrloc.api.settings import named, refuse_unknown, settled, takes, timed
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.evaluate import EvaluateConfig, PredictConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.report import ReportConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.result import Result
from zarrloc.store.location import Location

Store = str | Path | Location


def _of_run(store: Store, *summaries: Any) -> Result:
    """The result of stages that ran block by block."""
    location = Location.of(store)
    failures: dict[str, str] = {}
    for summary in summaries:
        if summary.rows_failed:
            failures |= _errors(location, summary.group)
        failures |= {f"{summary.group} block": reason for reason in summary.failures}
    worst = max((s.exit_code for s in summaries), key=lambda code: (code == 1, code))
    return Result(
        what=", ".join(summary.group for summary in summaries),
        done=sum(summary.rows_run for summary in summaries),
        reused=sum(max(0, summary.rows - summary.rows_run) for summary in summaries),
        failures=failures,
        notes=[note for summary in summaries for note in summary.notes],
        details={"summaries": list(summaries)},
        exit_code=worst,
        summary=[line for summary in summaries for line in summary.lines()],
    )


def _errors(location: Location, path: str) -> dict[str, str]:
    """Failed rows of a group, by their field (and row, for cells)."""
    from zarrloc.store.columns import read_column
    from zarrloc.store.read import committed
    from zarrloc.store.template import PENDING

    group = committed(location, path)
    if group is None or "error" not in group:
        return {}
    error = read_column(group, "error")
    names = read_column(group, "fov") if "fov" in group else np.arange(len(error))
    cells = path.startswith("cells/") or "fov_index" in group
    return {
        f"{names[row]} (row {row})" if cells else str(names[row]): str(error[row])
        for row in np.flatnonzero((error != "") & (error != PENDING)).tolist()
    }


def _of_one(what: str, summary: Any, **rest: Any) -> Result:
    """The result of a command that is done in one piece."""
    return Result(what=what, exit_code=summary.exit_code, summary=list(summary.lines()), **rest)


@takes(IngestConfig, RunConfig)
def ingest(
    source: str | Path | None,
    store: Store,
    config: IngestConfig | None = None,
    *,
    run: RunConfig | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Read images into a store; run again, only what is new or changed is read.

    Parameters
    ----------
    source
        A folder, glob, file or object-store prefix; None with a `manifest`.
    store
        Path or address of the store, made where it is absent.
    config, run
        Settings as objects; keywords override them.
    quiet
        Show no progress.
    **settings
        Fields of `IngestConfig` (`channels`, `axes`, `pixel_size_um`, ...) and of `RunConfig`
        (`cluster`, `workers`, ...), and `labels`, `label_names`, `cell_lines`, `manifest`,
        `overwrite`, `rehash`, `unsigned`, `reader`, as `zarrloc ingest --help` lists them.

    Returns
    -------
    Result
        `failed` has a row for every file that could not be read.

    Raises
    ------
    SourceError, ConfigError, ChannelError, StoreError, LockedError
        Before anything is written.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.ingest("images", "my.zarr", labels="labels.csv", cluster="serial").exit_code
    0
    """
    from zarrloc.stages.ingest import ingest as stage

    config, run = settled(IngestConfig, config, settings), settled(RunConfig, run, settings)
    _refuse(settings, stage, IngestConfig, RunConfig)
    return timed(
        lambda: _of_run(store, stage(source, _plain(store), config, run=run, **settings)),
        quiet=quiet,
    )


@takes(SegmentConfig, RunConfig)
def segment(
    store: Store,
    config: SegmentConfig | None = None,
    name: str | None = None,
    *,
    run: RunConfig | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Segment every field and measure its cells: `segmentations/<name>` and `cells/<name>`.

    Parameters
    ----------
    store
        Path or address of the store.
    config, run
        Settings as objects; keywords override them.
    name
        Name of the segmentation, and of its table of cells.
    quiet
        Show no progress.
    **settings
        Fields of `SegmentConfig` (`model`, `diameter`, `grow`, ...) and of `RunConfig`, and
        `function` (a segmenter of one's own, `(image (channel, y, x), roles) -> mask (y, x)`),
        `crop_um`, `keep_percentile`, `block_cells`, `overwrite`.

    Returns
    -------
    Result
        `failed` has a row for every field that could not be segmented.

    Raises
    ------
    ConfigError, ChannelError, WeightsError, StoreError, LockedError
        Before anything is written.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.segment("my.zarr", model="watershed", name="ws", cluster="serial").what
    'segmentations/ws, cells/ws'
    """
    from zarrloc.stages.segment import segment as stage

    config, run = settled(SegmentConfig, config, settings), settled(RunConfig, run, settings)
    table = ("crop_um", "keep_percentile", "block_cells")
    _refuse(settings, stage, SegmentConfig, RunConfig, also=table)
    name = named(name, "segmentation")
    return timed(
        lambda: _of_run(store, *stage(_plain(store), config, name, run=run, **settings)),
        quiet=quiet,
    )


@takes(EmbedConfig, RunConfig)
def embed(
    store: Store,
    config: EmbedConfig | None = None,
    name: str | None = None,
    *,
    run: RunConfig | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Embed every field, or every cell, into `embeddings/<name>`.

    `embedding (fov or cell, feature)` is float32; row i is row i of `fovs`, or of the cell table.

    Parameters
    ----------
    store
        Path or address of the store.
    config, run
        Settings as objects; keywords override them.
    name
        Name of the embedding.
    quiet
        Show no progress.
    **settings
        Fields of `EmbedConfig` (`backbone`, `weights`, `size`, `level`, `cells`, ...) and of
        `RunConfig`, and `overwrite`.

    Returns
    -------
    Result
        `failed` has a row for every field or cell that could not be embedded.

    Raises
    ------
    ConfigError, ChannelError, WeightsError, StoreError, LockedError
        Before anything is written.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.embed("my.zarr", backbone="dino-vits16", name="dino", cluster="serial").done
    10
    """
    from zarrloc.stages.embed import embed as stage

    config, run = settled(EmbedConfig, config, settings), settled(RunConfig, run, settings)
    _refuse(settings, stage, EmbedConfig, RunConfig)
    name = named(name, "embedding")
    return timed(
        lambda: _of_run(store, stage(_plain(store), config, name, run=run, **settings)), quiet=quiet
    )


@takes(SplitConfig)
def split(
    store: Store,
    config: SplitConfig | None = None,
    name: str | None = None,
    **settings: Any,
) -> Result:
    """Deal the fields into folds, and a test set: `splits/<name>`.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Settings as an object; keywords override it.
    name
        Name of the split.
    **settings
        Fields of `SplitConfig` (`folds`, `test`, `group`, `seed`), and `overwrite`.

    Returns
    -------
    Result
        `details` has `fold` (int8, a field; -1 the test set) and `leakage`.

    Raises
    ------
    ConfigError, StoreError, LockedError
        For a grouping that the fields do not have, or another split of that name.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.split("my.zarr", name="honest", folds=2)["fold"].shape
    (10,)
    """
    from zarrloc.stages.split import split as stage

    config = settled(SplitConfig, config, settings)
    _refuse(settings, stage, SplitConfig)
    name = named(name, "split")

    def call() -> Result:
        found = stage(store, config, name, **settings)
        count = len(found.fold)
        return _of_one(
            found.path, found, done=count * found.made, reused=count * (not found.made),
            details={"fold": found.fold, "leakage": found.leakage},
        )  # fmt: skip

    return timed(call)


@takes(TrainConfig)
def train(
    store: Store,
    config: TrainConfig | None = None,
    name: str | None = None,
    **settings: Any,
) -> Result:
    """Train a classification head on an embedding, every fold of a split at once.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Settings as an object; keywords override it.
    name
        Name of the head, `heads/<name>`.
    **settings
        Fields of `TrainConfig` (`embedding`, `split`, `epochs`, ...), and `overwrite`, `save` (a
        safetensors file).

    Returns
    -------
    Result
        `details` has `validation` and, where the split has a test set, `test`: mean and sd of
        macro-F1 over the folds.

    Raises
    ------
    ConfigError, StoreError, LockedError
        Before anything is trained.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.train("my.zarr", embedding="dino", split="honest", name="head", epochs=2).what
    'heads/head'
    """
    from zarrloc.stages.train import train as stage

    config = settled(TrainConfig, config, settings)
    _refuse(settings, stage, TrainConfig)
    name = named(name, "head")

    def call() -> Result:
        found = stage(store, config, name, **settings)
        scores = {"validation": found.validation, "test": found.test}
        return _of_one(found.path, found, done=1, notes=list(found.notes), details=scores)

    return timed(call)


@takes(EvaluateConfig)
def evaluate(store: Store, config: EvaluateConfig | None = None, **settings: Any) -> Result:
    """Score a head, or the nearest neighbours of an embedding, beside honest baselines.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Settings as an object; keywords override it.
    **settings
        Fields of `EvaluateConfig`: `head`, or `embedding` with `knn=(1, 3, 5)`; `threshold`, ...

    Returns
    -------
    Result
        `details` is what `zarrloc evaluate --json` prints: `validation`, `test`, `per_label`,
        `baselines`, or `knn`. A figure that does not exist is None.

    Raises
    ------
    ConfigError, StoreError
        Where neither is given, or it is not there.

    Examples
    --------
    >>> import zarrloc as zl
    >>> found = zl.evaluate("my.zarr", head="head", bootstrap=0, baselines=False)
    >>> 0 <= found["validation"]["macro_f1"]["mean"] <= 1
    True
    """
    from zarrloc.scoring.scorecard import lines
    from zarrloc.stages.evaluate import evaluate as stage

    config = settled(EvaluateConfig, config, settings)
    refuse_unknown(settings, EvaluateConfig)

    def call() -> Result:
        found = stage(store, config)
        what = f"heads/{config.head}" if config.head else f"embeddings/{config.embedding}"
        return Result(what=what, done=1, details=found, summary=list(lines(found)))

    return timed(call)


@takes(PredictConfig)
def predict(
    store: Store,
    config: PredictConfig | None = None,
    name: str | None = None,
    **settings: Any,
) -> Result:
    """Send an embedding of new images through a trained head.

    Parameters
    ----------
    store
        The store of the new images.
    config
        Settings as an object; keywords override it.
    name
        Name of the predictions in `store`; default: the head's.
    **settings
        Fields of `PredictConfig` (`head` as STORE/heads/NAME, `embedding`, `threshold`), and
        `overwrite`, `out` (a CSV).

    Returns
    -------
    Result
        `details` has `calls`: how many rows each label was called for.

    Raises
    ------
    ConfigError, StoreError
        Where the embedding was made otherwise than the head's, or one of them is absent.

    Examples
    --------
    >>> import zarrloc as zl
    >>> calls = zl.predict("my.zarr", head="my.zarr/heads/head", embedding="dino", name="calls")
    >>> calls.done
    10
    """
    from zarrloc.stages.predict import predict as stage

    config = settled(PredictConfig, config, settings)
    _refuse(settings, stage, PredictConfig)

    def call() -> Result:
        found = stage(store, config, name, **settings)
        failures = _errors(Location.of(store), f"embeddings/{config.embedding}")
        return _of_one(
            found.path, found, done=found.rows, details={"calls": found.calls},
            failures=failures if found.failed else {},
        )  # fmt: skip

    return timed(call)


@takes(PretrainConfig)
def pretrain(
    store: Store,
    out: str | Path,
    config: PretrainConfig | None = None,
    *,
    overwrite: bool = False,
    **settings: Any,
) -> Result:
    """Train a backbone on a store's fields or cells without labels, into a folder.

    Parameters
    ----------
    store
        Path or address of the store.
    out
        Folder of the run, and a backbone for `embed` afterwards.
    config
        Settings as an object; keywords override it.
    overwrite
        Discard the run in `out` and start again.
    **settings
        Fields of `PretrainConfig`: `start` (a backbone to fine-tune), `arch`, `split`, `epochs`,
        `steps`, `batch`, ...

    Returns
    -------
    Result
        `exit_code` is 0 where the backbone is trained, 1 where a signal ended the run and the same
        call continues it, 3 where training collapsed.

    Raises
    ------
    ConfigError, StoreError, ChannelError, WeightsError, LockedError, ClusterError
        Before anything is trained.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.pretrain(
    ...     "my.zarr", "tuned", arch="vit_tiny_patch16", steps=1, batch=2, size=32,
    ...     local_size=32, local_views=1, prototypes=8, guard_epochs=0, device="cpu",
    ... ).exit_code
    0
    """
    from zarrloc.stages.pretrain import pretrain as stage

    config = settled(PretrainConfig, config, settings)
    refuse_unknown(settings, PretrainConfig, also=("overwrite",))

    def call() -> Result:
        code = stage(store, out, config, overwrite=overwrite)
        how = {0: "trained", 1: "stopped; the same call continues", 3: "collapsed"}
        return Result(what=str(out), done=int(code == 0), exit_code=code, notes=[how[code]])

    return timed(call)


def annotate(
    store: Store,
    *,
    pixel_size_um: float | None = None,
    channels: Sequence[str] = (),
    labels: str | Path | None = None,
    cell_lines: str | Path | None = None,
    conditions: str | Path | None = None,
    label_names: str | Path | None = None,
) -> Result:
    """Change a store's pixel size, channel roles, labels or conditions; its pixels stay.

    Parameters
    ----------
    store
        Path or address of the store.
    pixel_size_um
        Side of a pixel in micrometres.
    channels
        A role for each channel, in their order, such as `["nucleus", "protein"]`.
    labels
        Table of labels, as `ingest` takes it; the labels of fields that it does not name go.
    cell_lines
        OpenCell's `all-public-targets.csv`, which joins its labels to files.
    conditions
        Table of conditions, or a plate map; its columns become coordinates of the fields.
    label_names
        What the labels are called: a table of `label` and `name`, `hpa-2018` or `hpa-2021`.

    Returns
    -------
    Result
        `details["changes"]` has each as `name: before -> after`.

    Raises
    ------
    ConfigError, SourceError, StoreError, LockedError
        Where nothing is given, or it cannot be.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.annotate("my.zarr", pixel_size_um=0.325).done
    1
    """
    from zarrloc.stages.annotate import annotate as stage

    def call() -> Result:
        found = stage(
            store, pixel_size_um=pixel_size_um, channels=channels, labels=labels,
            cell_lines=cell_lines, conditions=conditions, label_names=label_names,
        )  # fmt: skip
        count = len(found.changes)
        return _of_one("fovs", found, done=count, details={"changes": list(found.changes)})

    return timed(call)


def label(store: Store, cells: str, csv: str | Path) -> Result:
    """Bring an expert's ticked table of single cells into `cells/<cells>`.

    Parameters
    ----------
    store
        Path or address of the store.
    cells
        Name of the cell table.
    csv
        The table, as `zarrloc label --export-sheet` wrote it, or one of your own.

    Returns
    -------
    Result
        `done` cells were judged.

    Raises
    ------
    SourceError, StoreError, LockedError
        Before anything is written; every row that cannot be used is named.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.label("my.zarr", "ws", "cells.csv")  # doctest: +SKIP
    """
    from zarrloc.stages.label import label as stage

    def call() -> Result:
        found = stage(store, cells, csv)
        notes = [f"{found.whole} whole, {found.confirmed} confirmed, {found.blank} rows left blank"]
        return Result(what=f"cells/{cells}", done=found.seen, notes=notes)

    return timed(call)


def verify(
    store: Store, *, deep: bool = False, repair: bool = False, run: RunConfig | None = None
) -> Result:
    """Compare a store with what was written into it.

    Parameters
    ----------
    store
        Path or address of the store.
    deep
        Decode every block and compare its values' digest.
    repair
        Rebuild what can be, and mark bad blocks as not done.
    run
        Where blocks are decoded.

    Returns
    -------
    Result
        `failed` has a row for everything that is not as it should be; `details["findings"]` has
        what was found, a group each.

    Raises
    ------
    StoreError, LockedError
        Where there is no store, or a run is writing it.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.verify("my.zarr", deep=True).failures
    {}
    """
    from zarrloc.engine.verify import verify as check

    def call() -> Result:
        found = check(_plain(store), deep=deep, repair=repair, run=run)
        failures: dict[str, str] = {}
        for one in found:
            failures |= {f"{one.group} block {block}": why for block, why in one.bad.items()}
            parts = {**one.damaged, **one.lost, **dict.fromkeys(one.debris, "left-over file")}
            failures |= {f"{one.group} {part}": why for part, why in parts.items()}
        lost = any(one.lost for one in found)
        return Result(
            what=str(store), done=len(found), failures=failures, details={"findings": found},
            exit_code=3 if lost or (failures and not repair) else 0,
        )  # fmt: skip

    return timed(call)


@takes(ReportConfig)
def write_report(
    store: Store,
    out: str | Path = "report.html",
    config: ReportConfig | None = None,
    **settings: Any,
) -> Result:
    """Write one self-contained HTML page about a store.

    Parameters
    ----------
    store
        Path or address of the store.
    out
        The file to write.
    config
        Settings as an object; keywords override it.
    **settings
        Fields of `ReportConfig` (`embedding`, `head`, `knn`, ...), and `project`.

    Returns
    -------
    Result
        `notes` name what the store lacks for a section.

    Raises
    ------
    ConfigError, StoreError
        Where an embedding or head is not there, or `out` cannot be written.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.write_report("my.zarr", "report.html", bootstrap=0)  # doctest: +SKIP
    """
    from zarrloc.report.write import write_report as stage

    config = settled(ReportConfig, config, settings)
    _refuse(settings, stage, ReportConfig)

    def call() -> Result:
        found = stage(store, out, config, **settings)
        return _of_one(str(found.out), found, done=found.points, notes=list(found.absent))

    return timed(call)


def preview(
    store: Store,
    out: str | Path,
    *,
    segmentation: str | None = None,
    fovs: Sequence[str] = (),
) -> Result:
    """Draw a contact sheet of fields, with mask outlines.

    Parameters
    ----------
    store
        Path or address of the store.
    out
        The picture to write, such as a .png.
    segmentation
        Whose masks to outline.
    fovs
        Names of the fields to show; default: up to 24, evenly spaced.

    Returns
    -------
    Result
        `details["fovs"]` are the fields shown.

    Raises
    ------
    ConfigError, StoreError
        For a field or a group that is not there.

    Examples
    --------
    >>> import zarrloc as zl
    >>> zl.preview("my.zarr", "preview.png", segmentation="ws").done
    10
    """
    from zarrloc.report.preview import preview as draw

    def call() -> Result:
        shown = draw(store, out, segmentation=segmentation, fovs=fovs)
        return Result(what=str(out), done=len(shown), details={"fovs": shown})

    return timed(call)


def _plain(store: Store) -> str | Path:
    """The address of a store; an opened store gives its own."""
    return store.uri if isinstance(store, Location) else store


def _refuse(
    settings: dict[str, Any],
    stage: Callable[..., Any],
    *configs: Any,
    also: Sequence[str] = (),
) -> None:
    """Refuse keywords that neither the stage nor its configs have."""
    import inspect

    parameters = inspect.signature(stage).parameters.values()
    own = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} | set(also)
    refuse_unknown(set(settings) - own, *configs, also=sorted(own))
