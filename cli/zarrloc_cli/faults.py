"""What a command says when it ends early: one line for every fault that could be foreseen."""

import errno
import json

from zarrloc.errors import LockedError, RemoteError, RunError, WorkerError, ZarrlocError

FAILED, REFUSED, LOCKED = 1, 2, 4
"""Exit codes: the same command may do better; something must be changed; try later."""

ADVICE = {
    errno.ENOSPC: "make room; the same command continues from here",
    errno.EDQUOT: "make room; the same command continues from here",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENOMEM: "use fewer workers or a larger machine; the same command continues from here",
    errno.EACCES: "check who may read and write there",
    errno.EPERM: "check who may read and write there",
    errno.EROFS: "check who may read and write there",
    errno.ENOENT: "check that it is still there",
}
USERS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


def explain(error: BaseException) -> tuple[str, int] | None:
    """The line to show for `error` and the exit code; None for a bug, which keeps its traceback."""
    if isinstance(error, ZarrlocError) and error.problems:
        return "; ".join(f"{_flag(path)}: {text}" for path, text in error.problems.items()), REFUSED
    if isinstance(error, ZarrlocError):
        return str(error), _code(error)
    if type(error).__module__ == "zarr.errors":
        return f"{_first_line(error)}; `zarrloc verify STORE` finds what is damaged", REFUSED
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        where = f"{error.filename}: " if error.filename else ""
        advice = ADVICE.get(error.errno or 0, "the same command continues from here")
        return f"{where}{what}; {advice}", REFUSED if error.errno in USERS else FAILED
    if isinstance(error, json.JSONDecodeError):
        return f"damaged JSON ({error}); `zarrloc verify STORE` finds the file", REFUSED
    if type(error).__module__.startswith(("obstore", "_obstore")):
        from zarrloc.store.remote import as_store_error

        return explain(as_store_error(error, "the store"))
    if isinstance(error, MemoryError):
        return f"out of memory; {ADVICE[errno.ENOMEM]}", FAILED
    return None


def _code(error: ZarrlocError) -> int:
    if isinstance(error, LockedError):
        return LOCKED
    return FAILED if isinstance(error, RemoteError | RunError | WorkerError) else REFUSED


def _flag(path: str) -> str:
    return path if path == "settings" else "--" + path.replace("_", "-")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
