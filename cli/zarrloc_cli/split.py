"""`zarrloc split`."""

from typing import Any

import click

from zarrloc.config.split import SplitConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--name", required=True, help="Name of the split in the store.")
@click.option("--overwrite", is_flag=True, help="Replace what has that name.")
@config_options(SplitConfig)
def command(store: str, name: str, overwrite: bool, **options: Any) -> int:
    """Deal the fields of STORE into folds, and a test set with --test.

    \b
    zarrloc split oc.zarr --name grouped
    zarrloc split oc.zarr --name paper --test 0.1 --folds 5 --group image
    """
    config = SplitConfig.of(options)
    from zarrloc.stages.split import split

    return report(split(store, config, name, overwrite=overwrite))
