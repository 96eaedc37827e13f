"""Embedding cells: one feature vector a cell, its crop cut from image and mask on the device.

A block is a run of cells of the table. Each field it touches is read once and decoded once; crops
exist only in a batch.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zarrloc.engine.block import Block, Output
from zarrloc.groups import crops
from zarrloc.groups.crops import CropSpec
from zarrloc.groups.segmentations import read_fields
from zarrloc.models.classic import Classic
from zarrloc.models.forward import Forward, gathered, inference
from zarrloc.store.location import Location, StoreClock
from zarrloc.tasks import rows

Table = dict[str, npt.NDArray[Any]]
"""`fov_index`, `mask_label`, `centroid_y`, `centroid_x`, `keep` of a block's cells."""


class Wanted(NamedTuple):
    """A block's rows of the table, which of them are embedded, and the fields they lie in."""

    columns: Table
    wanted: npt.NDArray[np.bool_]
    fields: dict[int, crops.Field]
    """Row in `fovs` -> the field, on its device."""


class Features(NamedTuple):
    """What the backbone made of the wanted cells."""

    features: npt.NDArray[np.float32]
    """`(wanted cell, feature)`."""
    largest: npt.NDArray[np.float32]
    """`(wanted cell,)`, the largest absolute value that went in."""
    wanted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EmbedCells:
    """The stage's work on one block of `cells/<cells>`."""

    location: Location
    group: str
    cells: str
    forward: Forward | Classic
    spec: CropSpec
    over_mask: bool
    """Normalise over the cell's own pixels, not the whole crop."""
    all_cells: bool
    precision: str
    array: str | None = "embedding"

    def settle(self) -> dict[str, Any]:
        """How this worker executes it."""
        return self.forward.settle(self.spec.size, self.spec.size, "float32", self.precision)

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""
        return replace(self, forward=replace(self.forward, execution=execution))

    @property
    def on_device(self) -> bool:
        """Whether a GPU worker helps."""
        return self.forward.on_device

    def open(self) -> None:
        """Load the backbone."""
        self.forward.load()

    def read(self, block: Block[Table], clock: StoreClock) -> Wanted:
        """The block's rows of the table, and the fields they lie in, on their device."""
        columns = block.part.payload
        wanted = columns["keep"] | self.all_cells
        for row in block.skip:
            wanted[row - block.start] = False
        if not wanted.any():
            return Wanted(columns, wanted, {})
        first, last = columns["fov_index"][[0, -1]].tolist()
        run = read_fields(self.location, self.cells, first, last + 1, block.part.expect, clock)
        fields = {
            fov: crops.Field(*map(self.forward.upload, run.field(fov)))
            for fov in np.unique(columns["fov_index"][wanted]).tolist()
        }
        return Wanted(columns, wanted, fields)

    def device(self, data: Wanted) -> Features:
        """Features of the wanted cells."""
        columns, wanted, fields = data
        with inference(self.forward.execution["threads"]):
            features, largest = self.forward.fitting(
                lambda batch: self._batches(columns, np.flatnonzero(wanted), fields, batch)
            )
        return Features(features, largest, wanted)

    def finish(self, block: Block[Table], state: Features) -> Output:
        """The block's rows: NaN where a cell was not wanted, which is no failure."""
        some, most, wanted = state
        features = np.full((len(block), self.forward.width), np.nan, np.float32)
        largest = np.zeros(len(block), np.float32)
        features[wanted], largest[wanted] = some, most
        error = np.array([block.skip.get(row, "") for row in block.rows], np.dtypes.StringDType())
        return rows.embedded(features, largest, error, ~wanted)

    def _batches(
        self,
        columns: Table,
        rows: npt.NDArray[np.intp],
        fields: dict[int, crops.Field],
        batch: int,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if not len(rows):
            return np.zeros((0, self.forward.width), np.float32), np.zeros(0, np.float32)
        device = self.forward.execution["device"]

        def on_device(fov: int) -> crops.Field:
            return crops.Field(*(part.to(device) for part in fields[fov]))

        centroids = np.stack([columns["centroid_y"][rows], columns["centroid_x"][rows]], axis=1)
        stream = crops.batches(
            columns["fov_index"][rows],
            columns["mask_label"][rows],
            centroids,
            on_device,
            self.spec,
            batch,
        )
        return gathered([self.forward(self._normalised(one), one.inside) for one in stream])

    def _normalised(self, batch: crops.Batch) -> Tensor:
        return crops.z_score(batch.pixels, batch.inside) if self.over_mask else batch.pixels
