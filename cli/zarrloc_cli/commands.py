"""How commands are listed and helped: groups of commands, sections of options, nearest names."""

import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import click

from zarrloc_cli.names import completer
from zarrloc_cli.output import JSON, QUIET

SECTION = "zarrloc_section"
"""Attribute of an option: the heading that `--help` puts it under."""

LAST = ("Where it runs", "Output")
"""Sections that come last."""


class Command(click.Command):
    """A command with `--quiet` and `--json`, its options in sections, its names completed."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        given = {option for parameter in self.params for option in parameter.opts}
        common = {
            "--quiet": (QUIET, "Print nothing but errors."),
            "--json": (JSON, "Print one JSON object."),
        }
        for flag, (key, text) in common.items():
            if flag not in given:
                option = click.Option(
                    [flag], is_flag=True, expose_value=False, help=text, callback=_noting(key)
                )
                setattr(option, SECTION, "Output")
                self.params.append(option)
        for parameter in self.params:
            complete = completer(parameter.name or "")
            if complete is not None:
                parameter._custom_shell_complete = complete

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; with `--quiet` no progress is shown."""
        from zarrloc.callbacks import Callback

        with Callback() if ctx.meta.get(QUIET) else nullcontext():
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under the headings of their sections, in the order they first come in."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        # What must be given comes before what may be.
        for parameter in sorted(self.get_params(ctx), key=lambda one: not one.required):
            record = parameter.get_help_record(ctx)
            if record is not None and record[1]:  # an argument is told in the text above
                own = "Output" if parameter.name == "help" else "Options"
                sections.setdefault(getattr(parameter, SECTION, own), []).append(record)
        order = [name for name in sections if name not in LAST]
        for name in [*order, *(name for name in LAST if name in sections)]:
            if sections[name]:
                with formatter.section(name):
                    formatter.write_dl(sections[name])


def _noting(key: str) -> Any:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[key] = True
            if key == QUIET:
                logging.getLogger("zarrloc").setLevel(logging.ERROR)

    return note


class Commands(click.Group):
    """Commands in groups. A command's module is imported only when it is asked for.

    Parameters
    ----------
    listed
        Heading -> command -> one line on what it does.
    """

    def __init__(
        self, *arguments: Any, listed: Mapping[str, Mapping[str, str]], **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.listed = listed

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return [name for group in self.listed.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"zarrloc_cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is asked for; a mistyped one gets the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            if ctx.resilient_parsing:
                return None, None, args[1:]
            ctx.fail(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a command, whole, under the group's heading."""
        for heading, group in self.listed.items():
            with formatter.section(heading):
                formatter.write_dl(list(group.items()))


def unknown(kind: str, name: str, there: Sequence[str]) -> str:
    """The message for an unknown name, with the nearest known one."""
    near = get_close_matches(name, there, n=1, cutoff=0.5)
    return f"No such {kind} '{name}'." + (f" Did you mean '{near[0]}'?" if near else "")
