"""Where Cellpose's published weights lie on this machine, and how they get here."""

import os
from pathlib import Path

from zarrloc.errors import WeightsError

CELLPOSE_3_URL = "https://www.cellpose.org/models/"
CELLPOSE_4_URL = "https://huggingface.co/mouseland/cellpose-sam/resolve/main/"


def folder() -> Path:
    """Cellpose's own model folder: `CELLPOSE_LOCAL_MODELS_PATH`, else `~/.cellpose/models`."""
    return Path(
        os.environ.get("CELLPOSE_LOCAL_MODELS_PATH") or Path.home() / ".cellpose" / "models"
    )


def obtain(name: str, url: str) -> Path:
    """The file `name` in the model folder, fetched from `url` if it is not there yet.

    Cellpose publishes no checksums: what comes is checked when it is loaded. Raises
    `WeightsError` that says what to fetch and where to put it.
    """
    path = folder() / name
    if path.is_file():
        return path
    import pooch

    try:
        return Path(pooch.retrieve(url + name, None, name, folder()))
    except Exception as error:  # whatever a network can raise
        raise WeightsError(
            f"the weights {name} are not in {folder()} and could not be fetched "
            f"({type(error).__name__}); fetch {url}{name} on a machine with a network and put it "
            "there, or set CELLPOSE_LOCAL_MODELS_PATH to the folder that has it"
        ) from error
