"""The product's own block functions, with a fault planted for one field.

The field is known by its first pixel. What befalls it, `raise`, `kill` or `memory`, is in the
environment, which workers inherit; with nothing there the stages are as they always are.
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.stages.conftest import bright_spots
from zarrloc.groups.segmentations import FieldRun
from zarrloc.images.fields import FovSource
from zarrloc.tasks.embed_cells import EmbedCells
from zarrloc.tasks.embed_fovs import EmbedFovs
from zarrloc.tasks.measure_cells import MeasureCells
from zarrloc.tasks.read_images import ReadImages

MARK = 65535
VARIABLE = "ZARRLOC_TEST_PLANTED"


def befall(pixels: npt.NDArray[Any]) -> None:
    """What befalls the marked one of some fields `(..., channel, y, x)`."""
    if not (pixels.reshape(-1, *pixels.shape[-3:])[:, 0, 0, 0] == MARK).any():
        return
    match os.environ.get(VARIABLE):
        case "raise":
            raise RuntimeError("planted")
        case "kill":
            os._exit(9)
        case "memory":
            eaten = []
            while True:
                eaten.append(np.ones(8 << 20))


def segmentation(image: npt.NDArray[Any], roles: tuple[str, ...]) -> npt.NDArray[Any]:
    """Connected bright regions."""
    befall(image)
    return bright_spots(image, roles)


class Read(ReadImages):
    """`ingest`."""

    def read_field(self, source: FovSource) -> npt.NDArray[Any]:
        """The field, unless it is the marked one."""
        pixels = super().read_field(source)
        befall(pixels)
        return pixels


class Measure(MeasureCells):
    """`segment`, its table."""

    def _measured(self, run: FieldRun, fov: int, count: int) -> dict[str, npt.NDArray[Any]]:
        befall(run.field(fov).image)
        return super()._measured(run, fov, count)


class Fields(EmbedFovs):
    """`embed --level fov`."""

    def device(self, data: Any) -> Any:
        """Features, unless the marked field is among them."""
        for _, images in data[1]:
            befall(images.numpy())
        return super().device(data)


class Cells(EmbedCells):
    """`embed --level cell`."""

    def device(self, data: Any) -> Any:
        """Features, unless a wanted cell lies in the marked field."""
        for field in data.fields.values():
            befall(field.image.numpy())
        return super().device(data)
