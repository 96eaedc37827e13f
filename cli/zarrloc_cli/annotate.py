"""`zarrloc annotate`."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.options import tables
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--pixel-size-um", type=float, help="Side of a pixel in micrometres.")
@click.option("--channels", help="A role for each channel, such as nucleus,protein.")
@tables
def command(
    store: str,
    pixel_size_um: float | None,
    channels: str | None,
    labels: Path | None,
    cell_lines: Path | None,
    conditions: Path | None,
    label_names: str | None,
) -> int:
    """Change pixel size, roles, labels or conditions of STORE; images and embeddings stay.

    \b
    zarrloc annotate my.zarr --pixel-size-um 0.325
    zarrloc annotate my.zarr --channels protein,nucleus
    zarrloc annotate my.zarr --conditions plate.xlsx
    """
    from zarrloc.stages.annotate import annotate

    names = [name.strip() for name in channels.split(",")] if channels else []
    return report(
        annotate(
            store,
            pixel_size_um=pixel_size_um,
            channels=names,
            labels=labels,
            cell_lines=cell_lines,
            conditions=conditions,
            label_names=label_names,
        )
    )
