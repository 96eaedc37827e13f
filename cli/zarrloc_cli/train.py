"""`zarrloc train`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.train import TrainConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--name", required=True, help="Name of the head in the store.")
@click.option("--overwrite", is_flag=True, help="Replace what has that name.")
@config_options(TrainConfig)
@click.option("--save", type=click.Path(path_type=Path), help="Also save a safetensors file.")
def command(store: str, name: str, overwrite: bool, save: Path | None, **options: Any) -> int:
    """Train a classification head on an embedding of STORE, every fold of a split at once.

    \b
    zarrloc train oc.zarr --embedding dino --split paper --name head
    """
    config = TrainConfig.of(options)
    from zarrloc.stages.train import train

    return report(train(store, config, name, overwrite=overwrite, save=save))
