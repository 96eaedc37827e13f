"""Feature sets of known worth for `simulator.py`: each a function of one simulated field."""

from collections.abc import Callable
from itertools import pairwise

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
    """The protein within the true nuclei and cells: where, how grainy, in what shapes."""
    cells, nuclei = fov.cells, fov.nuclei
    inside, nuclear = cells > 0, nuclei > 0
    protein = fov.image[1].astype(np.float32)
    protein -= np.percentile(protein[~inside], 50) if (~inside).any() else protein.min()
    protein = _level_cells(protein, cells)
    contact, free = _borders(cells)
    rim = _signed(nuclear)
    from_contact, from_free = (_away(mask) for mask in (contact, free))
    border = np.minimum(from_contact, from_free)
    zones = {
        "core": rim < -5,
        "rim": np.abs(rim) <= 2,
        "near": (rim > 3) & (rim <= 10),
        "middle": (rim > 10) & (border > 12),
        "outer": (rim > 6) & (border > 3) & (border <= 12),
        "contact": (from_contact <= 1.5) & (from_free > 6) & (rim > 5),
        "beside": (from_contact > 4) & (from_contact <= 8) & (rim > 5),
        "free": (from_free <= 3) & (from_contact > 6),
    }
    zones = {name: zone & inside for name, zone in zones.items()}
    bands = _bands(protein)
    hoechst = _bands(fov.image[0].astype(np.float32))
    values: list[float] = []
    means = [float(protein[zone].mean()) if zone.any() else 0.0 for zone in zones.values()]
    values += [*means, *np.log(np.maximum(np.array(means), 0.02))]
    parts = {
        "nucleus": rim < -4,
        "cytoplasm": inside & (rim > 3) & (border > 3),
        "edge": inside & (border <= 3),
    }
    for part in parts.values():
        for band in bands:
            values += _moments(band[part])
        values += (
            [*np.percentile(protein[part], [1, 10, 50, 90, 99, 99.9])] if part.any() else [0] * 6
        )
    for ours, dna in zip(bands, hoechst, strict=True):
        values.append(_correlation(ours[zones["core"]], dna[zones["core"]]))
    for part in (rim < -2, inside & (rim > 0)):
        for share in (0.25, 0.5):
            values += _shapes(protein, part, share, len(fov.grades))
    values += _one_sidedness(protein, cells, nuclei, (rim > 0) & (rim < 16))
    values += _coherence(protein, parts["cytoplasm"])
    return np.nan_to_num(np.array(values, float), posinf=0, neginf=0)


FEATURES: dict[str, Callable[[Fov], Vector]] = {
    function.__name__: function for function in (intensity, nucleus, geometry, texture)
}


def _zscore(channel: npt.NDArray[np.uint16]) -> Image:
    values = channel.astype(np.float32)
    return (values - values.mean()) / values.std()


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


def _level_cells(protein: Image, cells: npt.NDArray[np.uint16]) -> Image:
    """Every cell divided by its own mean (held above a third of the median cell's)."""
    number = np.maximum(np.bincount(cells.ravel()), 1)
    mean = np.bincount(cells.ravel(), weights=protein.ravel()) / number
    usual = np.median(mean[1:][mean[1:] != 0])
    return (protein / np.maximum(mean, usual / 3)[cells]).astype(np.float32)


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


def _signed(mask: Mask) -> Image:
    return _away(mask) - _away(~mask)


def _shapes(protein: Image, part: Mask, share: float, cells: int) -> list[float]:
    """Number, size, length and brightness of bright components, an average cell."""
    if not part.any():
        return [0.0] * 8
    smooth = ndimage.gaussian_filter(protein, 1.0, truncate=3)
    low, top = np.percentile(smooth[part][::3], [50, 99.7])
    bright, _ = ndimage.label(part & (smooth > low + share * (top - low)))
    area, length, width = _ellipses(bright)
    big = area >= 5  # smaller ones are noise
    if not big.any():
        return [0.0] * 8
    area, length, width = area[big], length[big], width[big]
    return [
        float(np.log(len(area) / cells)),
        float(np.log(np.average(area, weights=area))),
        float(np.log(np.median(area))),
        float(np.log(area.sum() / part.sum())),
        float(np.average(length / np.maximum(width, 1), weights=area)),
        float(np.average(area / (length * width), weights=area)),
        float(np.average(width, weights=area)),
        float(np.log(max((top - low) / max(abs(low), 0.05), 1e-3))),
    ]


def _ellipses(instances: npt.NDArray[np.int32]) -> tuple[Vector, Vector, Vector]:
    """Area and both axes of the ellipse of the same second moments, of every component."""
    y, x = np.nonzero(instances)
    owner = instances[y, x] - 1
    area = np.bincount(owner).astype(float)

    def mean(values: Vector) -> Vector:
        return np.asarray(np.bincount(owner, weights=values) / area)

    dy, dx = y - mean(y.astype(float))[owner], x - mean(x.astype(float))[owner]
    yy, xx, xy = mean(dy * dy) + 1 / 12, mean(dx * dx) + 1 / 12, mean(dy * dx)
    spread = np.hypot(yy - xx, 2 * xy)
    return area, np.sqrt(8 * (yy + xx + spread)), np.sqrt(8 * np.maximum(yy + xx - spread, 1e-3))


def _one_sidedness(
    protein: Image, cells: npt.NDArray[np.uint16], nuclei: npt.NDArray[np.uint16], ring: Mask
) -> list[float]:
    """How far, in mean over cells, the light around a nucleus lies to one side of it."""
    ids = np.arange(1, int(cells.max()) + 1)
    present = np.isin(ids, np.unique(nuclei))
    centres = np.zeros((len(ids) + 1, 2))
    centres[1:][present] = ndimage.center_of_mass(nuclei > 0, nuclei, ids[present])
    y, x = np.nonzero(ring & (cells > 0))
    owner = cells[y, x]
    bearing = np.arctan2(y - centres[owner, 0], x - centres[owner, 1])
    values: list[float] = []
    for power in (1, 2):
        weight = np.maximum(protein[y, x], 0) ** power
        total = np.bincount(owner, weights=weight, minlength=len(ids) + 1)[1:][present] + 1e-6
        east, north = (
            np.bincount(owner, weights=weight * f(bearing), minlength=len(ids) + 1)[1:][present]
            for f in (np.cos, np.sin)
        )
        side = np.hypot(east, north) / total
        values += [*np.percentile(side, [25, 50, 75])]
    return values


def _coherence(protein: Image, part: Mask) -> list[float]:
    """How parallel the texture runs, at three widths of neighbourhood."""
    dy, dx = (ndimage.gaussian_filter(protein, 1.2, order=order) for order in ((1, 0), (0, 1)))
    values = []
    for reach in (3, 6, 12):
        yy, xx, xy = (_blur(p, reach) for p in (dy * dy, dx * dx, dy * dx))
        coherence = np.hypot(yy - xx, 2 * xy) / (yy + xx + 1e-6)
        values += (
            [
                float(coherence[part].mean()),
                float(np.average(coherence[part], weights=(yy + xx)[part])),
            ]
            if part.any()
            else [0.0, 0.0]
        )
    return values
