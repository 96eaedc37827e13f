"""`zarrloc label`: an expert's judgements of single cells, out as sheets and back as a table."""

from pathlib import Path
from typing import Literal

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import tell


@click.command("label", cls=Command)
@click.argument("store")
@click.option("--cells", required=True, metavar="NAME", help="The cell table the labels are of.")
@click.option("--csv", type=click.Path(path_type=Path), help="Table to bring into the store.")
@click.option(
    "--export-sheet",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write numbered contact sheets and an empty table here.",
)
@click.option(
    "--select",
    type=click.Choice(["all", "paper"]),
    default="all",
    show_default=True,
    help="Fields to export: all, or the paper's choice (grade 3 only, single labels and the "
    "commonest combinations, without big_aggregates).",
)
@click.option(
    "--fields",
    type=click.IntRange(min=1),
    help="How many fields to export.  [default: all; 41 for paper]",
)
def command(
    store: str,
    cells: str,
    csv: Path | None,
    export_sheet: Path | None,
    select: Literal["all", "paper"],
    fields: int | None,
) -> None:
    """Let an expert judge single cells of STORE: --export-sheet first, then --csv.

    The table has a row a cell and two ticks, yes or no: `whole` (is it one whole cell) and
    `confirmed` (do the image's labels hold for it); `labels`, separated by ;, overrules them. A
    table of your own needs `fov` and either `mask_label` or `y` and `x` in pixels. Rows left blank
    are skipped. Any row that cannot be used stops the import before anything is written.

    \b
    zarrloc label oc.zarr --cells cp --export-sheet sheets --select paper
    zarrloc label oc.zarr --cells cp --csv sheets/cells.csv
    """
    if (csv is None) == (export_sheet is None):
        raise click.UsageError("give either --csv or --export-sheet")
    if export_sheet is not None:
        from zarrloc.report.sheets import export_sheets

        count, total = export_sheets(store, cells, export_sheet, select=select, fields=fields)
        line = f"{count} sheets and cells.csv with {total} cells -> {export_sheet}"
        tell({"sheets": count, "cells": total, "out": export_sheet}, [line])
    elif csv is not None:
        from zarrloc.stages import label as stage

        summary = stage.label(store, cells, csv)
        line = (
            f"{summary.seen} cells judged ({summary.whole} whole, {summary.confirmed} confirmed), "
            f"{summary.blank} rows left blank -> cells/{cells}"
        )
        tell(vars(summary), [line])
