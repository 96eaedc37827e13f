"""Published files: fetched once, checked ever after, and read by any number of workers.

A file lies under its own name in one folder, with its SHA-256 beside it. It is whole from the
moment it has its name: what is under way is called `.partial` and goes on where it broke off.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from zarrloc.errors import WeightsError

TRIES = 3
"""Downloads that break off go on so many times."""

TIMEOUT_S = 30.0
LOCK_S = 3600.0
"""How long others wait for the one that downloads."""

CHUNK = 1 << 16
"""Bytes read at once: at most this much is lost when a connection ends."""


class Remote(NamedTuple):
    """A published file: its name here, where it comes from, and its checksum where one is known.

    `checksum` is `sha256:...` or `md5:...`; `doi` names a Zenodo record that has it.
    """

    name: str
    url: str
    checksum: str = ""
    doi: str = ""


def folder() -> Path:
    """Where weights lie: `ZARRLOC_WEIGHTS`, else `ZARRLOC_CACHE`, else the user's cache folder."""
    import pooch

    named = os.environ.get("ZARRLOC_WEIGHTS") or os.environ.get("ZARRLOC_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("zarrloc"))


def obtain(file: Remote, where: Path | None = None, source: Path | None = None) -> Path:
    """The file's path, whole and checked; it is fetched, or copied from `source`, if need be.

    Parameters
    ----------
    file
        What is wanted.
    where
        The folder it lies in; by default that of `folder`.
    source
        A folder, or the file itself, to copy it from instead of fetching it.

    Returns
    -------
    Path
        Where it lies.

    Raises
    ------
    WeightsError
        Where it cannot be had, or is not what it was.

    Examples
    --------
    >>> import tempfile
    >>> there, here = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())
    >>> _ = (there / "net.pth").write_bytes(b"weights")
    >>> obtain(Remote("net.pth", "https://example.org/net.pth"), here, source=there).read_bytes()
    b'weights'
    """
    path = (where or folder()) / file.name
    if not path.is_file() or source is not None:
        with _alone(path):  # of ten workers one fetches it, the others find it
            if source is not None:
                _copy(file, source, path)
            elif not path.is_file():
                _fetch(file, path)
    if problem := wrong_with(file, path):
        raise WeightsError(
            f"{path} {problem}; remove it, and it is fetched again, or copy a whole one there"
        )
    return path


def wrong_with(file: Remote, path: Path) -> str:
    """What is wrong with a file that is there: "" where it is what it was at first."""
    known = file.checksum or _recorded(path).get("checksum", "")
    if not known:  # put there by hand: what it is now is what it must stay
        _record(file, path)
        return ""
    found = checksum_of(path, known.partition(":")[0])
    return "" if found == known else f"has the checksum {found}, expected {known}"


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """`sha256:...` of a file."""
    with path.open("rb") as opened:
        return f"{algorithm}:{hashlib.file_digest(opened, algorithm).hexdigest()}"


def _fetch(file: Remote, path: Path) -> None:
    import pooch

    try:
        checksum = file.checksum or _of_record(file)
        pooch.get_logger().disabled = True  # it would tell that there is no checksum
        pooch.retrieve(
            file.url, checksum or None, file.name, path.parent, downloader=_resuming(path)
        )
    except ValueError as error:  # pooch: the hash differs
        raise WeightsError(
            f"{file.url} is not what was published: its checksum is another; nothing of it was "
            f"kept ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # each downloader has its own zoo of errors
        raise WeightsError(
            f"cannot get {file.name} from {file.url} ({_why(error)}). Copy it to {path} "
            "(ZARRLOC_WEIGHTS names another folder), or `zarrloc weights fetch NAME --from DIR`"
        ) from error
    _record(file, path)


def _copy(file: Remote, source: Path, path: Path) -> None:
    there = source / file.name if source.is_dir() else source
    if not there.is_file():
        raise WeightsError(f"there is no {there}; `zarrloc weights list` names the files")
    partial = path.with_name(f"{path.name}.copy.partial")
    shutil.copyfile(there, partial)
    if file.checksum and (got := checksum_of(partial, file.checksum.partition(":")[0])):  # noqa: SIM102
        if got != file.checksum:
            partial.unlink()
            raise WeightsError(f"{there} has the checksum {got}, expected {file.checksum}")
    partial.replace(path)
    _record(file, path)


def _resuming(path: Path) -> Callable[..., None]:
    """A downloader for pooch that goes on with what an earlier one left beside `path`."""
    partial = path.with_name(f"{path.name}.partial")

    def download(url: str, output: str, _: Any) -> None:
        import requests

        for attempt in range(1, TRIES + 1):
            try:
                _append(url, partial)
                break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if attempt == TRIES:
                    raise
        shutil.move(partial, output)

    return download


def _append(url: str, partial: Path) -> None:
    import requests

    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:  # what is left over is no beginning of it
            partial.unlink()
            return _append(url, partial)
        answer.raise_for_status()
        with partial.open("ab" if answer.status_code == 206 else "wb") as out:
            for chunk in answer.iter_content(CHUNK):
                out.write(chunk)
    return None


def _of_record(file: Remote) -> str:
    """The checksum that a Zenodo record has of the file."""
    import pooch

    if not file.doi:
        return ""
    record = pooch.create(folder(), base_url=f"doi:{file.doi}/")
    record.load_registry_from_doi()
    return str(record.registry[file.name])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_S):
            yield
    except OSError as error:
        raise WeightsError(f"cannot write to {path.parent}: {error.strerror or error}") from error


def _recorded(path: Path) -> dict[str, str]:
    try:
        found = json.loads(_beside(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _record(file: Remote, path: Path) -> None:
    partial = _beside(path).with_suffix(f".{os.getpid()}.partial")
    about = {"url": file.url, "checksum": checksum_of(path)}
    try:
        partial.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        partial.replace(_beside(path))
    except OSError:
        return  # a folder of others, read-only: there is nothing to compare with


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _why(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"answer {response.status_code}"
    return type(error).__name__
