"""`zarrloc reproduce`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zarrloc.config.run import RunConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split
from zarrloc_cli.output import speaker

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def shared(function: Callable[..., Any]) -> Any:
    """What `reproduce` and `plan` both take."""
    for option in (
        click.option(
            "--max-hours", default=24.0, show_default=True, type=click.FloatRange(min=0),
            help="Longest that one stage may take, by estimate; rows that need more don't run.",
        ),
        click.option("--stand-ins", type=FILE, help="YAML file of small backbones instead."),
        click.option(
            "--out", type=click.Path(path_type=Path),
            help="Folder of trained backbones and tables.  [default: STORE.reproduce]",
        ),
        click.argument("store"),
        click.argument("files", nargs=-1, required=True, type=FILE),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command(cls=Command)
@shared
@click.option("--sensitivity", is_flag=True, help="Also run what the paper leaves open.")
@config_options(RunConfig)
def command(
    files: tuple[Path, ...],
    store: str,
    out: Path | None,
    stand_ins: Path | None,
    max_hours: float,
    sensitivity: bool,
    **options: Any,
) -> int:
    """Run the tables in FILES on STORE: a plan first, then what is missing, then the comparison.

    \b
    zarrloc reproduce examples/paper/table1.yaml opencell.zarr
    """
    (run, _) = split(options, RunConfig)
    from zarrloc.reproduction.reproduce import reproduce

    return max(
        reproduce(
            file, store, out=out, stand_ins=stand_ins, max_hours=max_hours,
            sensitivity=sensitivity, run=run, say=speaker(),
        )
        for file in files
    )  # fmt: skip
