"""`zarrloc plan`."""

from pathlib import Path

import click

from zarrloc_cli.reproduce import shared


@click.command(short_help="Say what `reproduce` would do, and what it would take.")
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

    for file in files:
        told = plan(file, store, out=out, stand_ins=stand_ins, max_hours=max_hours)
        click.echo("\n".join(told))
