"""Which proteins a dataset holds, how they are called, and the seed of each of their fields."""

from dataclasses import dataclass

import numpy as np

from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate.fov import Fov, simulate_fov
from zarrloc.simulate.proteins import LABELS, Protein, draw_grades

_DEFAULT_FOVS = 20
_LABEL_SEED, _PROTEIN_SEED, _FOV_SEED = range(3)


@dataclass(frozen=True)
class Target:
    """One protein of the dataset; `file_gene` and `file_ensg` are what file names say of it."""

    number: int
    name: str
    ensg: str
    file_gene: str
    file_ensg: str
    cell_line: int
    grades: dict[str, int]
    fovs: int


def plan(config: SimulateConfig) -> list[Target]:
    """The proteins of a dataset: names, labels and how many fields each has."""
    rng = _rng(config.seed, _LABEL_SEED)
    counts = _fov_counts(rng, config)
    lines = rng.permutation(np.arange(1, len(counts) + 1))
    targets = []
    for number, (count, main) in enumerate(
        zip(counts, _mains(rng, len(counts), config), strict=True)
    ):
        # One name in seven has a dash, as HLA-A has; the file pattern must not split on it.
        name = f"SIM{number:04d}" if number % 7 else f"SIM-D{number:04d}"
        ensg = f"ENSG{90000000000 + number:011d}"
        targets.append(
            Target(
                number=number,
                name=name,
                ensg=ensg,
                file_gene=name.title() if number % 11 == 3 else name,
                file_ensg=f"ENSG{91000000000 + number:011d}" if number % 9 == 2 else ensg,
                cell_line=int(lines[number]),
                grades=draw_grades(rng, main),
                fovs=count,
            )
        )
    return targets


def _fov_counts(rng: np.random.Generator, config: SimulateConfig) -> list[int]:
    if config.proteins is not None:
        if config.fovs_per_protein is not None:
            return [config.fovs_per_protein] * config.proteins
        return [int(count) for count in rng.integers(4, 7, config.proteins)]
    left = _DEFAULT_FOVS if config.fovs is None else config.fovs
    counts = []
    while left > 0:
        counts.append(min(left, int(rng.integers(4, 7))))
        left -= counts[-1]
    return counts


def _mains(rng: np.random.Generator, count: int, config: SimulateConfig) -> list[str]:
    names = np.array(list(LABELS))
    if config.labels == "opencell":
        weight = np.array(list(LABELS.values()), float)
        return [str(name) for name in rng.choice(names, count, p=weight / weight.sum())]
    rounds = [rng.permutation(names) for _ in range(-(-count // len(names)))]
    return [str(name) for name in np.concatenate(rounds)[:count]]


def planned_fov(target: Target, field: int, config: SimulateConfig) -> Fov:
    """Field number `field` of a target; it has its own seed, so fields can come in any order."""
    number = target.number
    return simulate_fov(
        target.grades,
        shape=(config.size, config.size),
        protein=Protein.draw(_rng(config.seed, _PROTEIN_SEED, number)),
        seed=np.random.SeedSequence(config.seed, spawn_key=(_FOV_SEED, number, field)),
    )


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
