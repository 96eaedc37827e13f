"""One simulated field of view, as a pure function of its labels, its protein and a seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ConfigError
from zarrloc.simulate.camera import expose
from zarrloc.simulate.patterns import draw_protein
from zarrloc.simulate.proteins import LABELS, Protein
from zarrloc.simulate.scene import Labels, PerCell, Scene
from zarrloc.simulate.textures import Map, bell, ramp, smooth_noise, sprinkle, stamp
from zarrloc.simulate.tissue import make_scene

ASTRAY = 0.10  # share of cells that show another pattern than their protein's labels


@dataclass(frozen=True)
class Fov:
    """A field and its truth."""

    image: npt.NDArray[np.uint16]  # (2, y, x), Hoechst first
    cells: Labels  # (y, x) instance masks, 0 = background
    nuclei: Labels  # (y, x), same ids as `cells`
    grades: dict[int, dict[str, int]]  # what each cell shows, by mask id
    mitotic: frozenset[int]  # mask ids


def simulate_fov(
    grades: Mapping[str, int],
    *,
    shape: tuple[int, int] = (600, 600),
    protein: Protein | None = None,
    seed: int | np.random.SeedSequence = 0,
) -> Fov:
    """One field of view of a protein with these labels' grades (1 to 3).

    `protein` holds the random effects its fields share (an average protein if not given). The
    nucleus channel and the geometry depend on `protein` and `seed` alone, never on the grades.
    About one cell in ten shows another label's pattern; the result says which.

    Raises `ConfigError` for an unknown label or grade.
    """
    _check(grades)
    protein = protein or Protein()
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    # Spawned by key and not by count, so that the same sequence can be used twice.
    shapes, marks, eye = (
        np.random.default_rng(
            np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, part))
        )
        for part in range(3)
    )
    crowding = float(np.clip(protein.crowding + shapes.normal(0, 0.15), 0, 1))
    scene = make_scene(shapes, shape, crowding)
    focus_px = float(shapes.uniform(0.6, 1.5))
    shown = _shown(marks, scene, dict(grades))
    hoechst = _hoechst(shapes, scene, protein)
    tagged = _tagged(marks, scene, protein, shown)
    haze = shapes.uniform(0.02, (0.20, 0.12))
    nucleus, signal = (
        expose(
            eye,
            density,
            scene.depth,
            focus_px=focus_px,
            haze=float(haze[channel]),
            background=protein.background[channel],
            gain=protein.gain[channel],
        )
        for channel, density in enumerate((hoechst, tagged))
    )
    present = [int(number) for number in np.unique(scene.cell) if number]
    return Fov(
        image=np.stack([nucleus, signal]),
        cells=scene.cell,
        nuclei=scene.nucleus,
        grades={number: shown[number] for number in present},
        mitotic=frozenset(number for number in present if scene.mitotic[number]),
    )


def _check(grades: Mapping[str, int]) -> None:
    wrong = sorted(set(grades) - set(LABELS))
    if wrong:
        raise ConfigError(f"unknown labels {wrong}; expected any of {sorted(LABELS)}")
    if not grades or not all(grade in (1, 2, 3) for grade in grades.values()):
        raise ConfigError(f"grades {dict(grades)}; expected one label or more, each 1, 2 or 3")


def _shown(rng: np.random.Generator, scene: Scene, grades: dict[str, int]) -> list[dict[str, int]]:
    """What each cell shows, by id: the protein's labels, or in stray cells one other label."""
    others = [label for label in LABELS if label not in grades]
    other = str(rng.choice(others)) if others else next(iter(grades))
    stray = rng.random(scene.count) < ASTRAY
    return [{other: 3} if astray else grades for astray in stray]


def _tagged(
    rng: np.random.Generator, scene: Scene, protein: Protein, shown: list[dict[str, int]]
) -> Map:
    """Counts of the tagged protein above background, with each cell's own expression."""
    level = _levels(rng, scene.count, protein.variety)
    level *= np.float32(protein.peak * rng.lognormal(0, 0.25))
    total = np.zeros(scene.shape, np.float32)
    distinct = {tuple(sorted(grades.items())) for grades in shown}
    for grades in sorted(distinct):
        who = np.array([tuple(sorted(cell.items())) == grades for cell in shown])
        total += draw_protein(dict(grades), scene, protein, rng) * (who * level)[scene.cell]
    return total + _debris(rng, scene.shape, 1.5, 0.5 * protein.peak)


def _hoechst(rng: np.random.Generator, scene: Scene, protein: Protein) -> Map:
    """Counts of DNA stain above background; a mitotic plate is several times brighter."""
    level = np.float32(protein.stain * rng.lognormal(0, 0.1)) * _levels(
        rng, scene.count, rng.uniform(0.08, 0.33)
    )
    level *= np.where(scene.mitotic, np.float32(2.6), np.float32(1))
    rimmed = scene.nucleus_soft * (0.85 + 0.25 * bell(scene.rim + 2, 1.8))
    mottle = ramp(smooth_noise(rng, scene.shape, 4.0) - 1.2)
    mottle *= ramp(smooth_noise(rng, scene.shape, 30.0) - 0.8)
    veil: Map = (
        scene.inside * (1 + 6 * mottle) * np.float32(protein.stain * rng.uniform(0.005, 0.05))
    )
    dna: Map = scene.chromatin * rimmed * level[scene.cell]
    return dna + veil + _debris(rng, scene.shape, 2.0, 0.4 * protein.stain)


def _levels(rng: np.random.Generator, count: int, log_sd: float) -> PerCell:
    return rng.lognormal(0, log_sd, count).astype(np.float32)


def _debris(
    rng: np.random.Generator, shape: tuple[int, int], number: float, brightness: float
) -> Map:
    """A few specks of dirt and pale remains of dead cells; `number` is for a 600 px field."""
    area = np.float32(number / 600**2)
    every = np.full(shape, area, np.float32)
    specks = sprinkle(rng, every * 2)
    dirt = stamp(shape, specks, rng.lognormal(-0.5, 0.6, len(specks[0])), 2.4)
    ghosts = sprinkle(rng, every * 0.3)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for gy, gx in zip(*ghosts, strict=True):
        size = rng.uniform(12, 34)
        dirt += 0.12 * np.clip((size - np.hypot(y - gy, x - gx)) / 3, 0, 1).astype(np.float32)
    return dirt * np.float32(brightness)
