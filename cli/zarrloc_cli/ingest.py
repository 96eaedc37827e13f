"""`zarrloc ingest`."""

from pathlib import Path
from typing import Any

import click

from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split, tables
from zarrloc_cli.output import report, say


@click.command(cls=Command)
@click.argument("source", metavar="[SOURCE]")
@click.argument("store", metavar="STORE", required=False)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="CSV of files: path, channel, fov and columns to keep; instead of SOURCE.",
)
@tables
@click.option("--overwrite", is_flag=True, help="Replace the fields that the store holds.")
@click.option("--rehash", is_flag=True, help="Compare files by content, not by size and time.")
@click.option(
    "--dry-run", is_flag=True, help="Show the first ten fields as they are understood; read none."
)
@click.option("--unsigned", is_flag=True, help="Read a public object store without credentials.")
@config_options(IngestConfig)
@config_options(RunConfig)
def command(source: str | None, store: str | None, dry_run: bool, **options: Any) -> int:
    """Read images of SOURCE (folder, glob, object store), or of a --manifest, into STORE.

    \b
    zarrloc ingest images/ oc.zarr --channels nucleus,protein --labels labels.csv
    zarrloc ingest plate/ oc.zarr --channels w1=nucleus,w2=protein --project max --dry-run
    """
    if dry_run:
        from zarrloc.images.look import look

        config, _, rest = split(options, IngestConfig, RunConfig)
        asked = {name: rest[name] for name in ("manifest", "unsigned")}
        alone = store is None and asked["manifest"] is not None
        return report(look(None if alone else source, config, **asked))
    if store is None:
        source, store = None, source
        if options["manifest"] is None or store is None:
            raise click.UsageError("give SOURCE and STORE, or STORE and --manifest")
    from zarrloc.stages.ingest import failures, ingest

    config, run, rest = split(options, IngestConfig, RunConfig)
    summary = ingest(source, store, config, run=run, **rest)
    if summary.rows_failed:
        say(failures(store))
    return report(summary)
