"""`zarrloc backbones`."""

import click


@click.command()
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
    Console().print(table)
    click.echo(
        "classic: no network, but texture, granularity, Zernike and correlation features.\n"
        "Any other: timm:MODEL, or a directory written by `zarrloc pretrain`. --weights takes a "
        "file, or random:SEED. Channel maps: natural, replicate, ROLE=INPUT,..."
    )
