"""OpenCell-like fields of known truth, for demos, tests and accuracy checks."""

from zarrloc.simulate.fov import Fov, simulate_fov
from zarrloc.simulate.proteins import LABELS, Protein, draw_grades
from zarrloc.simulate.write import simulate

__all__ = ["LABELS", "Fov", "Protein", "draw_grades", "simulate", "simulate_fov"]
