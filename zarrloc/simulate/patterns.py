"""The 17 patterns: where in the cells a protein of each label is.

Every pattern is a function `(scene, protein, rng) -> (y, x)` float32, non-negative, of any scale.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from zarrloc.simulate.cells import Scene
from zarrloc.simulate.fields import Map, Points, smooth_noise, sprinkle, stamp, threads
from zarrloc.simulate.proteins import Protein

Pattern = Callable[[Scene, Protein, np.random.Generator], Map]


def _texture(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    return np.exp(protein.grain * smooth_noise(rng, scene.shape, protein.grain_px))


def _nuclei(scene: Scene) -> Map:
    return scene.nucleus_soft * (1 - 0.6 * scene.nucleolus)


def _around_nucleus(scene: Scene, protein: Protein) -> Map:
    """Cytoplasm, weighted to the nucleus by a protein of small `spread`."""
    reach = 8 + 50 * protein.spread
    return scene.cytoplasm * np.exp(-np.maximum(scene.rim, 0) / reach)


def _in_cytoplasm(scene: Scene, margin_px: float) -> Map:
    return ((scene.rim > margin_px) & (scene.edge > margin_px)).astype(np.float32)


def _spots(
    scene: Scene,
    rng: np.random.Generator,
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
    rng: np.random.Generator,
    starts: Points,
    angle: Map,
    length_px: int,
    bend: float,
    allowed: Map,
    sigma_px: float,
) -> Map:
    """Threads that stay in their cell and where `allowed`."""
    (y, x), owner = threads(rng, starts, angle, length_px, bend)
    iy, ix = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
    height, width = scene.shape
    home = scene.cell[starts[0].astype(np.intp), starts[1].astype(np.intp)]
    brightness = rng.lognormal(0, 0.3, len(angle))
    inside = (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
    y, x, iy, ix, owner = (a[inside] for a in (y, x, iy, ix, owner))
    weight = (scene.cell[iy, ix] == home[owner]) * allowed[iy, ix] * brightness[owner]
    return stamp(scene.shape, (y, x), weight, sigma_px) / np.float32(2.5 * sigma_px)


def nucleoplasm(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Fills the nucleus, nucleoli left dark."""
    return _nuclei(scene) * _texture(scene, protein, rng)


def chromatin(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Follows the DNA's own texture, also on a mitotic plate."""
    return scene.nucleus_soft * (1 - 0.5 * scene.nucleolus) * scene.chromatin**2


def nuclear_membrane(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """A thin ring at the nuclear edge with a wrinkle or two, and a faint veil over the nucleus."""
    ring = np.exp(-((scene.rim + 1) ** 2) / (2 * (1.5 * protein.size) ** 2))
    wrinkle = np.exp(-(smooth_noise(rng, scene.shape, 9.0) ** 2) / 0.008)
    inside = scene.nucleus_soft * (0.16 + 0.2 * wrinkle)
    beads = np.exp(0.25 * smooth_noise(rng, scene.shape, 2.5))
    return np.maximum(ring * (scene.cell > 0), inside) * beads


def nuclear_punctae(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Ten to forty small round spots in each nucleus."""
    where = ((scene.rim < -4) & (scene.nucleolus < 0.1)).astype(np.float32)
    sizes = (1.3 * protein.size, 2.0 * protein.size)
    return _spots(scene, rng, where, 20 * protein.number, sizes, 0.35) + 0.06 * _nuclei(scene)


def nucleolus_gc(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Whole nucleoli, compact."""
    grain = np.exp(0.15 * smooth_noise(rng, scene.shape, 1.8))
    return scene.nucleolus * grain + 0.03 * _nuclei(scene)


def nucleolus_fc_dfc(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Clusters of fine spots inside each nucleolus."""
    where = (scene.nucleolus > 0.6).astype(np.float32)
    points = sprinkle(rng, where * np.float32(min(0.9, 0.055 * protein.number)))
    fine = stamp(scene.shape, points, rng.lognormal(0, 0.3, len(points[0])), 1.2 * protein.size)
    return fine + 0.12 * scene.nucleolus + 0.03 * _nuclei(scene)


def cytoplasmic(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Fills the cell but for the nucleus, with small empty vacuoles."""
    points = sprinkle(rng, scene.rate(_in_cytoplasm(scene, 5), 5.0))
    holes = stamp(scene.shape, points, 1.0, 2.2)
    body = scene.cytoplasm + 0.18 * scene.nucleus_soft
    return body * _texture(scene, protein, rng) * np.exp(-0.7 * holes)


def er(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """A net of fine tubules, denser at the nucleus, with the envelope as part of it."""
    net = np.maximum(
        np.exp(-(smooth_noise(rng, scene.shape, 2.4 * protein.size) ** 2) / 0.12),
        np.exp(-(smooth_noise(rng, scene.shape, 3.6 * protein.size) ** 2) / 0.06),
    )
    near = np.exp(-np.maximum(scene.rim, 0) / (14 + 22 * protein.spread))
    envelope = np.exp(-(scene.rim**2) / (2 * 1.5**2)) * (scene.cell > 0)
    return scene.cytoplasm * (0.12 + near) * (0.3 + 0.9 * net) + 0.8 * envelope


def mitochondria(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Worms of 15 to 45 px around the nucleus."""
    allowed = _in_cytoplasm(scene, 3)
    starts = sprinkle(
        rng, scene.rate(allowed * _around_nucleus(scene, protein), 34 * protein.number)
    )
    angle = rng.uniform(-np.pi, np.pi, len(starts[0])).astype(np.float32)
    length = int(26 * protein.size)
    return _walks(scene, rng, starts, angle, length, 0.22, allowed, 1.5 * protein.size)


def golgi(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """A ribbon of short bent stacks on one side of the nucleus."""
    turn = np.angle(np.exp(1j * (scene.bearing - scene.polarity[scene.cell])))
    near = np.exp(-((scene.rim - 8) ** 2) / (2 * 5.0**2)) * np.exp(-(turn**2) / (2 * 0.45**2))
    allowed = ((scene.rim > 0) & (scene.edge > 1)).astype(np.float32)
    where = (near * allowed).astype(np.float32)
    starts = sprinkle(rng, scene.rate(where, 16 * protein.number))
    along = scene.bearing[starts[0].astype(np.intp), starts[1].astype(np.intp)] + np.pi / 2
    angle = (along + rng.normal(0, 0.6, len(along))).astype(np.float32)
    ribbon = _walks(scene, rng, starts, angle, 11, 0.25, allowed, 1.8 * protein.size)
    return ribbon + 0.4 * _spots(scene, rng, where, 8, (1.4,), 0.3)


def vesicles(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Many round spots of several sizes in the cytoplasm."""
    where = _around_nucleus(scene, protein) * _in_cytoplasm(scene, 2)
    sizes = (1.1 * protein.size, 1.6 * protein.size, 2.4 * protein.size)
    return _spots(scene, rng, where, 75 * protein.number, sizes, 0.5)


def big_aggregates(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """One to four large lumps in the cytoplasm."""
    where = _in_cytoplasm(scene, 5)
    points = sprinkle(rng, scene.rate(where, 1.2 + 1.3 * protein.number))
    lump = stamp(scene.shape, points, rng.lognormal(0, 0.35, len(points[0])), 5.2 * protein.size)
    solid = np.clip(lump * np.exp(0.35 * smooth_noise(rng, scene.shape, 2.5)) - 0.25, 0, 1)
    return solid * (scene.cell > 0) * (1 - 0.8 * scene.nucleus_soft) + 0.03 * scene.height


def centrosome(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """One or two adjacent points beside the nucleus, in faint cytosol."""
    number = scene.count
    away = scene.radius * 0.98 + rng.uniform(3, 9, number)
    way = scene.polarity
    y = scene.centre[:, 0] + away * np.sin(way)
    x = scene.centre[:, 1] + away * np.cos(way)
    apart = rng.uniform(0, 2 * np.pi, number)
    gap = np.where(rng.random(number) < 0.6, rng.uniform(4, 7, number), 0)
    pair = (
        np.concatenate([y, y + gap * np.sin(apart)])[2:],
        np.concatenate([x, x + gap * np.cos(apart)])[2:],
    )
    keep = np.ones(len(pair[0]), bool)
    weight = rng.lognormal(0, 0.25, len(keep))
    points = stamp(scene.shape, pair, weight, 1.7 * protein.size)
    cloud = stamp(scene.shape, pair, 0.05, 6.0)
    return (points + cloud) * (scene.cell > 0) + 0.03 * scene.height


def cytoskeleton(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Long filaments: stress fibres along each cell, and a radial array in others."""
    number = scene.count
    inside = (scene.edge > 1.5).astype(np.float32)
    starts = sprinkle(rng, scene.rate(inside, 16 * protein.number))
    home = scene.cell[starts[0].astype(np.intp), starts[1].astype(np.intp)]
    axis = rng.uniform(-np.pi, np.pi, number)[home]
    radial = scene.bearing[starts[0].astype(np.intp), starts[1].astype(np.intp)]
    heading = np.where(protein.spread > 0.5, axis, radial)
    angle = (heading + rng.normal(0, 0.16, len(home))).astype(np.float32)
    angle += np.where(rng.random(len(home)) < 0.5, 0, np.pi).astype(np.float32)
    fibres = _walks(scene, rng, starts, angle, 85, 0.02, inside, 1.2 * protein.size)
    cortex = np.exp(-scene.edge / 2) * (scene.cell > 0)
    return fibres + 0.25 * cortex + 0.06 * scene.height


def membrane(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """The border of every cell, twice as bright where two meet, and ruffles on the sheet above."""
    line = np.exp(-((scene.edge / (1.6 * protein.size)) ** 2) / 2) * (scene.cell > 0)
    both = 1 + np.exp(-((scene.contact_edge / 2.5) ** 2))
    ruffles = np.clip(smooth_noise(rng, scene.shape, 1.6) - 1.6, 0, 2)
    uneven = np.exp(0.3 * smooth_noise(rng, scene.shape, 5.0))
    return line * both * uneven + scene.height * (0.12 + 0.2 * ruffles)


def cell_contact(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Beaded lines only where two cells touch."""
    line = np.exp(-((scene.contact_edge / (1.5 * protein.size)) ** 2) / 2)
    beads = np.exp(0.6 * smooth_noise(rng, scene.shape, 2.5))
    return line * beads * (scene.cell > 0) + 0.04 * scene.height


def focal_adhesions(scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """Short radial dashes under the outer part of the cell, most at its free edges."""
    band = np.exp(-((scene.edge - 7) ** 2) / (2 * 5.0**2)) * (scene.edge > 1.5)
    where = (band * (0.3 + np.exp(-scene.free_edge / 14))).astype(np.float32)
    starts = sprinkle(rng, scene.rate(where, 24 * protein.number))
    outward = scene.bearing[starts[0].astype(np.intp), starts[1].astype(np.intp)]
    angle = (outward + rng.normal(0, 0.25, len(outward))).astype(np.float32)
    inside = (scene.edge > 0.5).astype(np.float32)
    dashes = _walks(scene, rng, starts, angle, int(11 * protein.size), 0.03, inside, 1.5)
    return dashes + 0.06 * scene.height


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
_ON_MITOTIC_PLATE = ("chromatin",)
_WEIGHT = (0.0, 0.15, 0.4, 1.0)  # of a grade


def draw_label(label: str, scene: Scene, protein: Protein, rng: np.random.Generator) -> Map:
    """One label's pattern, 1 at the 99.5th percentile of the cells; dispersed in mitosis."""
    density = PATTERNS[label](scene, protein, rng)
    inside = scene.cell > 0
    if scene.mitotic.any() and label not in _ON_MITOTIC_PLATE:
        level = np.float32(0.3 * np.percentile(density[inside], 90))
        density = np.where(scene.mitotic[scene.cell], level * scene.height, density)
    top = np.percentile(density[inside], 99.5) if inside.any() else 1.0
    return (density / np.float32(max(top, 1e-6))).astype(np.float32)


def draw_protein(
    grades: dict[str, int], scene: Scene, protein: Protein, rng: np.random.Generator
) -> Map:
    """All labels by grade, over the part that is dissolved in the cell."""
    body = scene.cytoplasm + np.float32(protein.nuclear) * _nuclei(scene)
    total = np.float32(protein.diffuse) * body * _texture(scene, protein, rng)
    for label, grade in sorted(grades.items()):
        total += np.float32(_WEIGHT[grade]) * draw_label(label, scene, protein, rng)
    return gaussian_filter(total, 0.6)
