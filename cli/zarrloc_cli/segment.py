"""`zarrloc segment`."""

from typing import Any

import click

from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--name", required=True, help="Name of the segmentation, and of its cells.")
@config_options(SegmentConfig)
@click.option(
    "--crop-um",
    type=float,
    help="Side of a cell's crop window in micrometres; "
    "default: the paper's 53 um, or 256 px where the store has no pixel size.",
)
@click.option(
    "--keep-percentile",
    type=float,
    help="Keep cells up to this percentile of blank_fraction, not up to 0.997.",
)
@click.option("--block-cells", type=click.IntRange(1), help="Rows in one block of the cell table.")
@click.option("--overwrite", is_flag=True, help="Replace both if they exist.")
@config_options(RunConfig)
def command(store: str, name: str, overwrite: bool, **options: Any) -> int:
    """Segment the fields of STORE, and measure the cells found.

    \b
    zarrloc segment oc.zarr --model watershed --name ws
    """
    config, run, table = split(options, SegmentConfig, RunConfig)
    from zarrloc.stages.segment import segment

    summaries = segment(store, config, name, run=run, overwrite=overwrite, **table)
    return report(*summaries)
