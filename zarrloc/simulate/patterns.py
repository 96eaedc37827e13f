"""The 17 patterns: where in the cells a protein of each label is.

Every pattern is a function `(scene, protein, rng) -> (y, x)` float32, non-negative, of any scale.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from zarrloc.simulate.proteins import Protein
from zarrloc.simulate.scene import Scene
from zarrloc.simulate.textures import (
    Map,
    Points,
    bell,
    decay,
    ramp,
    rough,
    smooth_noise,
    sprinkle,
    stamp,
    threads,
)

Pattern = Callable[[Scene, Protein, np.random.Generator], Map]
Rng = np.random.Generator

_WEIGHT = (0.0, 0.1, 0.28, 1.0)  # of a grade


def big_aggregates(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """One to four large lumps in the cytoplasm."""
    points = sprinkle(rng, scene.rate(scene.inner_cytoplasm(5), 1.0 + 1.2 * protein.number))
    sizes = rng.lognormal(0, 0.35, len(points[0]))
    lump = stamp(scene.shape, points, sizes, 5.0 * protein.size) * rough(rng, scene.shape, 0.35, 2)
    solid = ramp(1.6 * lump - 0.4)
    return solid * scene.inside * (1 - 0.8 * scene.nucleus_soft) + scene.veil(0.03)


def cell_contact(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Beaded lines only where two cells touch."""
    line = bell(scene.contact_edge, 1.4 * protein.size) * scene.inside
    return line * rough(rng, scene.shape, 0.5, 2.2) * rough(rng, scene.shape, 0.4, 9) + scene.veil(
        0.04
    )


def centrosome(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """One or two adjacent points beside the nucleus, with a few satellites, in faint cytosol."""
    away = scene.radius + rng.uniform(1, 8, scene.count)
    y = scene.centre[:, 0] + away * np.sin(scene.polarity)
    x = scene.centre[:, 1] + away * np.cos(scene.polarity)
    apart = rng.uniform(0, 2 * np.pi, scene.count)
    gap = np.where(rng.random(scene.count) < 0.7, rng.uniform(4, 9, scene.count), 0)
    pair = (
        np.concatenate([y, y + gap * np.sin(apart)]),
        np.concatenate([x, x + gap * np.cos(apart)]),
    )
    points = stamp(scene.shape, pair, rng.lognormal(0, 0.25, len(pair[0])), 1.35 * protein.size)
    cloud = stamp(scene.shape, pair, 1.0, 7.0)
    satellites = _spots(scene, rng, cloud, 5 * protein.number, (1.0,), 0.4)
    everything: Map = (points + 0.05 * cloud + 0.12 * satellites) * scene.inside
    return everything + scene.veil(0.03)


def chromatin(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Follows the DNA's own texture, also on a mitotic plate."""
    return scene.nucleoplasm * scene.chromatin * scene.chromatin


def cytoplasmic(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Fills the cell but for the nucleus, with small empty vacuoles."""
    points = sprinkle(rng, scene.rate(scene.inner_cytoplasm(5), 5.0))
    holes = stamp(scene.shape, points, 0.5, 2.2)
    body = scene.cytoplasm + 0.18 * scene.nucleus_soft
    return body * _grain(scene, protein, rng) * (1 - ramp(holes))


def cytoskeleton(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Many thin long fibres, parallel in each cell or radiating from its nucleus, and a cortex."""
    inside = (scene.edge > 1).astype(np.float32)
    starts = sprinkle(rng, scene.rate(inside, 42 * protein.number))
    here = scene.at(starts)
    axis = rng.uniform(-np.pi, np.pi, scene.count)[scene.cell[here]]
    heading = np.where(protein.spread > 0.5, axis, scene.bearing[here])
    heading += rng.normal(0, 0.22, len(heading)) + np.pi * rng.integers(0, 2, len(heading))
    fibres = _walks(scene, rng, starts, heading, 75, 0.035, inside, 0.9 * protein.size)
    cortex = decay(scene.edge, 1.5) * scene.inside * rough(rng, scene.shape, 0.6, 8)
    return fibres + 0.5 * cortex + scene.veil(0.12)


def er(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """A net of fine tubules, denser at the nucleus, with the envelope as part of it."""
    net = np.maximum(
        bell(smooth_noise(rng, scene.shape, 2.4 * protein.size), 0.25),
        bell(smooth_noise(rng, scene.shape, 3.6 * protein.size), 0.17),
    )
    near = decay(scene.rim, 14 + 22 * protein.spread)
    envelope = bell(scene.rim, 1.5) * scene.inside
    return scene.cytoplasm * (0.12 + near) * (0.3 + 0.9 * net) + 0.8 * envelope


def focal_adhesions(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Short radial dashes under the outer part of the cell, most at its free edges."""
    band = bell(scene.edge - 8, 6) * (scene.edge > 1.5)
    where = band * (0.25 + decay(scene.free_edge, 14))
    starts = sprinkle(rng, scene.rate(where, 26 * protein.number))
    heading = scene.bearing[scene.at(starts)] + rng.normal(0, 0.25, len(starts[0]))
    inside = (scene.edge > 0.5).astype(np.float32)
    length = int(10 * protein.size)
    return _walks(scene, rng, starts, heading, length, 0.03, inside, 1.3) + scene.veil(0.06)


def golgi(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """A ribbon of short bent stacks on one side of the nucleus."""
    turn = np.angle(np.exp(1j * (scene.bearing - scene.polarity[scene.cell])))
    allowed = ((scene.rim > 0) & (scene.edge > 1)).astype(np.float32)
    where = bell(scene.rim - 8, 5) * bell(turn.astype(np.float32), 0.45) * allowed
    starts = sprinkle(rng, scene.rate(where, 16 * protein.number))
    along = scene.bearing[scene.at(starts)] + np.pi / 2 + rng.normal(0, 0.6, len(starts[0]))
    ribbon = _walks(scene, rng, starts, along, 11, 0.25, allowed, 1.7 * protein.size)
    return ribbon + 0.4 * _spots(scene, rng, where, 8, (1.4,), 0.3)


def membrane(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """The border of every cell, brighter where two meet, and ruffles on the sheet above."""
    line = bell(scene.edge, 1.5 * protein.size) * scene.inside
    meeting = 1 + bell(scene.contact_edge, 1.8)
    uneven = rough(rng, scene.shape, 0.35, 4) * rough(rng, scene.shape, 0.3, 14)
    ruffles = ramp(smooth_noise(rng, scene.shape, 1.6) - 1.6) * decay(scene.free_edge, 30)
    return line * meeting * uneven + scene.height * (0.12 + 0.5 * ruffles)


def mitochondria(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Worms of about 25 px around the nucleus."""
    allowed = scene.inner_cytoplasm(3)
    starts = sprinkle(
        rng, scene.rate(_around_nucleus(scene, protein) * allowed, 34 * protein.number)
    )
    heading = rng.uniform(-np.pi, np.pi, len(starts[0]))
    length = int(26 * protein.size)
    return _walks(scene, rng, starts, heading, length, 0.22, allowed, 1.4 * protein.size)


def nuclear_membrane(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """A thin ring at the nuclear edge, a wrinkle or two, and a faint veil over the nucleus."""
    ring = bell(scene.rim + 1, 1.5 * protein.size) * scene.inside
    wrinkle = bell(smooth_noise(rng, scene.shape, 9.0), 0.06)
    beads = rough(rng, scene.shape, 0.25, 2.5)
    shell: Map = np.maximum(ring, scene.nucleus_soft * (0.16 + 0.2 * wrinkle))
    return shell * beads


def nuclear_punctae(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Ten to forty small round spots in each nucleus."""
    where = ((scene.rim < -4) & (scene.nucleolus < 0.1)).astype(np.float32)
    sizes = (1.3 * protein.size, 2.0 * protein.size)
    return _spots(scene, rng, where, 20 * protein.number, sizes, 0.35) + 0.06 * scene.nucleoplasm


def nucleolus_fc_dfc(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Clusters of fine spots inside each nucleolus."""
    where = (scene.nucleolus > 0.6).astype(np.float32)
    points = sprinkle(rng, where * np.float32(min(0.2, 0.05 * protein.number)))
    fine = stamp(scene.shape, points, rng.lognormal(0, 0.3, len(points[0])), 1.2 * protein.size)
    return fine + (0.12 * scene.nucleolus + 0.03 * scene.nucleoplasm)


def nucleolus_gc(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Whole nucleoli, compact."""
    return scene.nucleolus * rough(rng, scene.shape, 0.15, 1.8) + 0.03 * scene.nucleoplasm


def nucleoplasm(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Fills the nucleus, nucleoli left dark."""
    return scene.nucleoplasm * _grain(scene, protein, rng)


def vesicles(scene: Scene, protein: Protein, rng: Rng) -> Map:
    """Many round spots of several sizes in the cytoplasm."""
    where = _around_nucleus(scene, protein) * scene.inner_cytoplasm(2)
    sizes = (1.1 * protein.size, 1.6 * protein.size, 2.4 * protein.size)
    return _spots(scene, rng, where, 75 * protein.number, sizes, 0.5)


PATTERNS: dict[str, Pattern] = {
    pattern.__name__: pattern
    for pattern in (
        big_aggregates,
        cell_contact,
        centrosome,
        chromatin,
        cytoplasmic,
        cytoskeleton,
        er,
        focal_adhesions,
        golgi,
        membrane,
        mitochondria,
        nuclear_membrane,
        nuclear_punctae,
        nucleolus_fc_dfc,
        nucleolus_gc,
        nucleoplasm,
        vesicles,
    )
}


def draw_protein(grades: Mapping[str, int], scene: Scene, protein: Protein, rng: Rng) -> Map:
    """All labels by grade, over the part that is dissolved in the cell: about 1 at its peaks."""
    body = scene.cytoplasm + np.float32(protein.nuclear) * scene.nucleoplasm
    total = np.float32(protein.diffuse) * body * _grain(scene, protein, rng)
    for label, grade in sorted(grades.items()):
        total += np.float32(_WEIGHT[grade]) * _draw_label(label, scene, protein, rng)
    return total


def _draw_label(label: str, scene: Scene, protein: Protein, rng: Rng) -> Map:
    """One pattern, 1 at the 99.5th percentile of the cells; dispersed in mitosis but on DNA."""
    density = PATTERNS[label](scene, protein, rng)
    inside = density[scene.cell > 0][::5]
    density /= max(float(np.percentile(inside, 99.5)), 1e-6) if inside.size else 1.0
    if label != "chromatin" and scene.mitotic.any():
        density = np.where(scene.mitotic[scene.cell], np.float32(0.25) * scene.height, density)
    return density


def _grain(scene: Scene, protein: Protein, rng: Rng) -> Map:
    return rough(rng, scene.shape, protein.grain, protein.grain_px)


def _around_nucleus(scene: Scene, protein: Protein) -> Map:
    """Cytoplasm, weighted to the nucleus by a protein of small `spread`."""
    return scene.cytoplasm * decay(scene.rim, 8 + 50 * protein.spread)


def _spots(
    scene: Scene,
    rng: Rng,
    where: Map,
    expected: float,
    sizes_px: tuple[float, ...],
    spread: float,
) -> Map:
    """Spots of several sizes and log-normal brightness, `expected` of them a cell."""
    total = np.zeros(scene.shape, np.float32)
    for sigma in sizes_px:
        points = sprinkle(rng, scene.rate(where, expected / len(sizes_px)))
        total += stamp(scene.shape, points, rng.lognormal(0, spread, len(points[0])), sigma)
    return total


def _walks(
    scene: Scene,
    rng: Rng,
    starts: Points,
    heading: npt.NDArray[np.float64],
    length_px: int,
    bend: float,
    allowed: Map,
    sigma_px: float,
) -> Map:
    """Threads that stay in their cell and where `allowed`."""
    home = scene.cell[scene.at(starts)]
    brightness = rng.lognormal(0, 0.3, len(home))
    points, owner = threads(rng, starts, heading.astype(np.float32), length_px, bend)
    inside = np.all([(p >= 0) & (p < n) for p, n in zip(points, scene.shape, strict=True)], axis=0)
    points, owner = (points[0][inside], points[1][inside]), owner[inside]
    here = scene.at(points)
    weight = (scene.cell[here] == home[owner]) * allowed[here] * brightness[owner]
    return stamp(scene.shape, points, weight, sigma_px) / np.float32(2.5 * sigma_px)
