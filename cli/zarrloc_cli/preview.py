"""`zarrloc preview`: a contact sheet of fields with their masks."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.options import CommaSeparated
from zarrloc_cli.output import tell


@click.command("preview", cls=Command)
@click.argument("store")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Picture to write.")
@click.option("--segmentation", metavar="NAME", help="Outline the masks of this segmentation.")
@click.option(
    "--fovs",
    type=CommaSeparated(),
    default=(),
    help="Names of the fields to show.  [default: up to 24, evenly spaced]",
)
def command(store: str, out: Path, segmentation: str | None, fovs: tuple[str, ...]) -> None:
    """Draw fields of STORE in colour, with mask outlines, names and a scale bar.

    Contrast is stretched per image and channel for display; the store is only read.

    \b
    zarrloc preview oc.zarr --segmentation cp --out cp.png
    """
    from zarrloc.report.preview import preview

    shown = preview(store, out, segmentation=segmentation, fovs=fovs)
    tell({"out": out, "fovs": shown}, [f"{len(shown)} fields -> {out}"])
