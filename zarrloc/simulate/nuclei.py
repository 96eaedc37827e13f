"""Fields of nuclei as any widefield microscope takes them, for segmentation: image and truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from zarrloc.simulate.textures import Map, smooth_noise

Labels = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Nuclei:
    """What a field holds and how it was taken. Lengths in pixels, brightness in counts.

    `simulate_nuclei` draws a field of it; `SCENES` has the kinds that segmentation is measured on.
    """

    shape: tuple[int, int] = (512, 512)
    count: int = 50
    diameter_px: float = 32
    size_spread: float = 0.15
    """Sd of the logarithm of diameters."""
    signal: float = 1500
    """Brightness of the average nucleus above the background."""
    spread: float = 0.2
    """Sd of the logarithm of the nuclei's brightness; 1 is a tenfold difference and more."""
    texture: float = 0.15
    touching: float = 0.1
    """Share of nuclei that lie against another one."""
    background: float = 200
    slope: float = 0
    """What the background gains from one side of the field to the other."""
    haze: float = 0.1
    """Light of all nuclei that is spread over several diameters, as a share of it."""
    cloud: float = 0
    """Height of out-of-focus clouds in the background."""
    vignette: float = 0
    """Share of the light that is lost in the corners."""
    blur_px: float = 1.2
    debris: int = 0
    """Small bright specks."""
    ghosts: int = 0
    """Nuclei far out of focus: dim, without an edge, no part of the truth."""
    hot_pixels: int = 0
    mitoses: float = 0
    """Share of nuclei that are condensed: smaller, longer and three times as bright."""
    giants: float = 0
    """Share of nuclei that are twice as wide and a quarter as bright."""
    gain: float = 2
    """Counts a photon; sets the shot noise."""
    read_noise: float = 8
    levels: int | None = None
    """Grey levels that the brightest tenth of a percent is scaled to, as 8-bit exports are."""


def simulate_nuclei(
    scene: Nuclei | None = None, seed: int = 0
) -> tuple[npt.NDArray[np.uint16], Labels]:
    """One field of nuclei, and where they are.

    Parameters
    ----------
    scene
        What the field holds and how it was taken; None for `Nuclei()`.
    seed
        The same seed gives the same field.

    Returns
    -------
    image
        Counts, `(y, x)` uint16.
    masks
        `(y, x)` uint16: 0 background, 1..n the nuclei.

    Examples
    --------
    >>> image, masks = simulate_nuclei(Nuclei(shape=(128, 128), count=3, touching=0), seed=1)
    >>> image.shape, int(masks.max())
    ((128, 128), 3)
    """
    scene = scene or Nuclei()
    rng = np.random.default_rng(seed)
    truth, light = _draw(rng, scene)
    wide = gaussian_filter(light, 1.5 * scene.diameter_px, mode="constant")
    light = light + scene.haze * wide + _debris(rng, scene)
    light = gaussian_filter(light, scene.blur_px) + _ghosts(rng, scene)
    clouds = np.clip(smooth_noise(rng, scene.shape, 3 * scene.diameter_px), 0, None)
    y, x = np.mgrid[-1 : 1 : scene.shape[0] * 1j, -1 : 1 : scene.shape[1] * 1j]
    lit = 1 - scene.vignette * (x**2 + y**2) / 2
    light = scene.background + (light + scene.cloud * clouds) * lit + scene.slope * (x + 1) / 2
    return _counted(rng, scene, light), truth


def _counted(
    rng: np.random.Generator, scene: Nuclei, light: npt.NDArray[np.floating]
) -> npt.NDArray[np.uint16]:
    """What the camera makes of `light`."""
    counts = scene.gain * rng.poisson(np.maximum(light, 0) / scene.gain).astype(np.float32)
    counts += rng.normal(0, scene.read_noise, scene.shape)
    counts.ravel()[rng.integers(0, counts.size, scene.hot_pixels)] = 20 * scene.signal
    if scene.levels is not None:
        low, high = np.percentile(counts, (0.1, 99.9))
        counts = np.clip((counts - low) / max(high - low, 1), 0, 1) * (scene.levels - 1)
    image: Labels = np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
    return image


def _draw(rng: np.random.Generator, scene: Nuclei) -> tuple[Labels, Map]:
    """Masks and light of the nuclei, in focus. Where two overlap, the deeper one owns the pixel."""
    owner = np.zeros(scene.shape, np.uint16)
    deepest = np.zeros(scene.shape, np.float32)
    light = np.zeros(scene.shape, np.float32)
    grain = smooth_noise(rng, scene.shape, max(1.5, 0.06 * scene.diameter_px))
    for number, (cy, cx, radius, aspect, bright) in enumerate(_nuclei(rng, scene), 1):
        reach = int(2.2 * radius) + 2
        box = (
            slice(max(0, int(cy) - reach), max(0, int(cy) + reach)),
            slice(max(0, int(cx) - reach), max(0, int(cx) + reach)),
        )
        y, x = np.ogrid[box]
        y, x = y[y < scene.shape[0]][:, None] - cy, x[x < scene.shape[1]][None] - cx
        angle = np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
        depth = 1 - np.hypot(y, x) / _outline(rng, angle, radius, aspect)
        depth = np.clip(depth, 0, None).astype(np.float32)
        own = depth > deepest[box]
        owner[box][own] = number
        deepest[box][own] = depth[own]
        dome = 0.75 + 0.25 * np.sqrt(np.clip(2 * depth - depth**2, 0, 1))
        here = bright * dome * (1 + scene.texture * grain[box]) * (depth > 0)
        np.maximum(light[box], here, out=light[box])
    sizes = np.bincount(owner.ravel())
    owner[(sizes < 0.1 * np.median(sizes[sizes > 0]))[owner]] = 0  # cut off but for a sliver
    _, ids = np.unique(np.append(0, owner), return_inverse=True)
    numbers: Labels = ids[1:].reshape(scene.shape).astype(np.uint16)
    return numbers, light


def _outline(
    rng: np.random.Generator, angle: npt.NDArray[np.floating], radius: float, aspect: float
) -> npt.NDArray[np.floating]:
    """Radius by direction: an ellipse with a few waves."""
    waves = np.ones_like(angle)
    for order, sd in ((3, 0.04), (4, 0.025), (6, 0.01)):
        waves += rng.normal(0, sd) * np.cos(order * angle + rng.uniform(0, 6))
    narrow = np.sqrt(aspect)
    outline: npt.NDArray[np.floating] = (
        radius * waves / np.hypot(np.cos(angle) * narrow, np.sin(angle) / narrow)
    )
    return outline


def _nuclei(rng: np.random.Generator, scene: Nuclei) -> list[tuple[float, ...]]:
    """Centre y and x, radius, aspect and brightness of each nucleus."""
    placed: list[tuple[float, ...]] = []
    for _ in range(scene.count * 30):
        if len(placed) == scene.count:
            break
        radius = scene.diameter_px / 2 * rng.lognormal(0, scene.size_spread)
        aspect, bright = rng.uniform(0.65, 1), scene.signal * rng.lognormal(0, scene.spread)
        kind = rng.random()
        if kind < scene.mitoses:
            radius, aspect, bright = 0.7 * radius, 0.45, 3 * bright
        elif kind > 1 - scene.giants:
            radius, bright = 2 * radius, bright / 4
        centre = rng.uniform(0, 1, 2) * scene.shape
        beside = placed and rng.random() < scene.touching
        if beside:
            other = placed[rng.integers(len(placed))]
            way = rng.uniform(0, 2 * np.pi)
            apart = (other[2] + radius) * rng.uniform(0.86, 1.0)
            centre = np.array(other[:2]) + apart * np.array([np.sin(way), np.cos(way)])
        gap = 0.84 if beside else 1.15
        inside = bool(((centre >= 0) & (centre < scene.shape)).all())
        if inside and all(np.hypot(*(centre - o[:2])) > gap * (o[2] + radius) for o in placed):
            placed.append((*centre, radius, aspect, bright))
    return placed


def _debris(rng: np.random.Generator, scene: Nuclei) -> Map:
    """Bright specks, each of its own size."""
    marks = np.zeros(scene.shape, np.float32)
    for _ in range(scene.debris):
        size = max(0.7, rng.uniform(0.02, 0.08) * scene.diameter_px)
        spot = np.zeros(scene.shape, np.float32)
        spot[int(rng.integers(scene.shape[0])), int(rng.integers(scene.shape[1]))] = 1
        spot = gaussian_filter(spot, size, mode="constant")
        marks += spot / max(float(spot.max()), 1e-9) * scene.signal * rng.lognormal(0, 0.7)
    return marks


def _ghosts(rng: np.random.Generator, scene: Nuclei) -> Map:
    """Light of nuclei far out of focus."""
    if not scene.ghosts:
        return np.zeros(scene.shape, np.float32)
    dim = replace(scene, count=scene.ghosts, touching=0.0, signal=0.4 * scene.signal)
    blurred: Map = gaussian_filter(_draw(rng, dim)[1], 0.35 * scene.diameter_px)
    return blurred


SCENES: Mapping[str, Nuclei] = MappingProxyType(
    {
        "plain": Nuclei(),
        "empty": Nuclei(count=0),
        "sparse": Nuclei(count=6, shape=(768, 768), touching=0),
        "sloped": Nuclei(count=25, slope=1500),
        "vignette": Nuclei(vignette=0.6, background=100),
        "hazy": Nuclei(haze=0.8, cloud=400),
        "cloudy": Nuclei(count=25, cloud=1500, haze=0.3),
        "out of focus": Nuclei(blur_px=5),
        "debris": Nuclei(debris=60),
        "ghosts": Nuclei(ghosts=20),
        "hot pixels": Nuclei(hot_pixels=200),
        "mitoses": Nuclei(mitoses=0.15),
        "crowded": Nuclei(count=140, touching=0.7),
        "clusters": Nuclei(count=60, touching=0.85),
        "5 px": Nuclei(count=300, diameter_px=6, shape=(384, 384), blur_px=0.7),
        "12 px": Nuclei(count=150, diameter_px=12, shape=(384, 384), blur_px=0.9),
        "100 px": Nuclei(count=30, diameter_px=100, shape=(1024, 1024), blur_px=2.5),
        "100 px, hazy": Nuclei(
            count=30, diameter_px=95, shape=(1024, 1024), blur_px=4, haze=0.6, cloud=300,
            spread=0.5, texture=0.25, debris=20,
        ),
        "8 bits": Nuclei(levels=256, spread=0.4),
        "8 bits, tenfold": Nuclei(levels=256, spread=0.9, count=40),
        "few grey levels": Nuclei(levels=16),
        "tenfold": Nuclei(spread=0.8),
        "giants": Nuclei(giants=0.2, count=40),
        "dim": Nuclei(signal=60, background=200, gain=2),
        "faint, 8 bits": Nuclei(signal=120, background=400, levels=64, spread=0.4),
        "all at once": Nuclei(
            shape=(1024, 1024), count=45, diameter_px=70, spread=0.6, slope=400, haze=0.5,
            cloud=200, vignette=0.4, blur_px=2.5, debris=25, ghosts=5, hot_pixels=20,
            mitoses=0.05, touching=0.3, levels=256,
        ),
    }
)  # fmt: skip
"""Kinds of fields that a method of segmentation meets, by name."""
