"""Where cells lie and what shape they have: nuclei, territories, distances, nucleoli."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter

from zarrloc.simulate.fields import Map, smooth_noise

NUCLEUS_RADIUS_PX = 38.5  # HEK nuclei, 78 px across at 0.2063 um/px
_REACH_PX = 118  # no cell reaches further from its centre
_MARGIN_PX = 55  # centres this far outside the field still show in it
_ANGLES = 512

Labels = npt.NDArray[np.uint16]
PerCell = npt.NDArray[np.float32]  # indexed by cell id; entry 0 is the background


@dataclass(frozen=True)
class Scene:
    """The geometry of one field. Maps are `(y, x)`; per-cell arrays are indexed by cell id."""

    cell: Labels  # 0 = background
    nucleus: Labels  # same ids as `cell`
    rim: Map  # px from the cell's own nuclear edge, negative inside it
    rho: Map  # distance from the nucleus's centre in nuclear radii
    bearing: Map  # radians, direction from the nucleus's centre
    centre: npt.NDArray[np.float32]  # (cell, 2) y, x
    radius: PerCell  # px, mean nuclear radius
    polarity: PerCell  # radians, where centrosome and Golgi lie
    mitotic: npt.NDArray[np.bool_]
    chromatin: Map  # DNA texture, mean about 1
    nucleolus: Map  # 1 inside nucleoli, soft edge
    nucleolus_id: npt.NDArray[np.intp]  # (y, x), 0 = none

    @property
    def shape(self) -> tuple[int, int]:
        """`(y, x)` of the field."""
        return self.cell.shape[0], self.cell.shape[1]

    @property
    def count(self) -> int:
        """Length of a per-cell array: the largest id plus one."""
        return len(self.radius)

    @cached_property
    def borders(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Cell pixels beside another cell, and cell pixels beside no cell."""
        contact = np.zeros(self.shape, bool)
        free = np.zeros(self.shape, bool)
        for axis in (0, 1):
            ahead = np.moveaxis(self.cell, axis, 0)
            differs = ahead[1:] != ahead[:-1]
            open_side = (ahead[1:] == 0) | (ahead[:-1] == 0)
            for out, here in ((contact, differs & ~open_side), (free, differs & open_side)):
                view = np.moveaxis(out, axis, 0)
                view[1:] |= here
                view[:-1] |= here
        return contact, free

    @cached_property
    def edge(self) -> Map:
        """px to the cell's own border, 0 outside cells."""
        contact, free = self.borders
        inside: Map = distance_transform_edt((self.cell > 0) & ~contact & ~free)
        return inside.astype(np.float32)

    @cached_property
    def contact_edge(self) -> Map:
        """px to the nearest border between two cells."""
        return _distance_to(self.borders[0])

    @cached_property
    def free_edge(self) -> Map:
        """px to the nearest border between a cell and nothing."""
        return _distance_to(self.borders[1])

    @cached_property
    def height(self) -> Map:
        """Thickness of the cell, 0 outside, about 1 in its middle."""
        thick = (self.cell > 0) * (1 - 0.75 * np.exp(-self.edge / 9))
        return gaussian_filter(thick.astype(np.float32), 1.0)

    @cached_property
    def nucleus_soft(self) -> Map:
        """1 in the nucleus, 0 outside, over about two pixels."""
        return np.clip(0.5 - self.rim / 2.5, 0, 1) * (self.nucleus > 0)

    @cached_property
    def cytoplasm(self) -> Map:
        """Thickness outside the nucleus; a little lies above and below it."""
        return self.height * (1 - 0.85 * self.nucleus_soft)

    def per_cell(self, value: Map) -> PerCell:
        """Sum of `value` over every cell."""
        sums = np.bincount(self.cell.ravel(), weights=value.ravel(), minlength=self.count)
        return sums.astype(np.float32)

    def rate(self, where: Map, expected: npt.ArrayLike) -> Map:
        """Rate map for `sprinkle`: `expected` points a cell, spread over it as `where` is."""
        total = np.maximum(self.per_cell(where), 1e-6)
        scale = np.broadcast_to(np.asarray(expected, np.float32), total.shape) / total
        scale[0] = 0
        return where * scale.astype(np.float32)[self.cell]


def make_scene(rng: np.random.Generator, shape: tuple[int, int], crowding: float) -> Scene:
    """Grow the cells of one field. `crowding` 0 is sparse, 1 a full carpet."""
    centre = _centres(rng, shape, crowding)
    number = len(centre)
    mitotic = np.zeros(number, bool)
    mitotic[1:] = rng.random(number - 1) < 0.012
    radius = (NUCLEUS_RADIUS_PX * rng.lognormal(0, 0.10, number)).astype(np.float32)
    nuclear, cellular = _outlines(rng, radius, mitotic)
    maps = _territories(rng, shape, centre, nuclear, cellular)
    cell, nucleus, rim, rho, bearing = maps
    chromatin, nucleolus, nucleolus_id = _interior(rng, nucleus, rim, centre, mitotic)
    return Scene(
        cell=cell,
        nucleus=nucleus,
        rim=rim,
        rho=rho,
        bearing=bearing,
        centre=centre,
        radius=radius,
        polarity=rng.uniform(-np.pi, np.pi, number).astype(np.float32),
        mitotic=mitotic,
        chromatin=chromatin,
        nucleolus=nucleolus,
        nucleolus_id=nucleolus_id,
    )


def _distance_to(mask: npt.NDArray[np.bool_]) -> Map:
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    distance: Map = distance_transform_edt(~mask)
    return distance.astype(np.float32)


def _centres(
    rng: np.random.Generator, shape: tuple[int, int], crowding: float
) -> npt.NDArray[np.float32]:
    """Darts thrown at a colony: none nearer to another than a nucleus's short side."""
    big = (shape[0] + 2 * _MARGIN_PX, shape[1] + 2 * _MARGIN_PX)
    colony = smooth_noise(rng, big, 110.0)
    open_share = 0.35 * (1 - crowding)
    inside = colony >= np.quantile(colony, open_share)
    wanted = round(big[0] * big[1] / 710**2 * (20 + 29 * crowding) * rng.uniform(0.9, 1.1))
    darts = rng.uniform(0, 1, (wanted * 60, 2)) * np.array(big)
    spacing = rng.uniform(60, 84, len(darts))
    placed = [np.array(big) / 2 + rng.uniform(-30, 30, 2)]  # no field is empty
    for dart, gap in zip(darts, spacing, strict=True):
        if len(placed) >= wanted:
            break
        if inside[int(dart[0]), int(dart[1])] and (
            np.min(np.sum((np.array(placed) - dart) ** 2, axis=1)) > gap**2
        ):
            placed.append(dart)
    return np.array([[0, 0], *placed], np.float32) - np.float32(_MARGIN_PX) * (
        np.arange(len(placed) + 1)[:, None] > 0
    ).astype(np.float32)


def _outlines(
    rng: np.random.Generator, radius: PerCell, mitotic: npt.NDArray[np.bool_]
) -> tuple[Map, Map]:
    """Radius by direction of every nucleus and of every cell left alone: `(cell, angle)` px."""
    number = len(radius)
    angle = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False, dtype=np.float32)

    def wave(order: int, amplitude: npt.ArrayLike) -> Map:
        phase = rng.uniform(0, 2 * np.pi, (number, 1))
        size = np.abs(rng.normal(0, 1, (number, 1))) * np.asarray(amplitude)
        return (size * np.cos(order * angle[None] + phase)).astype(np.float32)

    aspect = np.where(mitotic, 0.42, rng.uniform(0.66, 0.97, number))[:, None]
    turn = rng.uniform(0, np.pi, (number, 1))
    mean = np.where(mitotic, 33.0, radius)[:, None]
    a, b = mean / np.sqrt(aspect), mean * np.sqrt(aspect)
    ellipse = a * b / np.hypot(b * np.cos(angle - turn), a * np.sin(angle - turn))
    rough = np.where(mitotic, 2.0, 1.0)[:, None]
    shape = 1 + wave(3, 0.03) + wave(4, 0.018 * rough) + wave(6, 0.008 * rough)
    nuclear = ellipse * np.clip(shape, 0.75, 1.25)

    reach = rng.uniform(1.55, 2.05, (number, 1))
    lobes = reach + wave(2, 0.22) + wave(3, 0.16) + wave(5, 0.10) + wave(9, 0.04)
    cellular = np.where(mitotic[:, None], 48.0, np.maximum(mean * lobes, nuclear + 7))
    return nuclear.astype(np.float32), np.minimum(cellular, _REACH_PX - 8).astype(np.float32)


def _territories(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: npt.NDArray[np.float32],
    nuclear: Map,
    cellular: Map,
) -> tuple[Labels, Labels, Map, Map, Map]:
    """Every pixel to the cell whose outline it lies deepest in, on gently bent coordinates."""
    bend_y, bend_x = (3.5 * smooth_noise(rng, shape, 22.0) for _ in range(2))
    ragged = 0.05 * smooth_noise(rng, shape, 5.0) + 0.06 * smooth_noise(rng, shape, 14.0)
    cell = np.zeros(shape, np.uint16)
    nucleus = np.zeros(shape, np.uint16)
    depth = 1 + ragged  # a pixel deeper than this belongs to nobody
    core = np.ones(shape, np.float32)
    rho = np.full(shape, 9, np.float32)
    rim = np.full(shape, 999, np.float32)
    bearing = np.zeros(shape, np.float32)
    for number in range(1, len(centre)):
        cy, cx = centre[number]
        top, left = max(0, int(cy) - _REACH_PX), max(0, int(cx) - _REACH_PX)
        bottom, right = min(shape[0], int(cy) + _REACH_PX), min(shape[1], int(cx) + _REACH_PX)
        if top >= bottom or left >= right:
            continue
        box = (slice(top, bottom), slice(left, right))
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - cy + bend_y[box]
        dx = np.arange(left, right, dtype=np.float32)[None] - cx + bend_x[box]
        distance = np.hypot(dy, dx)
        angle = np.arctan2(dy, dx)
        index = ((angle + np.float32(np.pi)) * np.float32(_ANGLES / (2 * np.pi))).astype(np.intp)
        index %= _ANGLES
        radius = nuclear[number][index]
        mine = distance / radius
        far = distance / cellular[number][index]
        in_core = (mine < 1) & (mine < core[box])
        won = in_core | ((core[box] >= 1) & (far < depth[box]))
        nucleus[box][in_core] = number
        core[box][in_core] = mine[in_core]
        cell[box][won] = number
        depth[box][won] = np.minimum(far, depth[box])[won]
        rho[box][won] = mine[won]
        rim[box][won] = ((mine - 1) * radius)[won]
        bearing[box][won] = angle[won]
    return cell, nucleus, rim, rho, bearing


def _interior(
    rng: np.random.Generator,
    nucleus: Labels,
    rim: Map,
    centre: npt.NDArray[np.float32],
    mitotic: npt.NDArray[np.bool_],
) -> tuple[Map, Map, npt.NDArray[np.intp]]:
    """DNA texture and nucleoli: two to six rough discs a nucleus, the first ones larger."""
    shape = (nucleus.shape[0], nucleus.shape[1])
    nucleolus = np.zeros(shape, np.float32)
    nucleolus_id = np.zeros(shape, np.intp)
    ragged = smooth_noise(rng, shape, 3.0)
    serial = 0
    for number in range(1, len(centre)):
        for rank in range(int(rng.integers(2, 7))):
            size = rng.uniform(6.5, 11) if rank < 2 else rng.uniform(2.5, 5.5)
            far, way = 24 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            if mitotic[number]:
                continue
            serial += 1
            y, x = centre[number] + far * np.array([np.sin(way), np.cos(way)])
            reach = int(size + 8)
            top, left = max(0, int(y) - reach), max(0, int(x) - reach)
            box = (slice(top, max(0, int(y) + reach)), slice(left, max(0, int(x) + reach)))
            if not nucleus[box].size:
                continue
            dy = np.arange(top, top + nucleus[box].shape[0])[:, None] - y
            dx = np.arange(left, left + nucleus[box].shape[1])[None] - x
            inward = size - np.hypot(dy, dx) + 1.1 * ragged[box]
            soft = np.clip(inward / 2 + 0.5, 0, 1) * ((nucleus[box] == number) & (rim[box] < -3))
            np.maximum(nucleolus[box], soft, out=nucleolus[box])
            nucleolus_id[box][soft > 0.5] = serial
    contrast = rng.uniform(0.75, 1.45, len(centre)).astype(np.float32)[nucleus]
    clumps = 0.24 * smooth_noise(rng, shape, 2.0) + 0.16 * smooth_noise(rng, shape, 5.0)
    chromatin = np.exp(contrast * clumps) * (1 - 0.35 * nucleolus)
    return chromatin.astype(np.float32), nucleolus, nucleolus_id
