"""What a protein has of its own beside its labels: the random effects all its fields share."""

from dataclasses import dataclass
from typing import Self

import numpy as np

# In OpenCell's spelling; how many of its 1,310 proteins carry the label at grade 3.
LABELS: dict[str, int] = {
    "big_aggregates": 22,
    "cell_contact": 25,
    "centrosome": 50,
    "chromatin": 67,
    "cytoplasmic": 483,
    "cytoskeleton": 34,
    "er": 96,
    "focal_adhesions": 10,
    "golgi": 64,
    "membrane": 117,
    "mitochondria": 11,
    "nuclear_membrane": 32,
    "nuclear_punctae": 77,
    "nucleolus_fc_dfc": 22,
    "nucleolus_gc": 76,
    "nucleoplasm": 372,
    "vesicles": 240,
}


@dataclass(frozen=True)
class Protein:
    """Random effects of one protein (one cell line); the defaults are an average protein."""

    peak: float = 7000.0  # counts above background at the 99.5th percentile of its cells
    size: float = 1.0  # of spots and threads
    number: float = 1.0  # of spots and threads
    spread: float = 0.5  # 0 = around the nucleus, 1 = out to the border
    diffuse: float = 0.1  # share of the peak that is dissolved in the cell
    nuclear: float = 0.4  # of the dissolved part: nucleus over cytoplasm
    grain: float = 0.1  # of the dissolved part: relative roughness
    grain_px: float = 3.0
    variety: float = 0.3  # log sd of expression between cells
    crowding: float = 0.6
    stain: float = 3200.0  # Hoechst counts above background in a nucleus
    background: tuple[float, float] = (700.0, 850.0)  # counts without cells, (nucleus, protein)
    gain: tuple[float, float] = (30.0, 35.0)  # counts of variance a count of signal

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """A protein at random."""
        return cls(
            peak=float(np.clip(rng.lognormal(np.log(6500), 0.95), 800, 30000)),
            size=float(rng.lognormal(0, 0.18)),
            number=float(rng.lognormal(0, 0.4)),
            spread=float(rng.uniform(0.1, 0.9)),
            diffuse=float(rng.lognormal(np.log(0.08), 0.8)),
            nuclear=float(rng.uniform(0.15, 1.0)),
            grain=float(rng.uniform(0.03, 0.22)),
            grain_px=float(rng.uniform(1.5, 6)),
            variety=float(rng.uniform(0.1, 0.45)),
            crowding=float(rng.beta(2, 1.6)),
            stain=float(np.clip(rng.lognormal(np.log(3200), 0.22), 1900, 5000)),
            background=(float(rng.uniform(540, 860)), float(rng.uniform(540, 1260))),
            gain=(float(rng.uniform(10, 50)), float(rng.uniform(15, 65))),
        )


# Each lies inside the other's pattern or on top of it: side by side nobody could tell both.
_ALIKE = (
    {"cell_contact", "membrane"},
    {"chromatin", "nucleoplasm"},
    {"er", "nuclear_membrane"},
    {"nucleolus_fc_dfc", "nucleolus_gc"},
)


def draw_grades(rng: np.random.Generator, main: str) -> dict[str, int]:
    """Grades of a protein whose `main` label is 3; others as rarely as in OpenCell's table."""
    grades = {main: 3}
    names = np.array([label for label in LABELS if label != main])
    weight = np.array([LABELS[name] for name in names], float) ** 0.5
    others = rng.choice(names, 3, replace=False, p=weight / weight.sum())
    for label, grade, chance in zip(others, (3, 2, 1), (0.25, 0.3, 0.25), strict=True):
        if rng.random() < chance and not (grade == 3 and {main, str(label)} in _ALIKE):
            grades[str(label)] = grade
    return grades
