"""`zarrloc init`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.ingest import IngestConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("source")
@click.option("--store", default="my.zarr", show_default=True, help="Where the script will write.")
@click.option(
    "--script",
    type=click.Path(path_type=Path),
    default=Path("zarrloc.sh"),
    show_default=True,
    help="The script to write.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Table of labels; default: one beside the images that matches them.",
)
@click.option(
    "--conditions",
    type=click.Path(path_type=Path),
    help="Table or plate map of conditions; default: one beside the images that matches them.",
)
@click.option(
    "--label-names",
    type=click.Path(path_type=Path),
    help="What labels are called: a table of label and name, or hpa-2018 or hpa-2021.",
)
@click.option("--overwrite", is_flag=True, help="Replace the script.")
@click.option("--unsigned", is_flag=True, help="Read a public object store without credentials.")
@config_options(IngestConfig)
def command(source: str, **options: Any) -> int:
    """Look at SOURCE, say what it holds, and write the commands to run as a short script.

    \b
    zarrloc init plate/ --store plate.zarr
    sh zarrloc.sh
    """
    from zarrloc.stages.init import init

    config, rest = split(options, IngestConfig)
    return report(init(source, config, **rest))
