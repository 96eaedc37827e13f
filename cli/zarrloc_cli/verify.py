"""`zarrloc verify`."""

from typing import Any

import click

from zarrloc.config.run import RunConfig
from zarrloc_cli.options import config_options, split


@click.command()
@click.argument("store")
@click.option("--deep", is_flag=True, help="Decode every block and compare its values' digest.")
@click.option(
    "--repair",
    is_flag=True,
    help="Rebuild what can be; mark bad blocks as not done.",
)
@config_options(RunConfig, skip=("retry_failed",))
def command(store: str, deep: bool, repair: bool, **options: Any) -> int:
    """Compare STORE with the receipts of its runs.

    \b
    zarrloc verify oc.zarr --deep
    """
    from zarrloc.engine.verify import verify

    faults = lost = 0
    (run, _) = split(options, RunConfig)
    for found in verify(store, deep=deep, repair=repair, run=run):
        click.echo(
            f"{found.group}: {found.blocks} blocks, {found.undone} not done, {len(found.bad)} bad, "
            f"{len(found.damaged)} parts damaged, {len(found.lost)} lost, "
            f"{len(found.debris)} left-over files"
        )
        for block, problem in found.bad.items():
            click.echo(f"  block {block}: {problem}")
        for part, problem in (found.damaged | found.lost).items():
            click.echo(f"  {part}: {problem}")
        faults += found.faults
        lost += len(found.lost)
    if faults > lost and not repair:
        click.echo(
            "`--repair` rebuilds what it can and marks bad blocks as not done; the same ingest, "
            "segment or embed does them again"
        )
    return 3 if lost or (faults and not repair) else 0
