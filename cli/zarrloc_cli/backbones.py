"""`zarrloc backbones`."""

import json
from dataclasses import asdict

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import JSON, QUIET, say, wants


@click.command(cls=Command)
def command() -> None:
    """List the backbones: inputs, patch, features, default channels, where weights come from.

    \b
    zarrloc backbones
    """
    from rich.console import Console
    from rich.table import Table

    from zarrloc.models.specs import SPECS

    table = Table("name", "inputs", "patch", "features", "channels", "weights", "licence")
    for spec in SPECS.values():
        inputs = ", ".join(f"{index} {role}" for index, role in enumerate(spec.roles))
        table.add_row(
            spec.name, inputs, str(spec.patch), str(spec.features), spec.default_channels,
            spec.source, spec.licence,
        )  # fmt: skip
    if wants(JSON):
        click.echo(json.dumps({name: asdict(spec) for name, spec in SPECS.items()}))
        return
    if wants(QUIET):
        return
    Console().print(table)
    say(
        "classic: no network, but texture, granularity, Zernike and correlation features.\n"
        "Any other: timm:MODEL, or a directory written by `zarrloc pretrain`. --weights takes a "
        "file, or random:SEED. Channel maps: natural, replicate, ROLE=INPUT,..."
    )
