"""What a stranger's files and names could do: nothing runs, nothing ends in a traceback."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from zarrloc_cli import main as cli

from zarrloc.errors import (
    ClusterError,
    ConfigError,
    LockedError,
    RunError,
    StoreError,
    WeightsError,
    WorkerError,
)
from zarrloc.models.weights import read_tensors
from zarrloc.store.attrs import check_name
from zarrloc.store.location import Location

RUN = "from zarrloc_cli.main import main; main()"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_does_not_run(zipped: bool, tmp_path: Path) -> None:
    import torch

    owned, file = tmp_path / "owned", tmp_path / "w.pth"
    content = {"teacher": {"backbone.norm.weight": Payload(owned)}}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError):
        read_tensors(file)
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError):
        read_tensors(file)
    assert not owned.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "zarr.json", "x" * 300, "a\0", "a\n", "é"]
)
def test_a_name_that_is_no_group_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a group"):
        check_name(name)


@pytest.mark.parametrize("where", ["/", "file:///", "file://"])
def test_the_root_of_the_file_system_is_no_store(where: str) -> None:
    with pytest.raises(StoreError, match="is the root of the file system"):
        Location.of(where)


def test_a_file_url_is_a_local_path(tmp_path: Path) -> None:
    assert Location.of(f"file://{tmp_path}/a%20b.zarr").path == tmp_path.resolve() / "a b.zarr"


def _obstore_error() -> Exception:
    from obstore.exceptions import UnauthenticatedError

    return UnauthenticatedError("The key has expired\n<xml>")


def _zarr_error() -> Exception:
    from zarr.errors import GroupNotFoundError

    return GroupNotFoundError("no group")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/s/c/0"), 1, "/s/c/0: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/s"), 2, "who may read and write"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/s"), 2, "still there"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "ulimit -n"),
        (OSError(errno.ESTALE, "Stale file handle"), 1, "the same command continues"),
        (json.JSONDecodeError("Expecting value", "", 0), 2, "zarrloc verify STORE"),
        (MemoryError(), 1, "out of memory"),
        (_obstore_error(), 1, "The key has expired; the same command continues"),
        (LockedError("'fovs' is being written by run x"), 4, "is being written by run x"),
        (WorkerError("no worker is left"), 1, "no worker is left"),
        (RunError("the first 8 blocks all failed"), 1, "8 blocks"),
        (ClusterError("no CUDA cluster here"), 2, "no CUDA"),
        (_zarr_error(), 2, "zarrloc verify STORE"),
        (ConfigError("no", {"shard_fovs": "too small"}), 2, "--shard-fovs: too small"),
    ],
)
def test_a_foreseeable_fault_is_one_line(
    error: Exception,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: command)
    with pytest.raises(SystemExit) as ended:
        cli.main(["info"])
    said = capsys.readouterr().err
    assert ended.value.code == code
    assert words in said
    assert said.count("\n") == 1


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def command() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: command)
    with pytest.raises(AssertionError, match="a bug"):
        cli.main(["info"])


@pytest.mark.parametrize("content", ["", "{", '{"zarr_format": 3}'])
def test_a_damaged_root_is_no_traceback(content: str, tmp_path: Path) -> None:
    store = tmp_path / "x.zarr"
    store.mkdir()
    (store / "zarr.json").write_text(content)
    for command in (["info"], ["verify"]):
        done = subprocess.run(
            [sys.executable, "-c", RUN, command[0], str(store), *command[1:]],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
