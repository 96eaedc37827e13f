"""Segmenting fields of view: a block of fields becomes masks.

A block is one shard of fields. The network takes the tiles of all its fields together; what comes
before and after it runs field by field, off the device, and an error there is that field's alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zarrloc import segmenters
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.block import Block, Output
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import read_fovs
from zarrloc.groups.segmentations import MASK_DTYPE
from zarrloc.segmenters import AnySegmenter
from zarrloc.store import retry
from zarrloc.store.location import Location, StoreClock


@dataclass(frozen=True)
class SegmentFovs:
    """The stage's work on one block of fields."""

    location: Location
    group: str
    roles: tuple[str, ...]
    config: SegmentConfig
    custom: AnySegmenter | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    array: str | None = "mask"

    @property
    def on_device(self) -> bool:
        """Whether there may be a network; `watershed` has none, and needs neither GPU nor torch."""
        return self.custom is not None or self.config.model != "watershed"

    def settle(self) -> dict[str, Any]:
        """How this worker executes it."""
        if not self.on_device:
            return {"device": "cpu"}
        from zarrloc.models.forward import default_device

        return {"device": default_device()}

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""
        return replace(self, execution=execution)

    def segmenter(self) -> AnySegmenter:
        """The loaded model, once a process; on the CPU where no device is settled."""
        if self.custom is not None:
            return self.custom
        device = self.execution.get("device", "cpu")
        key = (self.config.model_dump_json(), device)
        if key not in _LOADED:
            _LOADED[key] = segmenters.load(self.config, device)
        return _LOADED[key]

    def open(self) -> None:
        """Load the model, once it is settled on which device."""
        if self.execution:
            self.segmenter()

    def read(self, block: Block[None], clock: StoreClock) -> "Rows":
        """What the network needs of each field, and the errors of those it can't have."""
        found = read_fovs(self.location, block.start, block.stop, block.part.expect[FOVS], clock)
        rows = Rows(found.image.shape[2:], len(block))
        for at, row in enumerate(block.rows):
            if found.error[at]:
                rows.error[at] = f"fovs: {found.error[at]}"
                continue
            pixels = found.image[at, :, : found.height[at], : found.width[at]]
            if row in block.skip:
                # Its tiles stay in the batch, blank: the neighbours' must not depend on it.
                pixels = np.zeros_like(pixels)
            rows.attempt(at, self.segmenter().prepare, pixels, self.roles)
            if row in block.skip:
                rows.error[at] = block.skip[row]
        return rows

    def device(self, data: "Rows") -> "Rows":
        """The network over all fields at once."""
        if not self.on_device:
            return data
        from zarrloc.models.forward import inference

        live = sorted(data.work)
        with inference(self.execution["threads"]):
            states = self.segmenter().network([data.work[at] for at in live]) if live else []
        data.work.update(zip(live, states, strict=True))
        return data

    def finish(self, block: Block[None], state: "Rows") -> Output:
        """Masks, field by field; one that failed is 0 and has an error."""
        for at in sorted(state.work):
            if state.error[at]:
                continue
            state.attempt(at, self.segmenter().mask, state.work[at])
            if not state.error[at]:
                state.put(at, state.work[at])
        return Output(state.mask, {"cell_count": state.count, "error": state.error})


_LOADED: dict[tuple[str, str], AnySegmenter] = {}


class Rows:
    """A block's fields on their way to masks."""

    def __init__(self, shape: tuple[int, ...], rows: int) -> None:
        self.mask = np.zeros((rows, *shape), MASK_DTYPE)
        self.count = np.zeros(rows, np.int32)
        self.error = np.full(rows, "", np.dtypes.StringDType())
        self.work: dict[int, Any] = {}
        """Place -> what the segmenter made of the field last, which only it knows."""

    def attempt(self, at: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Keep the result of `work`, or what it raised as the field's error."""
        try:
            self.work[at] = work(*arguments)
        except Exception as error:
            if not retry.is_of_a_row(error):
                raise
            self.error[at] = retry.row_error(error)

    def put(self, at: int, mask: npt.NDArray[Any]) -> None:
        """Take a finished mask `(y, x)` with ids 1..n."""
        count, most = int(mask.max(initial=0)), np.iinfo(MASK_DTYPE).max
        if count > most:
            self.error[at] = f"has {count} objects, more than {MASK_DTYPE} can number ({most})"
            return
        self.mask[at, : mask.shape[0], : mask.shape[1]] = mask
        self.count[at] = count
