"""`zarrloc embed`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.run import RunConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--name", required=True, help="Name of the embedding in the store.")
@click.option("--overwrite", is_flag=True, help="Replace what has that name.")
@click.option(
    "--figures", type=click.Path(path_type=Path), help="Also draw its map as PNG and SVG."
)
@config_options(EmbedConfig)
@config_options(RunConfig)
def command(store: str, name: str, overwrite: bool, figures: Path | None, **options: Any) -> int:
    """Embed the fields of STORE with a backbone.

    \b
    zarrloc embed oc.zarr --backbone dino-vits8 --name dino
    """
    config, run, _ = split(options, EmbedConfig, RunConfig)
    from zarrloc.stages.embed import embed

    summary = embed(store, config, name, run=run, overwrite=overwrite)
    if figures is not None:
        from zarrloc.config.report import ReportConfig
        from zarrloc.report.paper_figures import embedding_figures

        embedding_figures(store, name, figures, ReportConfig())
    return report(summary)
