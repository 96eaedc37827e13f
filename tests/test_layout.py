"""Imports go one way through the rooms of the package, and no module needs itself.

A room imports only rooms of an earlier line; `zarrloc` never imports its command line.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import zarrloc

ROOT = Path(zarrloc.__file__).parent
RANKS = (
    {"callbacks", "errors", "result"},
    {"config"},
    {"store", "pixels"},
    {"groups", "images", "models"},
    {"segmenters", "scoring", "engine", "simulate"},
    {"tasks", "pretraining"},
    {"report"},
    {"exports"},
    {"stages"},
    {"reproduction"},
    {"api"},
)
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
FILES = sorted(file for file in ROOT.rglob("*.py") if file != ROOT / "__init__.py")


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file) for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """Our own modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("zarrloc"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zarrloc"):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else str(node.module)


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_room_imports_only_what_lies_below_it(file: Path) -> None:
    own = room(name_of(file))
    for module in imported(file):
        assert module.startswith("zarrloc."), f"{module} in {file}"
        other = room(module)
        assert other == own or RANK[other] < RANK[own], f"{name_of(file)} imports {module}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name_of(file): set(imported(file)) - {name_of(file)} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_every_folder_is_a_room() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders | {"callbacks", "errors", "result"} == RANK.keys()


def test_tests_lie_where_the_code_does() -> None:
    folders = {path.name for path in (ROOT.parent / "tests").iterdir() if path.is_dir()}
    assert folders - {"__pycache__", "clusters", "drills", "data"} <= RANK.keys()
