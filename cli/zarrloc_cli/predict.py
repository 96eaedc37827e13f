"""`zarrloc predict`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.evaluate import PredictConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@config_options(PredictConfig)
@click.option("--name", help="Name of the predictions in STORE; default: the head's.")
@click.option("--overwrite", is_flag=True, help="Replace the predictions of that name.")
@click.option(
    "--csv",
    "out",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Also write a table here; - is standard output.",
)
def command(store: str, name: str | None, overwrite: bool, out: Path | None, **options: Any) -> int:
    """Send an embedding of STORE through a head that was trained in another store.

    \b
    zarrloc predict new.zarr --head oc.zarr/heads/head --embedding dino --csv calls.csv
    """
    config = PredictConfig.of(options)
    from zarrloc.stages.predict import predict

    return report(predict(store, config, name, overwrite=overwrite, out=out))
