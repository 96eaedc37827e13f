"""`zarrloc`: finds the command, runs it, and turns zarrloc's own errors into one line."""

import logging
import sys
import threading
from typing import Any

import click

from zarrloc_cli import stops
from zarrloc_cli.commands import Commands
from zarrloc_cli.faults import FAILED, explain
from zarrloc_cli.output import color

# In the order of the work. Each is a module here that exposes `command`.
COMMANDS = {
    "Images in": {
        "init": "Look at a folder; write the commands to run.",
        "ingest": "Read images into a store.",
        "annotate": "Set pixel size or channel roles of a store.",
        "label": "Bring in an expert's labels of single cells.",
    },
    "Cells, embeddings, predictions": {
        "segment": "Find the cells of every field.",
        "embed": "Turn fields or cells into feature vectors.",
        "split": "Deal fields into folds and a test set.",
        "train": "Train a classification head.",
        "evaluate": "Score a head or nearest neighbours.",
        "predict": "Send new images through a trained head.",
        "pretrain": "Train a backbone without labels.",
    },
    "Look": {
        "info": "Say what a store holds and what failed.",
        "similar": "Find proteins that look alike.",
        "outliers": "Name fields that are blurred, empty or odd.",
        "preview": "Draw a contact sheet of fields and masks.",
        "report": "Write an HTML page: map, scores, pictures.",
    },
    "Out, and care": {
        "export": "Write tables, AnnData, SpatialData, OME-Zarr.",
        "verify": "Find damage, and repair it.",
        "backbones": "List the networks there are.",
        "weights": "Fetch, copy, check published weights.",
        "completion": "Set up tab completion of a shell.",
    },
    "Try, and reproduce": {
        "demo": "Run the main job on simulated fields.",
        "simulate": "Write OpenCell-like fields of known truth.",
        "plan": "Say what `reproduce` would do and take.",
        "reproduce": "Run a paper's tables beside its figures.",
    },
}


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from zarrloc import __version__

    built_on = [f"Python {platform.python_version()}"]
    for name in ("numpy", "zarr", "xarray", "dask", "torch", "timm"):
        try:
            built_on.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            built_on.append(f"no {name}")
    click.echo(f"zarrloc, version {__version__}\n{', '.join(built_on)}; {platform.platform()}")
    ctx.exit()


@click.group(
    cls=Commands,
    listed=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`zarrloc COMMAND --help` has examples.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version, and what it runs on.",
)  # fmt: skip
def zarrloc() -> None:
    """Protein localization in fluorescence microscopy, from images to predictions."""


class _Stderr(logging.Handler):
    """Writes each message as one plain line to the current standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        click.echo(record.getMessage(), err=True)


def log_to_stderr() -> None:
    """Show what the library logs, such as where the dashboard is, beside the command's output."""
    log = logging.getLogger("zarrloc")
    if not any(isinstance(handler, _Stderr) for handler in log.handlers):
        log.addHandler(_Stderr())
    log.setLevel(logging.INFO)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 all done; 2 refused; 3 some items failed; 4 locked by another run; 1 the rest.
    """
    if threading.current_thread() is threading.main_thread():
        stops.handle(FAILED)
    log_to_stderr()
    try:
        result: Any = zarrloc.main(
            arguments, prog_name="zarrloc", standalone_mode=False, color=color()
        )
    except click.exceptions.Exit as request:
        sys.exit(request.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("zarrloc: stopped; the same command continues from here", err=True)
        sys.exit(FAILED)
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        click.echo(f"zarrloc: {explained[0]}", err=True)
        sys.exit(explained[1])
    sys.exit(result if isinstance(result, int) else 0)
