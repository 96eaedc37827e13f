"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is written, and is gone where that fails.

    Raises
    ------
    OSError
        Where it cannot be written, also where the writer hid that behind an error of its own, as
        PyTorch's does.

    Examples
    --------
    >>> with replacing(Path("weights.pth")) as file:  # doctest: +SKIP
    ...     torch.save(state, file)
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    finally:
        partial.unlink(missing_ok=True)
