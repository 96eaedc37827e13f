"""zarrloc: protein localization in fluorescence microscopy, on Dask and Zarr.

The commands' work as functions, with the same defaults. Each is imported when first used, so that
`import zarrloc` costs nothing. No module may bear one of these names: importing it would hide the
function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrloc.config.embed import EmbedConfig
    from zarrloc.config.evaluate import EvaluateConfig, PredictConfig
    from zarrloc.config.export import ExportConfig
    from zarrloc.config.ingest import IngestConfig
    from zarrloc.config.pretrain import PretrainConfig
    from zarrloc.config.report import ReportConfig
    from zarrloc.config.run import RunConfig
    from zarrloc.config.segment import SegmentConfig
    from zarrloc.config.split import SplitConfig
    from zarrloc.config.train import TrainConfig
    from zarrloc.engine.verify import verify
    from zarrloc.exports.export import export
    from zarrloc.report.write import write_report
    from zarrloc.reproduction.reproduce import reproduce
    from zarrloc.stages.annotate import annotate
    from zarrloc.stages.embed import embed
    from zarrloc.stages.evaluate import evaluate
    from zarrloc.stages.ingest import ingest
    from zarrloc.stages.predict import predict
    from zarrloc.stages.pretrain import pretrain
    from zarrloc.stages.segment import segment
    from zarrloc.stages.split import split
    from zarrloc.stages.train import train
    from zarrloc.store.info import info
    from zarrloc.store.read import open_store

_HOMES = {
    "EmbedConfig": "config.embed",
    "EvaluateConfig": "config.evaluate",
    "ExportConfig": "config.export",
    "IngestConfig": "config.ingest",
    "PredictConfig": "config.evaluate",
    "PretrainConfig": "config.pretrain",
    "ReportConfig": "config.report",
    "RunConfig": "config.run",
    "SegmentConfig": "config.segment",
    "SplitConfig": "config.split",
    "TrainConfig": "config.train",
    "annotate": "stages.annotate",
    "embed": "stages.embed",
    "evaluate": "stages.evaluate",
    "export": "exports.export",
    "info": "store.info",
    "ingest": "stages.ingest",
    "open_store": "store.read",
    "predict": "stages.predict",
    "pretrain": "stages.pretrain",
    "reproduce": "reproduction.reproduce",
    "segment": "stages.segment",
    "split": "stages.split",
    "train": "stages.train",
    "verify": "engine.verify",
    "write_report": "report.write",
}

__all__ = [
    "EmbedConfig",
    "EvaluateConfig",
    "ExportConfig",
    "IngestConfig",
    "PredictConfig",
    "PretrainConfig",
    "ReportConfig",
    "RunConfig",
    "SegmentConfig",
    "SplitConfig",
    "TrainConfig",
    "annotate",
    "embed",
    "evaluate",
    "export",
    "info",
    "ingest",
    "open_store",
    "predict",
    "pretrain",
    "reproduce",
    "segment",
    "split",
    "train",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zarrloc' has no attribute {name!r}")
    return getattr(import_module(f"zarrloc.{_HOMES[name]}"), name)
