"""zarrloc: protein localization in fluorescence microscopy, on Dask and Zarr.

`zarrloc.open` shows what a store holds; the commands are functions of the same names, with the
same defaults. Each is imported when first used, so that `import zarrloc` costs nothing. No module
may bear one of these names: importing it would hide the function. `__init__.pyi` tells editors
the types; `python -m zarrloc.api.stubs` writes it.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

HOMES = {
    **dict.fromkeys(
        (
            *("annotate", "embed", "evaluate", "ingest", "label", "predict", "pretrain"),
            *("preview", "segment", "split", "train", "verify", "write_report"),
        ),
        "api.commands",
    ),
    **dict.fromkeys(("HeadClassifier", "NeighbourClassifier"), "api.estimators"),
    **dict.fromkeys(("Store", "open"), "api.opened"),
    "Callback": "callbacks",
    "EmbedConfig": "config.embed",
    "EvaluateConfig": "config.evaluate",
    "ExportConfig": "config.export",
    "IngestConfig": "config.ingest",
    "PredictConfig": "config.evaluate",
    "PretrainConfig": "config.pretrain",
    "ReportConfig": "config.report",
    "Result": "result",
    "RunConfig": "config.run",
    "SegmentConfig": "config.segment",
    "Shuffled": "groups.shuffled",
    "SplitConfig": "config.split",
    "TrainConfig": "config.train",
    "export": "exports.export",
    "info": "store.info",
    "open_store": "store.read",
    "outliers": "stages.outliers",
    "reproduce": "reproduction.reproduce",
    "similar": "stages.similar",
}
"""Public name -> the module below `zarrloc` that it is in."""

_attributes: dict[str, list[str]] = {}
for _name, _home in HOMES.items():
    _attributes.setdefault(_home, []).append(_name)

__getattr__, _, _ = _lazy.attach(__name__, submod_attrs=_attributes)
__all__ = sorted([*HOMES, "__version__"])


def __dir__() -> list[str]:
    return __all__
