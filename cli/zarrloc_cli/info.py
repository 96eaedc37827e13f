"""`zarrloc info`."""

import json

import click


@click.command()
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
@click.option("--errors", is_flag=True, help="Name every row that failed, and why.")
def command(store: str, as_json: bool, errors: bool) -> None:
    """Say what STORE holds and how far its stages are.

    \b
    zarrloc info oc.zarr --errors
    """
    from zarrloc.store.info import info, lines

    described = info(store, errors=errors)
    click.echo(json.dumps(described, indent=2) if as_json else "\n".join(lines(described)))
