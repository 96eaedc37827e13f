"""Libraries that only an export needs, each in an extra of its own."""

from importlib import import_module
from typing import Any

from zarrloc.errors import ConfigError

EXTRA = {
    "pyarrow": "parquet",
    "openpyxl": "excel",
    "anndata": "anndata",
    "spatialdata": "spatialdata",
}
"""Library -> the extra of zarrloc that brings it."""


def library(name: str, part: str = "") -> Any:
    """The library `name`, or its module `part`.

    Raises
    ------
    ConfigError
        Where it is not installed, naming the extra that brings it.
    """
    try:
        import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"this export needs {name.replace('_', '-')}, which cannot be imported ({error}); "
            f"install it with: pip install 'zarrloc[{EXTRA[name]}]'"
        ) from error
    return import_module(f"{name}.{part}" if part else name)
