"""Fields of known truth, OpenCell-like or of nuclei alone, for demos, tests, accuracy checks."""

from zarrloc.simulate.fov import Fov, simulate_fov
from zarrloc.simulate.nuclei import SCENES, Nuclei, simulate_nuclei
from zarrloc.simulate.proteins import LABELS, Protein, draw_grades
from zarrloc.simulate.write import simulate

__all__ = [
    "LABELS",
    "SCENES",
    "Fov",
    "Nuclei",
    "Protein",
    "draw_grades",
    "simulate",
    "simulate_fov",
    "simulate_nuclei",
]
