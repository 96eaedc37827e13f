"""Written by `python -m zarrloc.api.stubs`; do not edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zarrloc.api.commands import annotate as annotate
from zarrloc.api.commands import label as label
from zarrloc.api.commands import preview as preview
from zarrloc.api.commands import verify as verify
from zarrloc.api.estimators import HeadClassifier as HeadClassifier
from zarrloc.api.estimators import NeighbourClassifier as NeighbourClassifier
from zarrloc.api.opened import Store as Store
from zarrloc.api.opened import open as open
from zarrloc.callbacks import Callback as Callback
from zarrloc.config.embed import EmbedConfig as EmbedConfig
from zarrloc.config.evaluate import EvaluateConfig as EvaluateConfig
from zarrloc.config.evaluate import PredictConfig as PredictConfig
from zarrloc.config.export import ExportConfig as ExportConfig
from zarrloc.config.ingest import IngestConfig as IngestConfig
from zarrloc.config.pretrain import PretrainConfig as PretrainConfig
from zarrloc.config.report import ReportConfig as ReportConfig
from zarrloc.config.run import RunConfig as RunConfig
from zarrloc.config.segment import SegmentConfig as SegmentConfig
from zarrloc.config.split import SplitConfig as SplitConfig
from zarrloc.config.train import TrainConfig as TrainConfig
from zarrloc.exports.export import export as export
from zarrloc.groups.shuffled import Shuffled as Shuffled
from zarrloc.reproduction.reproduce import reproduce as reproduce
from zarrloc.result import Result as Result
from zarrloc.stages.outliers import outliers as outliers
from zarrloc.stages.similar import similar as similar
from zarrloc.store.info import info as info
from zarrloc.store.location import Location as Location
from zarrloc.store.read import open_store as open_store

__version__: str
__all__ = [
    "Callback",
    "EmbedConfig",
    "EvaluateConfig",
    "ExportConfig",
    "HeadClassifier",
    "IngestConfig",
    "NeighbourClassifier",
    "PredictConfig",
    "PretrainConfig",
    "ReportConfig",
    "Result",
    "RunConfig",
    "SegmentConfig",
    "Shuffled",
    "SplitConfig",
    "Store",
    "TrainConfig",
    "__version__",
    "annotate",
    "embed",
    "evaluate",
    "export",
    "info",
    "ingest",
    "label",
    "open",
    "open_store",
    "outliers",
    "predict",
    "pretrain",
    "preview",
    "reproduce",
    "segment",
    "similar",
    "split",
    "train",
    "verify",
    "write_report",
]

def embed(
    store: str | Path | Location,
    config: EmbedConfig | None = ...,
    name: str | None = ...,
    *,
    run: RunConfig | None = ...,
    quiet: bool = ...,
    backbone: str = ...,
    weights: str | None = ...,
    last_blocks: int = ...,
    channels: str | None = ...,
    size: str = ...,
    norm: Literal['auto', 'zscore', 'cell', 'minmax', 'imagenet', 'trained', 'none'] = ...,
    precision: Literal['auto', 'fp32', 'bf16'] = ...,
    level: Literal['fov', 'cell'] = ...,
    cells: str | None = ...,
    crop_um: float | None = ...,
    outside: Literal['black', 'keep'] = ...,
    all_cells: bool = ...,
    cluster: str = ...,
    cluster_config: Path | None = ...,
    workers: int | None = ...,
    memory_limit: str = ...,
    dashboard: str = ...,
    profile: Path | None = ...,
    retry_failed: bool = ...,
    **settings: Any,
) -> Result:
    """Embed every field, or every cell, into `embeddings/<name>`."""

def evaluate(
    store: str | Path | Location,
    config: EvaluateConfig | None = ...,
    *,
    device: str = ...,
    head: str | None = ...,
    embedding: str | None = ...,
    knn: tuple[int, ...] = ...,
    vote_norm: Literal['sum', 'max'] = ...,
    temperature: float = ...,
    exclude_same: str = ...,
    target: str | None = ...,
    labels: Literal['weak', 'expert'] = ...,
    weak: Literal['ignore', 'positive', 'negative'] = ...,
    probe: bool = ...,
    baselines: bool = ...,
    threshold: Literal['0.5', 'tuned'] = ...,
    bootstrap: int = ...,
    seed: int = ...,
    **settings: Any,
) -> Result:
    """Score a head, or the nearest neighbours of an embedding, beside honest baselines."""

def ingest(
    source: str | Path | None,
    store: str | Path | Location,
    config: IngestConfig | None = ...,
    *,
    run: RunConfig | None = ...,
    quiet: bool = ...,
    channels: tuple[str, ...] = ...,
    pattern: str | None = ...,
    axes: str | None = ...,
    project: Literal['max', 'mean', 'focus'] | None = ...,
    pixel_size_um: float | None = ...,
    dtype: Literal['uint8', 'uint16', 'float32'] | None = ...,
    lossy: bool = ...,
    field_size: str | None = ...,
    shard_fovs: int | None = ...,
    only: Literal['proj', 'stack'] | None = ...,
    genes: tuple[str, ...] = ...,
    limit: int | None = ...,
    cluster: str = ...,
    cluster_config: Path | None = ...,
    workers: int | None = ...,
    memory_limit: str = ...,
    dashboard: str = ...,
    profile: Path | None = ...,
    retry_failed: bool = ...,
    **settings: Any,
) -> Result:
    """Read images into a store; run again, only what is new or changed is read."""

def predict(
    store: str | Path | Location,
    config: PredictConfig | None = ...,
    name: str | None = ...,
    *,
    device: str = ...,
    head: str = ...,
    embedding: str = ...,
    threshold: Literal['0.5', 'tuned'] = ...,
    **settings: Any,
) -> Result:
    """Send an embedding of new images through a trained head."""

def pretrain(
    store: str | Path | Location,
    out: str | Path,
    config: PretrainConfig | None = ...,
    *,
    overwrite: bool = ...,
    objective: Literal['dino', 'dinov2', 'mae', 'simclr', 'vicreg'] = ...,
    arch: str | None = ...,
    start: str = ...,
    weights: str | None = ...,
    arch_options: tuple[str, ...] = ...,
    tokens: Literal['patch', 'channel'] = ...,
    channel_sampling: bool = ...,
    also: tuple[str, ...] = ...,
    views: Literal['sample', 'protein'] = ...,
    level: Literal['fov', 'cell'] = ...,
    cells: str = ...,
    crop_um: float | None = ...,
    channels: str | None = ...,
    split: str | None = ...,
    fraction: float = ...,
    seed: int = ...,
    epochs: int = ...,
    steps: int | None = ...,
    batch: int = ...,
    learning_rate: float | None = ...,
    final_learning_rate: float = ...,
    warmup: float = ...,
    weight_decay: float = ...,
    final_weight_decay: float = ...,
    clip: float = ...,
    momentum: float = ...,
    freeze_last: float = ...,
    drop_path: float = ...,
    prototypes: int = ...,
    head_hidden: int = ...,
    bottleneck: int = ...,
    student_temperature: float = ...,
    teacher_temperature: float = ...,
    center_momentum: float = ...,
    ibot_weight: float = ...,
    koleo_weight: float = ...,
    mask_range: tuple[float, float] = ...,
    mask_probability: float = ...,
    mask_ratio: float = ...,
    decoder_width: int = ...,
    decoder_depth: int = ...,
    contrast_temperature: float = ...,
    projection: int = ...,
    size: int = ...,
    local_size: int = ...,
    local_views: int = ...,
    global_scale: tuple[float, float] = ...,
    local_scale: tuple[float, float] = ...,
    warp: float = ...,
    flip: float = ...,
    turn: float = ...,
    jitter: float = ...,
    remove_channel: float = ...,
    rescale_protein: float = ...,
    noise: float = ...,
    blur: float = ...,
    guard_epochs: int = ...,
    eval_every: int | None = ...,
    guard_samples: int = ...,
    keep_going: bool = ...,
    cache: Literal['none', 'ram', 'device'] = ...,
    pool_shards: int = ...,
    device: str = ...,
    precision: Literal['auto', 'fp32', 'bf16'] = ...,
    processes: int = ...,
    accumulate: int = ...,
    checkpoint_steps: int = ...,
    keep: int = ...,
    log_steps: int = ...,
    tensorboard: bool = ...,
    **settings: Any,
) -> Result:
    """Train a backbone on a store's fields or cells without labels, into a folder."""

def segment(
    store: str | Path | Location,
    config: SegmentConfig | None = ...,
    name: str | None = ...,
    *,
    run: RunConfig | None = ...,
    quiet: bool = ...,
    model: str = ...,
    channels: tuple[str, ...] = ...,
    diameter: float | Literal['auto'] = ...,
    size_model: str | None = ...,
    grow: str | None = ...,
    flow_threshold: float = ...,
    cellprob_threshold: float = ...,
    min_size: int = ...,
    tile_batch: int | None = ...,
    cluster: str = ...,
    cluster_config: Path | None = ...,
    workers: int | None = ...,
    memory_limit: str = ...,
    dashboard: str = ...,
    profile: Path | None = ...,
    retry_failed: bool = ...,
    **settings: Any,
) -> Result:
    """Segment every field and measure its cells: `segmentations/<name>` and `cells/<name>`."""

def split(
    store: str | Path | Location,
    config: SplitConfig | None = ...,
    name: str | None = ...,
    *,
    folds: int | None = ...,
    test: float = ...,
    group: str = ...,
    target: str | None = ...,
    seed: int = ...,
    **settings: Any,
) -> Result:
    """Deal the fields into folds, and a test set: `splits/<name>`."""

def train(
    store: str | Path | Location,
    config: TrainConfig | None = ...,
    name: str | None = ...,
    *,
    device: str = ...,
    hidden: tuple[int, ...] = ...,
    dropout: float = ...,
    lr: float = ...,
    weight_decay: float = ...,
    epochs: int | None = ...,
    batch: int = ...,
    resample: Literal['epoch', 'once'] = ...,
    precision: Literal['auto', 'fp32', 'bf16'] = ...,
    seed: int = ...,
    embedding: str = ...,
    split: str = ...,
    target: str | None = ...,
    pool: Literal['none', 'mean', 'attention'] = ...,
    weak: Literal['ignore', 'positive', 'negative'] = ...,
    **settings: Any,
) -> Result:
    """Train a classification head on an embedding, every fold of a split at once."""

def write_report(
    store: str | Path | Location,
    out: str | Path = ...,
    config: ReportConfig | None = ...,
    *,
    device: str = ...,
    embedding: str | None = ...,
    head: str | None = ...,
    target: str | None = ...,
    runs: tuple[str, ...] = ...,
    knn: tuple[int, ...] = ...,
    baselines: bool = ...,
    threshold: Literal['0.5', 'tuned'] = ...,
    bootstrap: int = ...,
    outliers: Literal['auto', 'yes', 'no'] = ...,
    umap_neighbours: int = ...,
    umap_min_dist: float = ...,
    pictures_mb: float = ...,
    seed: int = ...,
    **settings: Any,
) -> Result:
    """Write one self-contained HTML page about a store."""
