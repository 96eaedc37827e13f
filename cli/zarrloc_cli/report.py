"""`zarrloc report`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.report import ReportConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="The HTML file to write.",
)
@config_options(ReportConfig)
def command(store: str, out: Path, **options: Any) -> int:
    """Write one self-contained HTML page about STORE: map, scores, pictures, provenance.

    \b
    zarrloc report oc.zarr --out report.html
    """
    config = ReportConfig.of(options)
    from zarrloc.report.write import write_report

    return report(write_report(store, out, config))
