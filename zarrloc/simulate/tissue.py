"""Grows the cells of a field: where they lie, their outlines, territories and nuclei."""

import numpy as np
import numpy.typing as npt

from zarrloc.simulate.scene import Labels, PerCell, Scene
from zarrloc.simulate.textures import Map, ramp, rough, smooth_noise

NUCLEUS_RADIUS_PX = 38.5  # HEK nuclei, 78 px across at 0.2063 um/px
_MARGIN_PX = 55  # centres this far outside the field still show in it
_BEND_PX = 14  # no coordinate is bent further
_ANGLES = 512
_ROUNDED_PX = 47.0  # a mitotic cell's radius


def make_scene(rng: np.random.Generator, shape: tuple[int, int], crowding: float) -> Scene:
    """Grow the cells of one field. `crowding` 0 is sparse, 1 a full carpet."""
    centre = _centres(rng, shape, crowding)
    number = len(centre)
    mitotic = rng.random(number) < 0.012
    size = NUCLEUS_RADIUS_PX * rng.lognormal(0, 0.03)
    radius = (size * rng.lognormal(0, 0.11, number)).astype(np.float32)
    nuclear, cellular = _outlines(rng, radius, mitotic)
    cell, nucleus, rim, bearing = _territories(rng, shape, centre, nuclear, cellular)
    nucleolus = _nucleoli(rng, nucleus, rim, centre, mitotic)
    return Scene(
        cell=cell,
        nucleus=nucleus,
        rim=rim,
        bearing=bearing,
        centre=centre,
        radius=radius,
        polarity=rng.uniform(-np.pi, np.pi, number).astype(np.float32),
        mitotic=mitotic,
        chromatin=_chromatin(rng, nucleus, nucleolus, number),
        nucleolus=nucleolus,
    )


def _centres(rng: np.random.Generator, shape: tuple[int, int], crowding: float) -> Map:
    """`(cell, 2)`: darts thrown at a colony, none too near to another; row 0 is a placeholder."""
    canvas = (shape[0] + 2 * _MARGIN_PX, shape[1] + 2 * _MARGIN_PX)
    colony = smooth_noise(rng, canvas, 90.0)
    inside = colony >= np.quantile(colony, 0.45 * (1 - crowding))
    wanted = round(canvas[0] * canvas[1] / 710**2 * (12 + 35 * crowding) * rng.uniform(0.9, 1.1))
    darts = rng.uniform(0, 1, (wanted * 60, 2)) * canvas
    spacing = rng.uniform(50, 84, len(darts))
    placed = [np.array(canvas) / 2 + rng.uniform(-30, 30, 2)]  # no field is empty
    for dart, gap in zip(darts, spacing, strict=True):
        if len(placed) >= wanted:
            break
        nearest = np.min(np.sum((np.array(placed) - dart) ** 2, axis=1))
        if inside[int(dart[0]), int(dart[1])] and nearest > gap**2:
            placed.append(dart)
    return np.array([[-1e6, -1e6], *placed], np.float32) - np.float32(_MARGIN_PX)


def _outlines(
    rng: np.random.Generator, radius: PerCell, mitotic: npt.NDArray[np.bool_]
) -> tuple[Map, Map]:
    """Radius by direction of every nucleus and of every cell left alone: `(cell, angle)` px."""
    number = len(radius)
    angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False)

    def wave(order: int, amplitude: float) -> npt.NDArray[np.float64]:
        phase = rng.uniform(0, 2 * np.pi, (number, 1))
        size = np.abs(rng.normal(0, amplitude, (number, 1)))
        return np.asarray(size * np.cos(order * angle + phase))

    aspect = np.where(mitotic, 0.40, rng.uniform(0.64, 0.97, number))[:, None]
    turn = rng.uniform(0, np.pi, (number, 1))
    mean = np.where(mitotic, 33.0, radius)[:, None]
    ellipse = mean / np.hypot(
        np.sqrt(aspect) * np.cos(angle - turn), np.sin(angle - turn) / np.sqrt(aspect)
    )
    bumps = np.where(mitotic[:, None], 2.5, 1.0) * (wave(3, 0.03) + wave(4, 0.018) + wave(7, 0.008))
    nuclear = ellipse * np.clip(1 + bumps, 0.75, 1.25)

    lobes = rng.uniform(1.4, 2.3, (number, 1)) + wave(2, 0.24) + wave(3, 0.2) + wave(5, 0.12)
    cellular = np.where(mitotic[:, None], _ROUNDED_PX, np.maximum(mean * lobes, nuclear + 6))
    return nuclear.astype(np.float32), np.minimum(cellular, 105).astype(np.float32)


def _territories(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: Map,
    nuclear: Map,
    cellular: Map,
) -> tuple[Labels, Labels, Map, Map]:
    """Every pixel to the cell whose outline it lies deepest in, on bent coordinates.

    Where outlines come near each other their sum closes the gap, so that a colony's outer border
    runs in the concave arcs of real ones.
    """
    gentle = tuple(3.5 * smooth_noise(rng, shape, 22.0) for _ in range(2))
    strong = tuple(np.clip(4.0 * smooth_noise(rng, shape, 13.0), -9, 9) for _ in range(2))
    cell = np.zeros(shape, np.uint16)
    nucleus = np.zeros(shape, np.uint16)
    deepest = np.full(shape, 9, np.float32)
    core = np.ones(shape, np.float32)
    crowd = np.zeros(shape, np.float32)
    rim = np.full(shape, 999, np.float32)
    bearing = np.zeros(shape, np.float32)
    for number in range(1, len(centre)):
        cy, cx = centre[number]
        reach = 1.25 * float(cellular[number].max()) + _BEND_PX
        top, left = max(0, int(cy - reach)), max(0, int(cx - reach))
        bottom, right = min(shape[0], int(cy + reach)), min(shape[1], int(cx + reach))
        if top >= bottom or left >= right:
            continue
        box = (slice(top, bottom), slice(left, right))
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - cy + gentle[0][box]
        dx = np.arange(left, right, dtype=np.float32) - cx + gentle[1][box]
        angle = np.arctan2(dy, dx)
        index = ((angle + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi))).astype(np.intp)
        index %= _ANGLES
        radius = nuclear[number][index]
        inward = np.hypot(dy, dx) / radius
        outward = np.hypot(dy + strong[0][box], dx + strong[1][box]) / cellular[number][index]
        crowd[box] += np.exp(7 * (1 - outward))
        in_core = inward < core[box]
        won = in_core | ((core[box] >= 1) & (outward < deepest[box]))
        nucleus[box][in_core] = number
        core[box][in_core] = inward[in_core]
        cell[box][won] = number
        deepest[box][won] = np.minimum(outward, deepest[box])[won]
        rim[box][won] = ((inward - 1) * radius)[won]
        bearing[box][won] = angle[won]
    frayed = ramp(smooth_noise(rng, shape, 30.0))  # only here and there is a border ragged
    frayed = 0.35 * smooth_noise(rng, shape, 14.0) + frayed * smooth_noise(rng, shape, 3.5)
    cell[(crowd * np.exp(0.7 * frayed) < 1) & (nucleus == 0)] = 0
    return cell, nucleus, rim, bearing


def _nucleoli(
    rng: np.random.Generator,
    nucleus: Labels,
    rim: Map,
    centre: Map,
    mitotic: npt.NDArray[np.bool_],
) -> Map:
    """Two to six rough discs a nucleus, the first two larger; none in mitosis."""
    shape = (nucleus.shape[0], nucleus.shape[1])
    nucleolus = np.zeros(shape, np.float32)
    ragged = 1.1 * smooth_noise(rng, shape, 3.0)
    for number in range(1, len(centre)):
        count = int(rng.integers(2, 7))
        sizes = np.where(np.arange(count) < 2, rng.uniform(6, 10.5, count), rng.uniform(2.5, 5))
        away, way = 24 * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
        spots = centre[number] + (away * np.array([np.sin(way), np.cos(way)])).T
        for size, (y, x) in zip(sizes, spots, strict=True):
            reach = size + 5
            top, left = max(0, int(y - reach)), max(0, int(x - reach))
            box = (slice(top, max(0, int(y + reach))), slice(left, max(0, int(x + reach))))
            mine = (nucleus[box] == number) & (rim[box] < -3)
            if mitotic[number] or not mine.any():
                continue
            dy = np.arange(top, top + mine.shape[0], dtype=np.float32)[:, None] - np.float32(y)
            dx = np.arange(left, left + mine.shape[1], dtype=np.float32) - np.float32(x)
            inward = np.float32(size) - np.hypot(dy, dx) + ragged[box]
            soft = ramp(inward / 2 + np.float32(0.5)) * mine
            np.maximum(nucleolus[box], soft, out=nucleolus[box])
    return nucleolus


def _chromatin(rng: np.random.Generator, nucleus: Labels, nucleolus: Map, number: int) -> Map:
    """Clumps of DNA, coarser and stronger in some nuclei, sparse in nucleoli."""
    shape = (nucleus.shape[0], nucleus.shape[1])
    contrast = rng.uniform(0.55, 1.35, number).astype(np.float32)[nucleus]
    fine = rough(rng, shape, 0.26, 1.3) ** contrast
    coarse = rough(rng, shape, 0.18, 3.0) ** contrast
    return fine * coarse * rough(rng, shape, 0.08, 9.0) * (1 - np.float32(0.35) * nucleolus)
