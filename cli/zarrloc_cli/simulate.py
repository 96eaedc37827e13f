"""`zarrloc simulate`: OpenCell-like data of known truth."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.simulate import SimulateConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import tell


@click.command("simulate", cls=Command)
@click.argument("out", type=click.Path(path_type=Path))
@config_options(SimulateConfig)
def command(out: Path, **settings: Any) -> None:
    """Write OpenCell-like images, label tables and truth to the folder OUT.

    \b
    zarrloc simulate sim --proteins 34 --fovs-per-protein 4 --seed 1
    """
    import zarrloc.simulate

    summary = zarrloc.simulate.simulate(out, SimulateConfig.of(settings))
    counts = f"{summary.fovs} fields of {summary.proteins} proteins, {summary.cells} cells"
    tell(vars(summary), [f"{counts} -> {summary.out}"])
