"""Keywords of a command, as the configs it takes."""

import inspect
import logging
import re
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any, TypeVar

from zarrloc.callbacks import Callback
from zarrloc.config.base import Config
from zarrloc.errors import ConfigError, ZarrlocError
from zarrloc.result import Result

LOG = logging.getLogger("zarrloc")

ARGUMENT = {"from": "start"}
"""Flags whose argument has another name."""

C = TypeVar("C", bound=Config)
F = TypeVar("F", bound=Callable[..., Any])


def takes(*configs: type[Config]) -> Callable[[F], F]:
    """Decorator: `**settings` of a function are the fields of `configs`.

    The signature that an editor or `help` shows has each with its default.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        known = {parameter.name for parameter in own}
        more = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=... if field.is_required() else field.get_default(),
                annotation=field.annotation,
            )
            for config in configs
            for name, field in config.model_fields.items()
            if name not in known
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        function.__configs__ = configs  # type: ignore[attr-defined]
        return function

    return decorate


def settled(kind: type[C], given: C | None, settings: dict[str, Any]) -> C:
    """The config of those `settings` that are its fields, taken out, laid over the `given` one."""
    names = {field.alias or name for name, field in kind.model_fields.items()}
    names |= kind.model_fields.keys()
    mine = {name: settings.pop(name) for name in list(settings) if name in names}
    if given is None:
        return kind.of(mine)
    return given.model_copy(update=mine) if mine else given


def refuse_unknown(
    settings: Iterable[str], *configs: type[Config], also: Iterable[str] = ()
) -> None:
    """Refuse keywords that no config has, naming the nearest that there is."""
    known = [*also, *(name for config in configs for name in config.model_fields)]
    problems = {}
    for name in settings:
        near = get_close_matches(name, known, n=1)
        problems[name] = "unknown" + (f"; did you mean {near[0]}?" if near else "")
    if problems:
        listed = "; ".join(f"{name}: {text}" for name, text in problems.items())
        raise ConfigError(listed, problems)


def named(name: str | None, kind: str) -> str:
    """The name, which must be given."""
    if not name:
        raise ConfigError(f"name is missing: say what the {kind} is to be called, such as name='a'")
    return name


def of_arguments(text: str) -> str:
    """A message of the command line's flags, as one of arguments; commands in backticks stay.

    Examples
    --------
    >>> of_arguments("pass --overwrite, or run `zarrloc verify STORE --deep`")
    'pass overwrite, or run `zarrloc verify STORE --deep`'
    """
    parts = text.split("`")
    parts[::2] = [re.sub(r"--([a-z][a-z0-9-]*)", _argument, part) for part in parts[::2]]
    return "`".join(parts)


def _argument(flag: re.Match[str]) -> str:
    return ARGUMENT.get(flag[1], flag[1].replace("-", "_"))


def timed(call: Callable[[], Result], *, quiet: bool = False) -> Result:
    """The result, with the seconds it took; a stopped call says how it goes on.

    With `quiet` no progress is shown.
    """
    began = time.monotonic()
    try:
        with Callback() if quiet else nullcontext():
            result = call()
    except KeyboardInterrupt:
        LOG.warning("stopped; the same call continues from here")
        raise
    except ZarrlocError as error:
        message = of_arguments(str(error))
        if message == str(error):
            raise
        raise type(error)(message, error.problems) from error
    result.seconds = time.monotonic() - began
    return result
