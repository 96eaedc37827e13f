"""`zarrloc info`."""

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import JSON, tell, wants


@click.command(cls=Command)
@click.argument("store")
@click.option("--errors", is_flag=True, help="Name every row that failed, and why.")
def command(store: str, errors: bool) -> None:
    """Say what STORE holds and how far its stages are.

    \b
    zarrloc info oc.zarr --errors
    """
    from zarrloc.store.info import info, lines

    described = info(store, errors=errors)
    tell(described, () if wants(JSON) else lines(described))
