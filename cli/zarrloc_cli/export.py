"""`zarrloc export`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.export import ExportConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.argument("what")
@click.argument("out", type=click.Path(path_type=Path))
@config_options(ExportConfig)
@click.option("--overwrite", is_flag=True, help="Replace what is at OUT.")
def command(store: str, what: str, out: Path, overwrite: bool, **options: Any) -> int:
    """Write WHAT of STORE to OUT: a table, AnnData, SpatialData, OME-Zarr.

    WHAT is a group: fovs, embeddings/NAME, cells/NAME, heads/NAME or splits/NAME;
    for images fovs, with every segmentation as labels, or segmentations/NAME, with that one.
    SpatialData takes both kinds. OUT's ending says the format (.csv, .parquet, .xlsx, .h5ad),
    or --to does. The store is only read.

    \b
    zarrloc export oc.zarr heads/head calls.xlsx
    zarrloc export oc.zarr embeddings/dino dino.h5ad
    zarrloc export oc.zarr cells/ws cells.zarr --to spatialdata
    zarrloc export oc.zarr fovs plate.zarr --to ome-zarr
    """
    config = ExportConfig.of(options)
    from zarrloc.exports.export import export

    return report(export(store, what, out, config=config, overwrite=overwrite))
