"""`zarrloc preview`: a contact sheet of fields with their masks."""

from pathlib import Path

import click

from zarrloc_cli.options import CommaSeparated


@click.command("preview", short_help="Draw a contact sheet of fields and masks.")
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
    Example: zarrloc preview oc.zarr --segmentation cp --out cp.png
    """
    from zarrloc.report.preview import preview

    shown = preview(store, out, segmentation=segmentation, fovs=fovs)
    click.echo(f"{len(shown)} fields -> {out}")
