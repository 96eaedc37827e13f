"""`zarrloc annotate`."""

import click

from zarrloc_cli.options import report


@click.command()
@click.argument("store")
@click.option("--pixel-size-um", type=float, help="Side of a pixel in micrometres.")
@click.option("--channels", help="A role for each channel, such as nucleus,protein.")
def command(store: str, pixel_size_um: float | None, channels: str | None) -> int:
    """Change what STORE says beside its pixels; images, masks and embeddings stay as they are.

    \b
    zarrloc annotate my.zarr --pixel-size-um 0.325
    zarrloc annotate my.zarr --channels protein,nucleus
    """
    from zarrloc.stages.annotate import annotate

    names = [name.strip() for name in channels.split(",")] if channels else []
    return report(annotate(store, pixel_size_um=pixel_size_um, channels=names))
