"""`zarrloc`: finds the command, runs it, and turns zarrloc's own errors into one line."""

import importlib
import importlib.util
import logging
import sys
import threading
from typing import Any

import click

from zarrloc_cli import stops
from zarrloc_cli.faults import FAILED, explain

# In the order of the work. Each is a module here that exposes `command`.
COMMANDS = (
    "demo",
    "simulate",
    "init",
    "ingest",
    "annotate",
    "segment",
    "label",
    "embed",
    "split",
    "train",
    "evaluate",
    "predict",
    "pretrain",
    "preview",
    "report",
    "plan",
    "reproduce",
    "export",
    "info",
    "verify",
    "backbones",
    "weights",
)


class Commands(click.Group):
    """Imports a command's module only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the work."""
        return [name for name in COMMANDS if importlib.util.find_spec(f"zarrloc_cli.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"zarrloc_cli.{cmd_name}").command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zarrloc")
def zarrloc() -> None:
    """Protein localization in fluorescence microscopy: TIFFs to embeddings to predictions."""


def log_to_stderr() -> None:
    """Show what the library logs, such as where the dashboard is, beside the command's output."""
    log = logging.getLogger("zarrloc")
    if not log.handlers:
        log.addHandler(_Stderr())
        log.setLevel(logging.INFO)


class _Stderr(logging.Handler):
    """One plain line a message, to what standard error is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write it."""
        click.echo(record.getMessage(), err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Exit codes: 0 all done; 2 refused; 3 some items failed; 4 locked by another run; 1 the rest.
    """
    if threading.current_thread() is threading.main_thread():
        stops.handle(FAILED)
    log_to_stderr()
    try:
        result: Any = zarrloc.main(arguments, standalone_mode=False)
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
