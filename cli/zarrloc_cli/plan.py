"""`zarrloc plan`."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import tell
from zarrloc_cli.reproduce import shared


@click.command(cls=Command)
@shared
def command(
    files: tuple[Path, ...],
    store: str,
    out: Path | None,
    stand_ins: Path | None,
    max_hours: float,
) -> None:
    """Stages, time, GPU-hours and bytes that the tables in FILES need on STORE. Runs nothing.

    \b
    zarrloc plan examples/paper/table1.yaml opencell.zarr
    """
    from zarrloc.reproduction.reproduce import plan

    plans = {
        str(file): plan(file, store, out=out, stand_ins=stand_ins, max_hours=max_hours)
        for file in files
    }
    tell(plans, (line for lines in plans.values() for line in lines))
