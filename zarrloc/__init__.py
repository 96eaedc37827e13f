"""zarrloc: protein localization in fluorescence microscopy, on Dask and Zarr.

The commands' work as functions, with the same defaults. Each is imported when first used, so that
`import zarrloc` costs nothing. No module may bear one of these names: importing it would hide the
function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrloc.config.embed import EmbedConfig
    from zarrloc.config.ingest import IngestConfig
    from zarrloc.config.run import RunConfig
    from zarrloc.describe import info
    from zarrloc.config.segment import SegmentConfig
    from zarrloc.engine.verify import verify
    from zarrloc.segmentation import segment
    from zarrloc.stages.embed import embed
    from zarrloc.stages.ingest import ingest
    from zarrloc.store import open_store

_HOMES = {
    "EmbedConfig": "config.embed",
    "IngestConfig": "config.ingest",
    "RunConfig": "config.run",
    "embed": "stages.embed",
    "info": "describe",
    "ingest": "stages.ingest",
    "SegmentConfig": "config.segment",
    "open_store": "store",
    "segment": "segmentation",
    "verify": "engine.verify",
}

__all__ = [
    "EmbedConfig",
    "IngestConfig",
    "RunConfig",
    "SegmentConfig",
    "embed",
    "info",
    "ingest",
    "open_store",
    "segment",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zarrloc' has no attribute {name!r}")
    return getattr(import_module(f"zarrloc.{_HOMES[name]}"), name)
