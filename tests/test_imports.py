"""Importing a module of the package changes nothing, and no private name of a library is used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zarrloc_cli

import zarrloc

FOLDERS = [Path(package.__file__ or "").parent for package in (zarrloc, zarrloc_cli)]
FILES = sorted(file for folder in FOLDERS for file in folder.rglob("*.py"))
LIBRARIES = ("zarr", "xarray", "numpy")
ALIASES = {"np": "numpy", "xr": "xarray"}
PRIVATE = {
    ("crops.py", "xarray.core.indexing"): "xarray's guide to writing a backend names this place",
}
"""Private modules that are used after all, and why."""
EFFECTS = {
    "torchvision_shim.py": "its purpose: it has to come before the first import of torchvision",
}
"""Modules whose import does something, and why."""


def is_private(name: str) -> bool:
    library, *parts = name.split(".")
    return library in LIBRARIES and any(
        part == "core" or (part.startswith("_") and not part.endswith("__")) for part in parts
    )


def private(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            library, *parts = ast.unparse(node).split(".")
            names = [".".join([ALIASES.get(library, library), *parts])]
        else:
            continue
        yield from (name for name in names if is_private(name))


def effects(body: list[ast.stmt], imported: set[str]) -> Iterator[str]:
    """Statements of a module's top level that call something, or change what they imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield ast.unparse(node)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                root = ast.unparse(target).split(".")[0].split("[")[0]
                if isinstance(target, ast.Attribute | ast.Subscript) and root in imported:
                    yield ast.unparse(node)
        elif isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            continue
        elif isinstance(node, ast.If | ast.Try | ast.For | ast.With):
            for part in ("body", "orelse", "finalbody"):
                yield from effects(getattr(node, part, []), imported)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_private_of_zarr_xarray_or_numpy_is_used(file: Path) -> None:
    found = set(private(ast.parse(file.read_text(encoding="utf-8"))))
    assert {name for name in found if (file.name, name) not in PRIVATE} == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_importing_a_module_does_nothing(file: Path) -> None:
    if file.name in EFFECTS or file == FOLDERS[0] / "__init__.py":
        return
    assert list(effects(ast.parse(file.read_text(encoding="utf-8")).body, set())) == []


def test_what_these_tests_look_for_is_found() -> None:
    bad = "import numpy as np\nfrom zarr.core.sync import sync\nx = np._core.multiarray.scalar"
    assert {"zarr.core.sync.sync", "numpy._core.multiarray.scalar"} <= set(private(ast.parse(bad)))
    worse = "from numcodecs import blosc\nimport os\nblosc.use_threads = False\n"
    worse += "os.environ['A'] = '1'\nif os:\n    os.umask(0)\n"
    assert len(list(effects(ast.parse(worse).body, set()))) == 3


def test_blosc_and_logging_are_as_they_were() -> None:
    code = """
import logging
import distributed, tifffile, zarr
from numcodecs import blosc
log = logging.getLogger("tifffile")
before = blosc.use_threads, list(log.filters), log.level
import zarrloc.images.tiff, zarrloc.store.columns, zarrloc.store.template, zarrloc.engine.drive
assert (blosc.use_threads, list(log.filters), log.level) == before
assert not logging.getLogger("zarrloc").handlers and not logging.getLogger().handlers
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
