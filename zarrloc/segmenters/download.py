"""Where Cellpose's published weights lie on this machine, and how they get here."""

import os
from pathlib import Path

from zarrloc.errors import WeightsError
from zarrloc.models import fetch
from zarrloc.models.fetch import Remote

CELLPOSE_3_URL = "https://www.cellpose.org/models/"
CELLPOSE_4_URL = "https://huggingface.co/mouseland/cellpose-sam/resolve/main/"


def folder() -> Path:
    """Cellpose's own model folder, `CELLPOSE_LOCAL_MODELS_PATH`, else `~/.cellpose/models`.

    Unless `ZARRLOC_WEIGHTS` names one folder for all weights.
    """
    named = os.environ.get("CELLPOSE_LOCAL_MODELS_PATH") or os.environ.get("ZARRLOC_WEIGHTS")
    return Path(named or Path.home() / ".cellpose" / "models")


def obtain(name: str, url: str, source: Path | None = None) -> Path:
    """The file `name` in the model folder, fetched from `url` if it is not there yet.

    Cellpose publishes no checksums: what came first is what later ones are compared with. Raises
    `WeightsError` that says what to fetch and where to put it.
    """
    try:
        return fetch.obtain(Remote(name, url + name), folder(), source)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; or fetch {url}{name} on a machine with a network, and set "
            "CELLPOSE_LOCAL_MODELS_PATH to the folder that has it"
        ) from error
