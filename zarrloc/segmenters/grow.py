"""Nuclei grown into cells: by a distance, or along the light of another channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.morphology import remove_small_holes
from skimage.segmentation import expand_labels, watershed

from zarrloc.pixels.background import measure
from zarrloc.segmenters.objects import Mask
from zarrloc.segmenters.seam import Field, In, S, Segmenter, select

Image = npt.NDArray[np.float32]

RIM, REACH = 0.4, 2.0
"""How far a cell goes beyond its nucleus, in radii of the median nucleus: at least, at most.

In OpenCell's fields a cell has 2 to 3 times the area of its nucleus."""

SMOOTH = 0.06
"""Sd of the smoothing of the light, in the same radii."""

SHARE, NOISE_SDS = 0.25, 4.0
"""A cell's light is above the background by this share of the light around nuclei, which keeps
out-of-focus glow off, and by this many standard deviations of the background."""


def by_distance(seeds: Mask, distance_px: float) -> Mask:
    """`seeds` `(y, x)` grown by up to `distance_px`, meeting halfway; the ids stay."""
    grown: Mask = expand_labels(seeds, distance_px)
    return grown


def along_light(seeds: Mask, light: Image) -> Mask:
    """`seeds` `(y, x)` grown over what `light` `(y, x)` shows of their cells; the ids stay.

    Every cell gets a rim around its nucleus, whatever the light: a protein that fills little of
    the cell neither splits nor shrinks it. Beyond that a cell reaches as far as there is light,
    up to a limit; cells meet halfway between their nuclei.
    """
    if not seeds.any():
        return seeds
    areas = np.bincount(seeds.ravel())[1:]
    radius = float(np.sqrt(np.median(areas[areas > 0]) / np.pi))
    distance = distance_transform_edt(seeds == 0)
    rim = distance <= RIM * radius
    smooth = gaussian_filter(light, SMOOTH * radius)
    lit = _lit(smooth, float(measure(light[None])[0]), rim & (seeds == 0))
    cells = remove_small_holes(rim | (lit & (distance <= REACH * radius)), max_size=int(radius**2))
    grown: Mask = watershed(distance, seeds, mask=cells).astype(np.uint32)
    return grown


def _lit(smooth: Image, background: float, near: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    below = smooth[smooth < background] - background
    noise = float(np.sqrt(np.mean(below**2))) if below.size else 0.0
    level = float(np.median(smooth[near])) - background if near.any() else 0.0
    lit: npt.NDArray[np.bool_] = smooth > background + max(NOISE_SDS * noise, SHARE * level)
    return lit


@dataclass(frozen=True)
class Grown(Generic[In, S]):
    """A segmenter whose masks then grow: along the light of `role`, or by `distance_px`."""

    seeds: Segmenter[In, S]
    role: str | None
    distance_px: float | None

    @property
    def roles(self) -> tuple[str, ...]:
        """The seeds' roles, and `role`."""
        own = () if self.role is None or self.role in self.seeds.roles else (self.role,)
        return (*self.seeds.roles, *own)

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The seeds' fingerprint, and how they grow."""
        return {**self.seeds.fingerprint, "grow": self.role or self.distance_px}

    def prepare(self, field: Field, roles: Sequence[str]) -> tuple[In, Field | None]:
        """What the seeds need, and the light to grow into."""
        light = None if self.role is None else select(field, roles, (self.role,))[0]
        return self.seeds.prepare(field, roles), light

    def network(self, inputs: Sequence[tuple[In, Field | None]]) -> list[tuple[S, Field | None]]:
        """The network of the seeds."""
        states = self.seeds.network([seeds for seeds, _ in inputs])
        return [(state, light) for state, (_, light) in zip(states, inputs, strict=True)]

    def mask(self, state: tuple[S, Field | None]) -> Mask:
        """The seeds' mask, grown; the ids stay."""
        seeds, light = self.seeds.mask(state[0]), state[1]
        if light is None:
            return by_distance(seeds, self.distance_px or 0)
        return along_light(seeds, light)
