"""Ctrl-C and SIGTERM, whatever the process inherited of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

COMMAND = """
import sys, time
import click
from zarrloc_cli import main as cli

@click.command()
def command():
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("cleaning up", flush=True)
        time.sleep(float(sys.argv[1]))

cli.Commands.get_command = lambda *_: command
cli.main(["info"])
"""


def _ignoring() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _default() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


INHERITED = [_ignoring, _default]


def _started(inherited: Callable[[], None], cleaning_s: float) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(cleaning_s)],
        preexec_fn=inherited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("inherited", INHERITED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_any_command_in_one_line(
    number: signal.Signals, inherited: Callable[[], None]
) -> None:
    process = _started(inherited, 0)
    os.kill(process.pid, number)
    os.kill(process.pid, number)  # a terminal and a launcher both send it
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "cleaning up\n")
    # click ends the line that shows ^C.
    assert said.strip() == "zarrloc: stopped; the same command continues from here"


@pytest.mark.parametrize("inherited", INHERITED)
def test_a_second_ctrl_c_ends_it_at_once(inherited: Callable[[], None]) -> None:
    process = _started(inherited, 60)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning up\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said == "zarrloc: ended at once; the same command continues from here\n"
