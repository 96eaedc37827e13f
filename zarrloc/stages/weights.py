"""Weights: which published ones there are, fetched, copied, checked, found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zarrloc.errors import ConfigError, WeightsError
from zarrloc.models import fetch, published
from zarrloc.models.fetch import Remote
from zarrloc.models.specs import SPECS
from zarrloc.segmenters import download

CITATIONS = {
    "dino": "Caron et al. 2021, arXiv:2104.14294",
    "dinov2": "Oquab et al. 2023, arXiv:2304.07193",
    "dinov3": "Simeoni et al. 2025, arXiv:2508.10104",
    "hpa": "Doron et al. 2023, doi:10.1101/2023.06.16.545359",
    "subcell": "Gupta et al. 2024, doi:10.1101/2024.12.06.627299",
    "morphem": "CHAMMI-75, Caicedo lab",
    "cell": "Moutakanni et al. 2025, Cell-DINO",
    "cellpose": "Stringer, Pachitariu 2025, Nature Methods 22, 592",
    "cpsam": "Pachitariu et al. 2025, doi:10.1101/2025.04.28.651001",
}
CELLPOSE = {
    "cyto3": ("cyto3", "size_cyto3.npy"),
    "cyto2": ("cyto2torch_0", "size_cyto2torch_0.npy"),
    "nuclei": ("nucleitorch_0", "size_nucleitorch_0.npy"),
    "cpsam": ("cpsam",),
    "cpsam_v2": ("cpsam_v2",),
}


@dataclass(frozen=True)
class Weights:
    """What one name stands for: its files, where they lie, and whose work they are."""

    name: str
    files: tuple[Remote, ...]
    folder: Path
    licence: str
    citation: str
    note: str = ""
    """Why they cannot be fetched, where they can't."""

    @property
    def paths(self) -> list[Path]:
        """Where the files lie, or would."""
        return [self.folder / file.name for file in self.files]

    @property
    def here(self) -> bool:
        """Whether all files are there."""
        return bool(self.files) and all(path.is_file() for path in self.paths)

    @property
    def megabytes(self) -> float:
        """Size of what is there, in MB."""
        return sum(path.stat().st_size for path in self.paths if path.is_file()) / 1e6


def listed() -> list[Weights]:
    """All published weights that zarrloc knows by name: backbones, then Cellpose's models."""
    return [*map(_of_backbone, SPECS), *map(_of_cellpose, CELLPOSE)]


def find(names: Iterable[str]) -> list[Weights]:
    """The weights of some names. Raises `ConfigError` for one that there is not."""
    known = {one.name: one for one in listed()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"unknown weights {', '.join(unknown)}; expected some of {', '.join(known)}"
        )
    return [known[name] for name in names]


def fetch_all(names: Sequence[str], source: Path | None = None) -> list[Path]:
    """Fetch weights, or copy them from the folder `source`; gives where they lie.

    Raises
    ------
    ConfigError
        For a name that there is not.
    WeightsError
        Where a file cannot be had, or is not what it should be.
    """
    paths = []
    for one in find(names):
        if one.note and not one.files:
            raise WeightsError(f"{one.name}: {one.note}")
        paths += [fetch.obtain(file, one.folder, source) for file in one.files]
    return paths


def verify() -> dict[Path, str]:
    """Every file that is there, and what is wrong with it: "" where nothing is."""
    return {
        path: fetch.wrong_with(file, path)
        for one in listed()
        for file, path in zip(one.files, one.paths, strict=True)
        if path.is_file()
    }


def _of_backbone(name: str) -> Weights:
    spec = SPECS[name]
    citation = CITATIONS[name.partition("-")[0]]
    try:
        files: tuple[Remote, ...] = (published.remote_of(spec.source),)
        note = ""
    except WeightsError as error:
        files, note = (), f"{error}, then pass --weights PATH"
    return Weights(name, files, fetch.folder(), spec.licence, citation, note)


def _of_cellpose(name: str) -> Weights:
    url = download.CELLPOSE_4_URL if name.startswith("cpsam") else download.CELLPOSE_3_URL
    files = tuple(Remote(file, url + file) for file in CELLPOSE[name])
    citation = CITATIONS["cpsam" if name.startswith("cpsam") else "cellpose"]
    return Weights(name, files, download.folder(), "BSD-3-Clause code; see cellpose.org", citation)
