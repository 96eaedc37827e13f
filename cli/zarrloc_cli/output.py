"""What a command prints: text, or one JSON object with `--json`."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

QUIET, JSON = "zarrloc.quiet", "zarrloc.json"


def wants(what: str) -> bool:
    """Whether `--quiet` or `--json` was given to the running command."""
    context = click.get_current_context(silent=True)
    return bool(context is not None and context.meta.get(what))


def say(text: str) -> None:
    """Print a line of text, unless `--quiet` or `--json` was given."""
    if not wants(QUIET) and not wants(JSON):
        click.echo(text)


def speaker() -> Callable[[str], None]:
    """What prints lines for this command, also in other processes; nothing with `--quiet`."""
    return _silent if wants(QUIET) or wants(JSON) else click.echo


def _silent(text: str) -> None:
    pass


def report(*results: Any) -> int:
    """Print how a command's runs ended; returns the worst of their exit codes."""
    if wants(JSON):
        found = [plain(result) for result in results]
        click.echo(json.dumps(found[0] if len(found) == 1 else found, allow_nan=False))
    for result in results:
        for line in result.lines():
            say(line)
    worst: int = max((r.exit_code for r in results), key=lambda code: (code == 1, code))
    return worst


def tell(values: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print what a command found: `values` with `--json`, else the lines."""
    if wants(JSON):
        click.echo(json.dumps(plain(values), allow_nan=False))
    for line in lines:
        say(line)


def plain(value: Any) -> Any:
    """A result as JSON can hold it: NaN and infinity become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if hasattr(value, "exit_code"):
            named["exit_code"] = value.exit_code
        return {name: plain(one) for name, one in named.items()}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def color() -> bool | None:
    """None lets the terminal decide; False where the environment has NO_COLOR."""
    return False if os.environ.get("NO_COLOR") else None
