"""The geometry of one field: who owns a pixel, and how far it is from what."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from zarrloc.simulate.textures import Index, Map, Points, decay, glow, ramp

Labels = npt.NDArray[np.uint16]
PerCell = npt.NDArray[np.float32]  # indexed by cell id; entry 0 is the background


@dataclass(frozen=True)
class Scene:
    """Maps are `(y, x)`; per-cell arrays are indexed by cell id, entry 0 for the background."""

    cell: Labels  # 0 = background
    nucleus: Labels  # same ids as `cell`
    rim: Map  # px from the cell's own nuclear edge, negative inside it
    bearing: Map  # radians, direction from the nucleus's centre
    centre: Map  # (cell, 2) y, x
    radius: PerCell  # px, mean nuclear radius
    polarity: PerCell  # radians, where centrosome and Golgi lie
    mitotic: npt.NDArray[np.bool_]
    chromatin: Map  # DNA texture, about 1 in the mean
    nucleolus: Map  # 1 inside nucleoli, soft edge

    @property
    def shape(self) -> tuple[int, int]:
        """`(y, x)` of the field."""
        return self.cell.shape[0], self.cell.shape[1]

    @property
    def count(self) -> int:
        """Length of a per-cell array: the number of cells plus one."""
        return len(self.radius)

    @cached_property
    def inside(self) -> Map:
        """1 in cells, 0 outside."""
        return (self.cell > 0).astype(np.float32)

    @cached_property
    def borders(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Pixels on a border between two cells, and on one between a cell and nothing."""
        contact = np.zeros(self.shape, bool)
        free = np.zeros(self.shape, bool)
        for axis in (0, 1):
            cell = np.moveaxis(self.cell, axis, 0)
            differs = cell[1:] != cell[:-1]
            open_side = (cell[1:] == 0) | (cell[:-1] == 0)
            for out, here in ((contact, differs & ~open_side), (free, differs & open_side)):
                view = np.moveaxis(out, axis, 0)
                view[1:] |= here
                view[:-1] |= here
        return contact, free

    @cached_property
    def contact_edge(self) -> Map:
        """px to the nearest border between two cells."""
        return _distance_to(self.borders[0])

    @cached_property
    def free_edge(self) -> Map:
        """px to the nearest border between a cell and nothing."""
        return _distance_to(self.borders[1])

    @cached_property
    def edge(self) -> Map:
        """px to the cell's own border, 0 outside cells."""
        return np.minimum(self.contact_edge, self.free_edge) * self.inside

    @cached_property
    def height(self) -> Map:
        """Thickness of the cell, 0 outside, thin at free edges, about 1 in its middle."""
        return self.inside * (1 - np.float32(0.7) * decay(self.free_edge, 9))

    @cached_property
    def depth(self) -> Map:
        """How high above the glass the middle of what is seen lies, 0 to 1."""
        return np.float32(0.2) + np.float32(0.5) * glow(self.height, 15)

    @cached_property
    def nucleus_soft(self) -> Map:
        """1 in the nucleus, 0 outside, over about two pixels."""
        return ramp(np.float32(0.5) - self.rim / np.float32(2.5)) * (self.nucleus > 0)

    @cached_property
    def nucleoplasm(self) -> Map:
        """The nucleus without most of its nucleoli."""
        return self.nucleus_soft * (1 - np.float32(0.55) * self.nucleolus)

    @cached_property
    def cytoplasm(self) -> Map:
        """Thickness outside the nucleus; a little lies above and below it."""
        return self.height * (1 - np.float32(0.85) * self.nucleus_soft)

    def veil(self, share: float) -> Map:
        """The whole cell, dimly."""
        return self.height * np.float32(share)

    def inner_cytoplasm(self, margin_px: float) -> Map:
        """1 where the nucleus and the cell's border are further away than `margin_px`."""
        return ((self.rim > margin_px) & (self.edge > margin_px)).astype(np.float32)

    def rate(self, where: Map, expected: float) -> Map:
        """Rate map for `sprinkle`: `expected` points a cell, spread over it as `where` is.

        A cell cut by the field's border gets as many points an area as the median cell.
        """
        total = np.bincount(self.cell.ravel(), weights=where.ravel(), minlength=self.count)
        total[0] = 0
        usual = np.median(total[total > 0]) if np.any(total > 0) else 1.0
        scale = np.float32(expected) / np.maximum(total, 0.6 * usual).astype(np.float32)
        scale[0] = 0
        return where * scale[self.cell]

    def at(self, points: Points) -> tuple[Index, Index]:
        """Pixel indices of points inside the field."""
        return points[0].astype(np.intp), points[1].astype(np.intp)


def _distance_to(mask: npt.NDArray[np.bool_]) -> Map:
    if not mask.any():
        return np.full(mask.shape, 1e3, np.float32)
    return np.asarray(distance_transform_edt(~mask), np.float32)
