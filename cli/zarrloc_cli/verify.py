"""`zarrloc verify`."""

import click


@click.command()
@click.argument("store")
@click.option("--deep", is_flag=True, help="Decode every block and compare its values' digest.")
@click.option("--repair", is_flag=True, help="Mark bad blocks as not done and remove debris.")
def command(store: str, deep: bool, repair: bool) -> int:
    """Compare STORE with the receipts of its runs.

    \b
    zarrloc verify oc.zarr --deep
    """
    from zarrloc.engine.verify import verify

    bad = 0
    for found in verify(store, deep=deep, repair=repair):
        click.echo(
            f"{found.group}: {found.blocks} blocks, {found.undone} not done, {len(found.bad)} bad, "
            f"{len(found.debris)} left-over files"
        )
        for block, problem in found.bad.items():
            click.echo(f"  block {block}: {problem}")
        bad += len(found.bad) + len(found.debris)
    if bad and not repair:
        click.echo(
            "`--repair` marks them as not done; the same ingest, segment or embed redoes them"
        )
    return 3 if bad and not repair else 0
