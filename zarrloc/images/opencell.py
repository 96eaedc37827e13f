"""OpenCell as published: file names, channels, labels, and the constants of its microscope.

Cho et al. 2022, Science 375, eabi6983. Nothing here reads a file; `zarrloc.images.labels` joins the
public tables to the names.
"""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

CHANNELS = ("nucleus", "protein")
"""Roles of a file's channels in file order: Hoechst first (the paper counts them backwards)."""

PIXEL_SIZE_UM = 2 * 6.5 / 63
"""Camera pixel 6.5 um, binned 2 x 2, behind a 63x objective. The files' tags round it to 0.2."""

LABELS = (
    "big_aggregates",
    "cell_contact",
    "centrosome",
    "chromatin",
    "cytoplasmic",
    "cytoskeleton",
    "er",
    "focal_adhesions",
    "golgi",
    "membrane",
    "mitochondria",
    "nuclear_membrane",
    "nuclear_punctae",
    "nucleolus_fc_dfc",
    "nucleolus_gc",
    "nucleoplasm",
    "vesicles",
)
"""Every label of the published annotations, alphabetically."""


class Stain(NamedTuple):
    """What makes a channel visible: its dye, the excitation wavelength, a display colour."""

    stain: str
    excitation_nm: int
    color: str


STAINS = {
    "nucleus": Stain("Hoechst 33342", 405, "#0000ff"),
    "protein": Stain("mNeonGreen", 488, "#00ff00"),
}
"""Role -> how its channel is made visible."""


@dataclass(frozen=True)
class OpenCellName:
    """What an OpenCell file name says: `cell_line` as `CID001050`, `fov` as `FID00013888`."""

    gene: str
    ensg: str
    cell_line: str
    fov: str
    kind: Literal["proj", "stack"]


_NAME = re.compile(r"OC-FOV_(.+)_(ENSG\d+)_(CID\d+)_(FID\d+)_(proj|stack)\.tif")


def parse_name(file_name: str) -> OpenCellName | None:
    """The parts of an OpenCell base name, or None where it is not one."""
    match = _NAME.fullmatch(file_name)
    if match is None:
        return None
    gene, ensg, cell_line, fov, kind = match.groups()
    return OpenCellName(gene, ensg, cell_line, fov, cast(Literal["proj", "stack"], kind))
