"""The published form of the contract: JSON Schemas of what groups and config files may hold.

`python -m zarrloc.groups.schemas` writes them to `schemas/` from the models; `--check`
says whether the committed ones are those.
"""

import argparse
import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zarrloc import config
from zarrloc.config.base import Config
from zarrloc.groups.cells import CellsAttrs
from zarrloc.groups.embeddings import EmbeddingAttrs
from zarrloc.groups.fovs import FovsAttrs
from zarrloc.groups.heads import HeadAttrs
from zarrloc.groups.segmentations import SegmentationAttrs
from zarrloc.groups.splits import SplitAttrs
from zarrloc.store.attrs import RootAttrs

FOLDER = Path(__file__).parents[2] / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


GROUPS: dict[str, type[BaseModel]] = {
    "root": RootAttrs,
    "fovs": FovsAttrs,
    "segmentations": SegmentationAttrs,
    "cells": CellsAttrs,
    "embeddings": EmbeddingAttrs,
    "splits": SplitAttrs,
    "heads": HeadAttrs,
}
"""Kind of group -> its attributes."""


def configs() -> Iterator[type[Config]]:
    """Every stage's settings."""
    for module in pkgutil.iter_modules(config.__path__, f"{config.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            is_config = isinstance(value, type) and issubclass(value, Config)
            if is_config and value is not Config and value.__module__ == module.name:
                yield value


def schemas() -> dict[str, dict[str, Any]]:
    """File name -> JSON Schema."""
    named: dict[str, type[BaseModel]] = {f"{kind}-attrs": model for kind, model in GROUPS.items()}
    for model in configs():
        stage = model.__name__.removesuffix("Config")
        named["-".join(re.findall("[A-Z][a-z]*", stage)).lower() + "-config"] = model
    return {
        f"{name}.schema.json": {"$schema": DIALECT, **model.model_json_schema()}
        for name, model in sorted(named.items())
    }


def texts() -> dict[str, str]:
    """File name -> what the file holds."""
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()}


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of committed files that are missing, superfluous or not what the models say."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    wanted = texts()
    return sorted(n for n in there.keys() | wanted.keys() if there.get(n) != wanted.get(n))


def write(folder: Path = FOLDER) -> None:
    """Write every schema, and remove what no model stands behind any more."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.schema.json"):
        path.unlink()
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m zarrloc.groups.schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 on a change.")
    if not parser.parse_args().check:
        write()
    elif changed := stale():
        sys.exit(f"schemas/ is not what the models say: {', '.join(changed)}; run `make schemas`")


if __name__ == "__main__":
    main()
