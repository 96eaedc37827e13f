"""`zarrloc verify`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from zarrloc.config.run import RunConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options, split
from zarrloc_cli.output import tell

if TYPE_CHECKING:
    from zarrloc.engine.verify import Finding


@click.command(cls=Command)
@click.argument("store")
@click.option("--deep", is_flag=True, help="Decode every block and compare its values' digest.")
@click.option(
    "--repair",
    is_flag=True,
    help="Rebuild what can be rebuilt; mark bad blocks as not done.",
)
@config_options(RunConfig, skip=("retry_failed",))
def command(store: str, deep: bool, repair: bool, **options: Any) -> int:
    """Compare STORE with the receipts of its runs.

    \b
    zarrloc verify oc.zarr --deep
    """
    from zarrloc.engine.verify import verify

    (run, _) = split(options, RunConfig)
    findings = verify(store, deep=deep, repair=repair, run=run)
    tell({"findings": findings}, _lines(findings, repair))
    lost = any(found.lost for found in findings)
    return 3 if lost or (not repair and any(found.faults for found in findings)) else 0


def _lines(findings: "Sequence[Finding]", repair: bool) -> Iterator[str]:
    for found in findings:
        yield (
            f"{found.group}: {found.blocks} blocks, {found.undone} not done, {len(found.bad)} bad, "
            f"{len(found.damaged)} parts damaged, {len(found.lost)} lost, "
            f"{len(found.debris)} left-over files"
        )
        for block, problem in found.bad.items():
            yield f"  block {block}: {problem}"
        for part, problem in (found.damaged | found.lost).items():
            yield f"  {part}: {problem}"
    if not repair and any(found.faults > len(found.lost) for found in findings):
        yield (
            "`--repair` rebuilds what it can and marks bad blocks as not done; the same ingest, "
            "segment or embed does them again"
        )
