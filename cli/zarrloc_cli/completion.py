"""`zarrloc completion`."""

import click

from zarrloc_cli.commands import Command

FILES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/zarrloc.fish"}


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(list(FILES)))
def command(shell: str) -> None:
    """Print what sets up tab completion in SHELL.

    It completes commands, options, and the names that a store has: embeddings, segmentations,
    splits, heads, channels, proteins.

    \b
    zarrloc completion bash >> ~/.bashrc
    zarrloc completion zsh >> ~/.zshrc
    zarrloc completion fish > ~/.config/fish/completions/zarrloc.fish
    """
    from click.shell_completion import get_completion_class

    from zarrloc_cli.main import zarrloc

    kind = get_completion_class(shell)
    assert kind is not None, f"click completes {shell}"
    click.echo(kind(zarrloc, {}, "zarrloc", "_ZARRLOC_COMPLETE").source())
