"""The files behind the sources of `zarrloc.models.specs`: names, addresses, records."""

from zarrloc.errors import WeightsError
from zarrloc.models.fetch import Remote

ZENODO = "https://zenodo.org/records/"
REQUEST = "request:"
"""Before the page where weights are asked for: nobody may fetch them unasked."""


def remote_of(source: str) -> Remote:
    """The file of a spec's `source`.

    Raises
    ------
    WeightsError
        Where it can only be asked for.

    Examples
    --------
    >>> remote_of("doi:10.5281/zenodo.8061392/DINO_FOV_checkpoint.pth").name
    'DINO_FOV_checkpoint.pth'
    """
    if source.startswith(REQUEST):
        raise WeightsError(
            f"its weights are given out on request, at {source.removeprefix(REQUEST)}; get them "
            "there"
        )
    base, _, name = source.rpartition("/")
    if source.startswith("doi:"):
        doi = base.removeprefix("doi:")
        record = doi.rpartition("zenodo.")[2]
        return Remote(name, f"{ZENODO}{record}/files/{name}?download=1", doi=doi)
    if name == "model.safetensors":  # Hugging Face's name of all: the repository's tells them apart
        return Remote(f"{base.split('/')[-3]}.safetensors", source)
    return Remote(name, source)
