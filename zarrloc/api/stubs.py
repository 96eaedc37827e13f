"""The stub of the package, `zarrloc/__init__.pyi`: every keyword of every command, with its type.

`python -m zarrloc.api.stubs` writes it from the functions and configs; a test compares.
"""

import inspect
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

PACKAGE: Any = import_module("zarrloc")
FILE = Path(PACKAGE.__file__).with_suffix(".pyi")

HEAD = '''\
"""Written by `python -m zarrloc.api.stubs`; do not edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

'''


def stub() -> str:
    """What the file holds."""
    imports, functions = [], []
    for name, home in sorted(PACKAGE.HOMES.items()):
        found = getattr(PACKAGE, name)
        if hasattr(found, "__configs__"):
            functions.append(_function(name, found))
        else:
            imports.append(f"from zarrloc.{home} import {name} as {name}")
    more = [
        "from zarrloc.result import Result as Result",
        "from zarrloc.store.location import Location as Location",
    ]
    listed = "\n".join(f'    "{name}",' for name in sorted([*PACKAGE.HOMES, "__version__"]))
    return (
        HEAD
        + "\n".join(sorted({*imports, *more}))
        + "\n\n__version__: str\n__all__ = [\n"
        + listed
        + "\n]\n\n"
        + "\n".join(functions)
    )


def _function(name: str, function: Any) -> str:
    lines = [f"def {name}("]
    starred = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("    *,")
            starred = True
        default = "" if parameter.default is parameter.empty else " = ..."
        lines.append(f"    {parameter.name}: {_words(parameter.annotation)}{default},")
    lines.append("    **settings: Any,")
    lines.append(f') -> Result:\n    """{(inspect.getdoc(function) or "").splitlines()[0]}"""\n')
    return "\n".join(lines)


def _words(annotation: Any) -> str:
    """A type as source text."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    if annotation is ...:
        return "..."
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(_words, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_words, arguments))}]"
    return str(annotation.__name__)


def main() -> None:
    """Write it; with `--check`, say whether the file is what the functions say."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(stub(), encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != stub():
        sys.exit(f"{FILE.name} is not what the functions say; run `make schemas`")


if __name__ == "__main__":
    main()
