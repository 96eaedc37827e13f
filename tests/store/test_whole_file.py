"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from zarrloc.store.whole_file import replacing


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("x", b"new")]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("x", b"old")]


class Full:
    """A file on a disk that has no room left."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(data))

    def flush(self) -> None:
        self.file.flush()


def test_a_full_disk_is_called_that_by_pytorchs_writer_too(tmp_path: Path) -> None:
    def save() -> None:
        with replacing(tmp_path / "x.pt") as file:
            torch.save({"w": torch.zeros(10_000)}, Full(file, room=5_000))

    with pytest.raises(OSError, match="No space left"):
        save()
    assert list(tmp_path.iterdir()) == []
