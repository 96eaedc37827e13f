"""`zarrloc simulate`: OpenCell-like data of known truth."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.simulate import SimulateConfig
from zarrloc_cli.options import config_options


@click.command("simulate", short_help="Write OpenCell-like fields of known truth.")
@click.argument("out", type=click.Path(path_type=Path))
@config_options(SimulateConfig)
def command(out: Path, **settings: Any) -> None:
    """Write OpenCell-like images, label tables and truth to the folder OUT.

    \b
    Example: zarrloc simulate sim --proteins 34 --fovs-per-protein 4 --seed 1
    """
    import zarrloc.simulate

    summary = zarrloc.simulate.simulate(out, SimulateConfig.of(settings))
    click.echo(
        f"{summary.fovs} fields of {summary.proteins} proteins, "
        f"{summary.cells} cells -> {summary.out}"
    )
