"""Click options made from a config's fields, so that a default or a help text is spelled once."""

import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from zarrloc.config.base import Config
from zarrloc_cli.commands import SECTION


def config_options(config: type[Config], skip: Iterable[str] = ()) -> Callable[[Any], Any]:
    """Decorator: one `--option` per field of `config`, in the order of its fields.

    Help shows them under the config's headings. `bool` becomes an on/off flag, `Literal` a choice,
    a tuple of strings a comma-separated text.
    """
    headings = {name: title for title, names in config.SECTIONS.items() for name in names}
    order = [config.SECTION, *config.SECTIONS]
    fields = [
        (name, field, headings.get(name, config.SECTION))
        for name, field in config.model_fields.items()
        if name not in set(skip)
    ]
    fields.sort(key=lambda one: order.index(one[2]))

    def decorate(function: Any) -> Any:
        for name, field, heading in reversed(fields):
            function = _option(name, field)(function)
            setattr(function.__click_params__[-1], SECTION, heading)
        return function

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    flag = "--" + name.replace("_", "-")
    kind = _without_none(field.annotation)
    required = field.is_required()
    default = None if field.default is PydanticUndefined else field.default
    common: dict[str, Any] = {"help": field.description, "required": required}
    if required:  # a default of None would count as given, and click would not miss the option
        return click.option(flag, name, type=_type_of(kind), **common)
    if kind is bool:
        off = "--no-" + name.replace("_", "-")
        declaration = f"{flag}/{off}" if default else flag
        return click.option(declaration, name, default=default, is_flag=True, **common)
    shown: bool | str = default not in (None, "", ())
    if get_origin(kind) is Literal:
        choice = _type_of(kind)
        return click.option(flag, name, type=choice, default=default, show_default=shown, **common)
    if get_origin(kind) is tuple:
        text = ",".join(map(str, default or ()))
        return click.option(
            flag, name, type=_type_of(kind), default=text, show_default=shown, **common
        )
    return click.option(
        flag, name, type=_type_of(kind), default=default, show_default=shown, **common
    )


def _type_of(kind: Any) -> Any:
    """What click makes of a text."""
    if get_origin(kind) is Literal:
        return click.Choice([str(value) for value in get_args(kind)])
    if get_origin(kind) is tuple:
        return CommaSeparated()
    return {int: int, float: float, Path: click.Path(path_type=Path)}.get(kind, str)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (types.UnionType, Union):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        return rest[0] if len(rest) == 1 else str
    return annotation


if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # not generic before click 8.4


class CommaSeparated(ParamType):
    """`a,b,c` as the tuple `("a", "b", "c")`; an empty text as `()`."""

    name = "A,B,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        """Split a text at its commas; a tuple passes through."""
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())


def split(options: dict[str, Any], *configs: type[Config]) -> tuple[Any, ...]:
    """Validated configs from a command's options, and what belongs to none of them."""
    made = [
        config.of({name: value for name, value in options.items() if name in config.model_fields})
        for config in configs
    ]
    known = {name for config in configs for name in config.model_fields}
    return *made, {name: value for name, value in options.items() if name not in known}


def tables(function: Any) -> Any:
    """The options of tables that join onto fields, of `ingest` and `annotate`."""
    for name, text in (
        ("conditions", "Table by well (or fov, path, protein), or a plate map: its columns become "
         "coordinates."),
        ("label_names", "What labels are called: a table of label and name, or hpa-2018 or "
         "hpa-2021 (the numbers of the Human Protein Atlas's competitions)."),
        ("cell_lines", "OpenCell's all-public-targets.csv, which joins labels to files."),
        ("labels", "Table of labels (CSV, TSV, Excel): OpenCell's annotations, or fov, path or "
         "well, and label."),
    ):  # fmt: skip
        flag = "--" + name.replace("_", "-")
        function = click.option(flag, name, type=click.Path(path_type=Path), help=text)(function)
    return function
