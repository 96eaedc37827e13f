"""`zarrloc similar`."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option("--protein", required=True, help="The protein to compare the others with.")
@click.option("--embedding", help="Which embedding.  [default: the first]")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="How many.")
@click.option("--out", type=click.Path(path_type=Path), help="Also draw a strip of pictures.")
def command(store: str, protein: str, embedding: str | None, top: int, out: Path | None) -> int:
    """Find the proteins of STORE that look most like one. Nothing is trained.

    \b
    zarrloc similar oc.zarr --protein ACTB --out like-actb.png
    """
    from zarrloc.stages.similar import similar

    return report(similar(store, protein, embedding=embedding, top=top, out=out))
