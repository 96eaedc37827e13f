"""Feature sets of known worth for `simulator.py`: each a function of one simulated field."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from zarrloc.simulate import Fov

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
_SCALES_PX = (1.0, 2.0, 4.0, 8.0, 16.0)


def intensity(fov: Fov) -> Vector:
    """Mean, sd and percentiles of both channels, and their logarithms."""
    values = [
        statistic
        for channel in fov.image.astype(np.float64)
        for statistic in (
            channel.mean(),
            channel.std(),
            *np.percentile(channel, [0.1, 1, 5, 25, 50, 75, 95, 99, 99.9]),
        )
    ]
    return np.concatenate([values, np.log(values)])


def nucleus(fov: Fov) -> Vector:
    """Texture of the nucleus channel."""
    return np.array(_texture([_zscore(fov.image[0])]))


def texture(fov: Fov) -> Vector:
    """Texture of both channels and how they go together, without masks."""
    return np.array(_texture([_zscore(channel) for channel in fov.image]))


def geometry(fov: Fov) -> Vector:
    """The protein within the true nuclei and cells: where, how grainy, in what shapes.

    Measured cell by cell; the field's features are quantiles over its cells, which the tenth of
    them that shows another pattern can't move far.
    """
    cells = Cells(fov)
    protein = fov.image[1].astype(np.float32)
    dark = fov.cells == 0
    protein -= np.median(protein[dark]) if dark.any() else protein.min()
    protein /= np.maximum(cells.mean(protein, cells.zone(~dark)), 0.05 * protein.mean())[fov.cells]
    columns = [np.log(np.maximum(cells.mean(protein, zone), 0.02)) for zone in cells.zones]
    bands, dna = _bands(protein), _bands(fov.image[0].astype(np.float32))
    for part in cells.parts:
        for band in bands:
            power = cells.mean(band * band, part) + 1e-6
            columns.append(np.log(power))
            columns.append(np.cbrt(cells.mean(band * band * band, part)) / np.sqrt(power))
    for ours, other in zip(bands, dna, strict=True):
        both = cells.mean(ours * other, cells.zones[0])
        norm = cells.mean(ours * ours, cells.zones[0]) * cells.mean(other * other, cells.zones[0])
        columns.append(both / np.sqrt(norm + 1e-9))
    for mask in cells.masks[:2]:
        columns += _shapes(cells, protein, mask)
    columns += _one_sidedness(cells, protein) + _coherence(cells, protein)
    return np.concatenate([_quantiles(column[cells.whole]) for column in columns])


def _quantiles(values: Vector) -> Vector:
    values = values[np.isfinite(values)]
    return np.asarray(np.percentile(values, [30, 50, 70]) if values.size else np.zeros(3))


class Zone(NamedTuple):
    """Some pixels of the cells: flat indices, the cells they belong to, and how many each has."""

    pixels: npt.NDArray[np.intp]
    owner: npt.NDArray[np.uint16]
    size: npt.NDArray[np.intp]


class Cells:
    """The zones of all cells of a field, and means over them: a value a cell id, NaN for none."""

    def __init__(self, fov: Fov) -> None:
        self.ids, self.nuclei = fov.cells, fov.nuclei
        self.count = int(fov.cells.max()) + 1
        self.whole = np.bincount(fov.nuclei.ravel(), minlength=self.count) > 2000
        self.whole[0] = False
        inside = fov.cells > 0
        contact, free = _borders(fov.cells)
        self.rim = _away(fov.nuclei > 0) - _away(fov.nuclei == 0)
        from_contact, from_free = _away(contact), _away(free)
        border = np.minimum(from_contact, from_free)
        rim = self.rim
        self.zones = [
            self.zone(zone & inside)
            for zone in (
                rim < -5,
                np.abs(rim) <= 2,
                (rim > 3) & (rim <= 10),
                (rim > 10) & (border > 12),
                (rim > 6) & (border > 3) & (border <= 12),
                (from_contact <= 1.5) & (from_free > 6) & (rim > 5),
                (from_contact > 4) & (from_contact <= 8) & (rim > 5),
                (from_free <= 3) & (from_contact > 6),
            )
        ]
        self.masks = [rim < -4, inside & (rim > 3) & (border > 3), inside & (border <= 3)]
        self.parts = [self.zone(mask) for mask in self.masks]

    def zone(self, mask: Mask) -> Zone:
        """The pixels of a mask, once and for all."""
        pixels = np.flatnonzero(mask)
        owner = self.ids.ravel()[pixels]
        return Zone(pixels, owner, np.bincount(owner, minlength=self.count))

    def mean(self, value: npt.NDArray[np.floating], where: Zone) -> Vector:
        """Of `value` over the pixels of every cell that are `where`."""
        total = np.bincount(where.owner, weights=value.ravel()[where.pixels], minlength=self.count)
        none = np.full(self.count, np.nan)
        means: Vector = np.divide(total, where.size, out=none, where=where.size > 0)
        return means

    def range(self, value: Image, where: Zone) -> tuple[Vector, Vector]:
        """Median and 99th percentile of `value` over the pixels of every cell that are `where`."""
        order = np.argsort(where.owner, kind="stable")
        groups = np.split(value.ravel()[where.pixels[order]], np.cumsum(where.size)[:-1])
        found = np.full((2, self.count), np.nan)
        for number, group in enumerate(groups):
            if group.size > 20:
                found[:, number] = np.percentile(group, [50, 99])
        return found[0], found[1]


FEATURES: dict[str, Callable[[Fov], Vector]] = {
    function.__name__: function for function in (intensity, nucleus, geometry, texture)
}


def _zscore(channel: npt.NDArray[np.uint16]) -> Image:
    values = channel.astype(np.float32)
    return np.asarray((values - values.mean()) / values.std(), np.float32)


def _bands(channel: Image) -> list[Image]:
    """Differences of Gaussians, from fine to coarse."""
    blurred = [_blur(channel, sigma) for sigma in _SCALES_PX]
    return [fine - coarse for fine, coarse in pairwise(blurred)]


def _blur(channel: Image, sigma: float) -> Image:
    if sigma < 3:
        return np.asarray(ndimage.gaussian_filter(channel, sigma, truncate=3), np.float32)
    box = round(np.sqrt(6 * sigma**2 + 1))  # two box means of this width have the sd sigma
    blurred: Image = ndimage.uniform_filter(ndimage.uniform_filter(channel, box), box)
    return blurred


def _texture(channels: list[Image]) -> list[float]:
    values: list[float] = []
    all_bands = [_bands(channel) for channel in channels]
    for channel, bands in zip(channels, all_bands, strict=True):
        values += [*np.percentile(channel, [1, 10, 50, 90, 99, 99.9])]
        for band in bands:
            values += _moments(band)
        for fine, coarse in pairwise(bands):
            values.append(_correlation(np.abs(fine), np.abs(coarse)))
            values.append(_correlation(np.abs(fine), coarse))
    if len(channels) == 2:
        wide = _blur(channels[0], 3)
        slope = ndimage.gaussian_gradient_magnitude(wide, 2)
        for one, other in zip(*all_bands, strict=True):
            values.append(_correlation(one, other))
            values.append(_correlation(np.abs(other), wide))
            values.append(_correlation(other, slope))
        values.append(_correlation(*channels))
    return values


def _moments(values: npt.NDArray[np.float32]) -> list[float]:
    """Log sd, skew, log kurtosis and log peak of a band's values."""
    values = values.ravel()
    if values.size < 10:
        return [0.0] * 4
    sd = float(values.std()) + 1e-6
    unit = (values - values.mean()) / sd
    peak = float(np.percentile(values[::3], 99.7))
    return [
        float(np.log(sd)),
        float(np.cbrt(np.mean(unit * unit * unit))),
        float(np.log(np.mean((unit * unit) ** 2))),
        float(np.log(max(peak, 1e-3))),
    ]


def _correlation(one: Image, other: Image) -> float:
    one, other = one.ravel() - one.mean(), other.ravel() - other.mean()
    return float(one @ other / (np.sqrt((one @ one) * (other @ other)) + 1e-6))


def _borders(cells: npt.NDArray[np.uint16]) -> tuple[Mask, Mask]:
    """Pixels of cells beside another cell, and beside none."""
    largest = ndimage.maximum_filter(cells, 3)
    nothing = np.iinfo(cells.dtype).max
    smallest = ndimage.minimum_filter(np.where(cells > 0, cells, nothing), 3)
    contact = (cells > 0) & (largest != smallest)
    free = (cells > 0) & (ndimage.minimum_filter(cells, 3) == 0)
    return contact & ~free, free


def _away(mask: Mask) -> Image:
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask), np.float32)


def _shapes(cells: Cells, protein: Image, part: Mask) -> list[Vector]:
    """Contrast, and number, size, length and filling of bright components, in every cell."""
    smooth = np.asarray(ndimage.gaussian_filter(protein, 1.0, truncate=3), np.float32)
    low, top = cells.range(smooth, cells.zone(part))
    values = [np.log(np.maximum(top - low, 1e-3))]
    level = (smooth - low[cells.ids]) / np.maximum(top - low, 1e-3)[cells.ids]
    for share in (0.3, 0.7):
        bright, _ = ndimage.label(part & (level > share))
        area, length, width, home = _ellipses(bright, cells.ids)
        big = area >= 5  # smaller ones are noise
        area, length, width, home = area[big], length[big], width[big], home[big]
        total = np.bincount(home, weights=area, minlength=cells.count)
        values += [np.log1p(np.bincount(home, minlength=cells.count)), np.log1p(total)]
        for value in (np.log(area), length / width, area / (length * width), width):
            weighted = np.bincount(home, weights=area * value, minlength=cells.count)
            values.append(weighted / np.maximum(total, 1))
    return values


def _ellipses(
    instances: npt.NDArray[np.int32], ids: npt.NDArray[np.uint16]
) -> tuple[Vector, Vector, Vector, npt.NDArray[np.int64]]:
    """Of every component: area, axes of the ellipse of the same second moments, cell id."""
    y, x = np.nonzero(instances)
    owner = instances[y, x] - 1
    area = np.bincount(owner).astype(float)

    def mean(values: npt.ArrayLike) -> Vector:
        return np.asarray(np.bincount(owner, weights=values) / area)

    dy, dx = y - mean(y)[owner], x - mean(x)[owner]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    spread = np.hypot(yy - xx, 2 * xy)
    home = np.zeros(len(area), np.int64)
    home[owner] = ids[y, x]
    length, width = (np.sqrt(8 * np.maximum(yy + xx + s, 1e-3)) for s in (spread, -spread))
    return area, length, width, home


def _one_sidedness(cells: Cells, protein: Image) -> list[Vector]:
    """How far the light around every nucleus lies to one side of it."""
    nuclear = cells.zone(cells.nuclei > 0)
    around = cells.zone((cells.rim > 0) & (cells.rim < 16) & (cells.ids > 0))
    offset = [
        axis - cells.mean(axis, nuclear)[cells.ids] for axis in np.indices(protein.shape, float)
    ]
    away = np.hypot(*offset) + 1e-6
    values = []
    for power in (1, 2):
        light: Image = np.maximum(protein, 0) ** power
        north, east = (cells.mean(light * axis / away, around) for axis in offset)
        values.append(np.hypot(north, east) / (cells.mean(light, around) + 1e-6))
    return values


def _coherence(cells: Cells, protein: Image) -> list[Vector]:
    """How parallel the texture of the cytoplasm runs, at three widths of neighbourhood."""
    dy, dx = (ndimage.gaussian_filter(protein, 1.2, order=order) for order in ((1, 0), (0, 1)))
    values = []
    for reach in (3, 6, 12):
        yy, xx, xy = (_blur(p, reach) for p in (dy * dy, dx * dx, dy * dx))
        strength = np.hypot(yy - xx, 2 * xy)
        along = cells.mean(strength, cells.parts[1])
        values.append(along / (cells.mean(yy + xx, cells.parts[1]) + 1e-6))
    return values
