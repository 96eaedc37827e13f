"""`zarrloc outliers`."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import report


@click.command(cls=Command)
@click.argument("store")
@click.option(
    "--embedding", help="Embedding that replicates are compared by.  [default: the first of fields]"
)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write the table here.")
def command(store: str, embedding: str | None, csv: Path | None) -> int:
    """Name fields of STORE that are out of focus, empty, saturated or unlike their replicates.

    \b
    zarrloc outliers oc.zarr --csv look-at-these.csv
    """
    from zarrloc.stages.outliers import outliers

    found = outliers(store, embedding=embedding)
    if csv is not None:
        found.table.to_csv(csv, index=False)
    return report(found)
