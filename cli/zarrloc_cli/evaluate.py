"""`zarrloc evaluate`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import JSON, tell, wants


@click.command(cls=Command)
@click.argument("store")
@config_options(EvaluateConfig)
@click.option("--figures", type=click.Path(path_type=Path), help="Also draw PNG and SVG figures.")
def command(store: str, figures: Path | None, **options: Any) -> None:
    """Score a head of STORE, or the nearest neighbours of an embedding.

    \b
    zarrloc evaluate oc.zarr --head head
    zarrloc evaluate oc.zarr --embedding dino --knn 1,3,5,10,20 --exclude-same protein
    """
    config = EvaluateConfig.of(options)
    from zarrloc.scoring.scorecard import lines
    from zarrloc.stages.evaluate import evaluate

    result = evaluate(store, config)
    if figures is not None:
        from zarrloc.report.paper_figures import score_figures

        score_figures(result, figures)
    tell(result, () if wants(JSON) else lines(result))
