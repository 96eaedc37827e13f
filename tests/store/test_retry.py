import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers import SILENT, Answers, serving
from zarrloc.errors import RemoteError, SourceError, StoreError
from zarrloc.images import files
from zarrloc.store import columns, retry
from zarrloc.store.location import Location

XML = '<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>'


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only sleeping moves, and what was slept."""
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(retry.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retry.time, "sleep", sleep)
    return slept


@pytest.mark.parametrize(
    ("error", "passing", "of_a_row"),
    [
        (OSError(errno.EIO, "Input/output error"), True, False),
        (OSError(errno.ESTALE, "Stale file handle"), True, False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, False),
        (TimeoutError(), True, False),
        (RemoteError("s3://b: the object store answers 503 SlowDown"), True, False),
        (RemoteError("s3://b: the object store answers 429"), True, False),
        (RemoteError("s3://b: the object store did not answer in time"), True, False),
        (RemoteError("s3://b: the object store answers 400 InvalidArgument"), False, False),
        (
            StoreError("s3://b: the object store refuses (the session token has expired)"),
            False,
            False,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), False, False),
        (OSError(errno.EMFILE, "Too many open files"), False, False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False, True),
        (ValueError("bad pixels"), False, True),
        (MemoryError(), False, True),
    ],
)
def test_what_passes_and_what_is_a_rows_own(
    error: Exception, passing: bool, of_a_row: bool
) -> None:
    assert retry.is_passing(error) is passing
    assert retry.is_of_a_row(error) is of_a_row


def test_a_fault_is_waited_out_for_seconds_before_a_run_and_minutes_in_one(
    pauses: list[float],
) -> None:
    @retry.persistent
    def stale() -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with pytest.raises(OSError, match="Stale"):
        stale()
    assert 1 < sum(pauses) < 15
    assert pauses[1] > pauses[0] / 2
    pauses.clear()
    with retry.patient(), pytest.raises(OSError, match="Stale"):
        stale()
    assert 150 < sum(pauses) < 240
    assert max(pauses) <= retry.LONGEST_PAUSE_S


def test_what_has_passed_is_forgotten_and_what_stays_is_raised_at_once(
    pauses: list[float],
) -> None:
    left = [OSError(errno.EIO, "Input/output error"), TimeoutError()]

    @retry.persistent
    def read(value: int) -> int:
        if left:
            raise left.pop()
        return value

    assert read(3) == 3
    assert len(pauses) == 2
    left.append(OSError(errno.ENOENT, "No such file"))
    with pytest.raises(OSError, match="No such file"):
        read(3)
    assert len(pauses) == 2


def test_stored_texts_are_short_and_the_same_every_time() -> None:
    said = retry.row_error(ValueError(f"GET http://127.0.0.1:9/b/k said {XML}\n\nDebug: ..."))
    assert said == "ValueError: GET ... said"
    assert retry.row_error(ValueError("at 0x7f00aa of <object at 0x7f>")) == "ValueError: at ... of"
    assert retry.row_error(ValueError("size < 3")) == "ValueError: size < 3"
    assert retry.row_error(MemoryError()) == "out of memory"
    with pytest.raises(MemoryError) as large:
        np.zeros(1 << 60, np.uint8)
    assert retry.row_error(large.value).startswith("out of memory: Unable to allocate")
    assert len(retry.row_error(ValueError("x" * 9999))) < 330
    assert retry.reason(OSError(errno.EACCES, "Permission denied", "/x")) == "Permission denied"


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("out of memory: Unable to allocate 2 GiB", True),
        ("nucleus.tif: cannot be opened: Permission denied", True),
        ("OutOfMemoryError: CUDA out of memory", True),
        ("is truncated: 7 bytes of pixels are missing", False),
        ("ValueError: bad", False),
        ("", False),
    ],
)
def test_rows_that_failed_for_another_reason_are_known(text: str, again: bool) -> None:
    assert retry.may_succeed_again(text) is again


# --- real answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [503, 500, 429, SILENT])
def test_an_object_is_read_when_the_server_is_back(trouble: int, pauses: list[float]) -> None:
    # More often than the client itself tries again.
    with serving(Answers([trouble] * 3, b"II*\0"), quick=True) as address:
        assert files.data(f"{address}/a.tif") == b"II*\0"
    assert len(pauses) >= 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "these credentials may not read it"), (404, "there is no such object")],
)
def test_an_object_that_cannot_be_had_says_why_in_few_words(
    status: int, reason: str, pauses: list[float]
) -> None:
    with serving(Answers([status] * 9), quick=True) as address:
        with pytest.raises(SourceError) as refused:
            files.data(f"{address}/a.tif")
        assert files.stat(f"{address}/a.tif").problem == f"cannot be opened: {reason}"
    assert str(refused.value) == f"cannot be opened: {reason}"
    assert pauses == []


def test_a_key_that_is_not_accepted_is_no_files_fault() -> None:
    with serving(Answers([401] * 9), quick=True) as address, pytest.raises(StoreError):
        files.data(f"{address}/a.tif")


def test_columns_and_groups_are_read_when_the_disk_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    from tests.engine.toys import GROUP, run_toy

    run_toy(tmp_path / "s")
    fails, read = [True, True], Path.read_bytes

    def failing(path: Path) -> bytes:
        if fails:
            fails.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    group = Location.of(tmp_path / "s").group(GROUP)
    assert columns.read_column(group, "double")[3] == 6
    from zarr.storage import LocalStore

    get = LocalStore.get

    async def away(self: Any, *arguments: Any, **options: Any) -> Any:
        if fails:
            fails.pop()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await get(self, *arguments, **options)

    monkeypatch.setattr(LocalStore, "get", away)
    assert columns.read_column(group, "double")[3] == 6
    monkeypatch.setattr(Path, "read_bytes", failing)
    fails.append(True)
    assert Location.of(tmp_path / "s").group(GROUP)["double"].shape == (20,)
    assert len(pauses) >= 3
