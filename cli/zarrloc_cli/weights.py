"""`zarrloc weights`."""

from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import JSON, QUIET, tell, wants


@click.group(name="weights")
def command() -> None:
    """Fetch published weights, copy them from elsewhere, check them, find them.

    ZARRLOC_WEIGHTS names the folder they lie in, such as one that all nodes of a cluster see.

    \b
    zarrloc weights list
    zarrloc weights fetch dino-vits8 cyto3
    """


@command.command(name="list", cls=Command)
def list_() -> None:
    """List them: what is here, the licence, whom to cite.

    \b
    zarrloc weights list
    """
    from rich.console import Console
    from rich.table import Table

    from zarrloc.models import fetch
    from zarrloc.stages.weights import listed

    if wants(JSON) or wants(QUIET):
        tell({one.name: vars(one) for one in listed()}, ())
        return
    table = Table("name", "here", "licence", "cite")
    for one in listed():
        here = f"{one.megabytes:.0f} MB" if one.here else "on request" if one.note else ""
        table.add_row(one.name, here, one.licence, one.citation)
    Console().print(table)
    click.echo(f"in {fetch.folder()} (ZARRLOC_WEIGHTS names another folder)")


@command.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, exists=True),
    help="Folder to copy the files from, on a machine without internet.",
)
def fetch(names: tuple[str, ...], source: Path | None) -> None:
    """Fetch the weights NAME, or copy them --from a folder.

    \b
    zarrloc weights fetch dino-vits8 cyto3
    """
    from zarrloc.stages.weights import fetch_all

    paths = [str(path) for path in fetch_all(names, source)]
    tell({"paths": paths}, paths)


@command.command(cls=Command)
def verify() -> int:
    """Compare every file that is here with its checksum.

    \b
    zarrloc weights verify
    """
    from zarrloc.stages.weights import verify as checked

    found = checked()
    lines = [f"{path} {problem or 'is whole'}" for path, problem in found.items()]
    tell(
        {str(path): problem for path, problem in found.items()},
        lines or ["no published weights are here"],
    )
    return 3 if any(found.values()) else 0


@command.command(cls=Command)
@click.argument("name")
def path(name: str) -> None:
    """Print where the files of NAME lie, or would.

    \b
    zarrloc weights path dino-vits8
    """
    from zarrloc.stages.weights import find

    paths = [str(file) for file in find([name])[0].paths]
    tell({"paths": paths}, paths)
