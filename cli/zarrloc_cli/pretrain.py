"""`zarrloc pretrain`."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from zarrloc.config.pretrain import PretrainConfig
from zarrloc_cli.commands import Command
from zarrloc_cli.options import config_options
from zarrloc_cli.output import say, speaker


@click.command(cls=Command)
@click.argument("store")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file of settings; flags override it.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and train nothing.")
@click.option("--overwrite", is_flag=True, help="Discard the run in OUT and start again.")
@click.option(
    "--from",
    "start",
    default=PretrainConfig.model_fields["start"].default,
    show_default=True,
    help=PretrainConfig.model_fields["start"].description,
)
@config_options(PretrainConfig, skip=["start"])
@click.pass_context
def command(
    context: click.Context,
    /,
    store: str,
    out: Path,
    file: Path | None,
    dry_run: bool,
    overwrite: bool,
    **options: Any,
) -> int:
    """Train a backbone on the fields or cells of STORE by self-supervision.

    \b
    zarrloc pretrain oc.zarr --from dino-vits8 --channels protein=1,nucleus=2 --split paper --out ft
    zarrloc embed oc.zarr --backbone ft --name finetuned
    """
    given = {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    config = PretrainConfig.of({**_settings(file), **given})
    from zarrloc.stages.pretrain import plan, pretrain

    if dry_run:
        say(plan(store, config))
        return 0
    return pretrain(store, out, config, overwrite=overwrite, say=speaker())


def _settings(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    from zarrloc.config.settings_file import read_settings

    settings = read_settings(file)
    return {"start" if name == "from" else name: value for name, value in settings.items()}
