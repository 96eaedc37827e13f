"""zarrloc: protein localization in fluorescence microscopy, on Dask and Zarr.

The commands' work as functions, with the same defaults. Each is imported when first used, so that
`import zarrloc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrloc.config.embed import EmbedConfig
    from zarrloc.config.ingest import IngestConfig
    from zarrloc.config.run import RunConfig
    from zarrloc.embed import embed
    from zarrloc.info import info
    from zarrloc.ingest import ingest
    from zarrloc.store import open_store
    from zarrloc.verify import verify

__all__ = [
    "EmbedConfig",
    "IngestConfig",
    "RunConfig",
    "embed",
    "info",
    "ingest",
    "open_store",
    "verify",
]

_HOMES = {
    "EmbedConfig": "config.embed",
    "IngestConfig": "config.ingest",
    "RunConfig": "config.run",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'zarrloc' has no attribute {name!r}")
    return getattr(import_module(f"zarrloc.{_HOMES.get(name, name)}"), name)
