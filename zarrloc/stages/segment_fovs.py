"""Segment: each field of view gets a mask in `segmentations/<name>`.

A block is one shard of fields. The network takes the tiles of all its fields together; what comes
before and after it runs field by field, off the device, and an error there is that field's alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zarrloc import segmenters
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.block import Block, Output
from zarrloc.engine.drive import drive, open_group
from zarrloc.engine.ledger import receipt_variables
from zarrloc.engine.run import new_run_id
from zarrloc.engine.telemetry import Summary
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs, read_fov_block
from zarrloc.models.forward import default_device, inference
from zarrloc.segmenters import Segmenter
from zarrloc.segmenters.seam import select
from zarrloc.store.digest import combine
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.lock import hold
from zarrloc.store.template import PENDING, StageAttrs, Variable, check_name

COLUMNS = ("cell_count", "error")
MASK_DTYPE = "uint16"

Function = Callable[[npt.NDArray[Any], tuple[str, ...]], npt.NDArray[Any]]


@dataclass(frozen=True)
class SegmentStage:
    """The stage's work on one block of fields."""

    location: Location
    group: str
    roles: tuple[str, ...]
    config: SegmentConfig
    custom: Segmenter | None = None
    execution: dict[str, Any] = field(default_factory=dict)
    array: str | None = "mask"
    on_device: bool = True

    def settle(self) -> dict[str, Any]:
        """How this worker executes it."""
        return {"device": default_device()}

    def settled(self, execution: dict[str, Any]) -> Self:
        """The stage with its execution fixed."""
        return replace(self, execution=execution)

    def segmenter(self) -> Segmenter:
        """The loaded model, once a process."""
        device = self.execution.get("device") or default_device()
        key = (self.config.model_dump_json(), device)
        if self.custom is not None:
            return self.custom
        if key not in _LOADED:
            _LOADED[key] = segmenters.load(self.config, device)
        return _LOADED[key]

    def open(self) -> None:
        """Load the model."""
        self.segmenter()

    def read(self, block: Block, clock: StoreClock) -> Any:
        """What the network needs of each field, and the errors of those it can't have."""
        found = read_fov_block(self.location, block, clock)
        rows = _Rows(found.image.shape[2:], len(block))
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

    def device(self, data: Any) -> Any:
        """The network over all fields at once."""
        live = sorted(data.work)
        with inference(self.execution["threads"]):
            states = self.segmenter().network([data.work[at] for at in live]) if live else []
        data.work.update(zip(live, states, strict=True))
        return data

    def finish(self, block: Block, state: Any) -> Output:
        """Masks, field by field; one that failed is 0 and has an error."""
        for at in sorted(state.work):
            if state.error[at]:
                continue
            state.attempt(at, self.segmenter().mask, state.work[at])
            if not state.error[at]:
                state.put(at, state.work[at])
        return Output(state.mask, {"cell_count": state.count, "error": state.error})


_LOADED: dict[tuple[str, str], Segmenter] = {}


class _Rows:
    """A block's fields on their way to masks."""

    def __init__(self, shape: tuple[int, ...], rows: int) -> None:
        self.mask = np.zeros((rows, *shape), MASK_DTYPE)
        self.count = np.zeros(rows, np.int32)
        self.error = np.full(rows, "", np.dtypes.StringDType())
        self.work: dict[int, Any] = {}

    def attempt(self, at: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Keep the result of `work`, or what it raised as the field's error."""
        try:
            self.work[at] = work(*arguments)
        except Exception as error:
            self.error[at] = f"{type(error).__name__}: {error}"

    def put(self, at: int, mask: npt.NDArray[Any]) -> None:
        """Take a finished mask `(y, x)` with ids 1..n."""
        count, most = int(mask.max(initial=0)), np.iinfo(MASK_DTYPE).max
        if count > most:
            self.error[at] = f"has {count} objects, more than {MASK_DTYPE} can number ({most})"
            return
        self.mask[at, : mask.shape[0], : mask.shape[1]] = mask
        self.count[at] = count


def segment_fovs(
    store: str | Path,
    config: SegmentConfig,
    name: str,
    *,
    function: Function | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Summary:
    """Segment every field into `segmentations/<name>`: `mask (fov, y, x)`, 0 background.

    Ids are 1..n in each field; `cell_count (fov)` is n. A field that failed has a mask of zeros
    and an `error`. `function(image (channel, y, x), roles) -> mask (y, x)` takes the place of a
    model. Raises `ConfigError`, `ChannelError`, `WeightsError`, `StoreError` or `LockedError`
    before anything is written.
    """
    location, group = Location.of(store), f"segmentations/{check_name(name)}"
    fovs = Fovs.of(location)
    custom = None if function is None else segmenters.from_callable(function)
    stage = SegmentStage(location, group, fovs.roles, config, custom)
    segmenter = stage.segmenter()
    settings: Mapping[str, Any] = dict(segmenter.fingerprint)
    wanted = StageAttrs.of(
        "segment", settings, {FOVS: fovs.fingerprint},
        block_rows=fovs.shard, array="mask", digested=list(COLUMNS),
    )  # fmt: skip
    _refuse_missing_roles(segmenter, fovs)
    with hold(location, group, new_run_id()) as token:
        ledger = open_group(
            location, group, wanted, _variables(fovs),
            columns=COLUMNS, coords=fovs.coords, overwrite=overwrite,
        )  # fmt: skip
        inputs = [combine([wanted.fingerprint, int(output)]) for output in fovs.block_output]
        summary = drive(
            stage, ledger, inputs, run or RunConfig(), token,
            expect={FOVS: fovs.block_output}, quiet=quiet,
        )  # fmt: skip
    counts = ledger.columns["cell_count"]
    summary.notes.append(f"{int(counts.sum())} objects, {counts.mean():.1f} a field")
    return summary


def _refuse_missing_roles(segmenter: Segmenter, fovs: Fovs) -> None:
    if segmenter.roles:
        select(np.zeros((len(fovs.roles), 1, 1), np.float32), fovs.roles, segmenter.roles)


def _variables(fovs: Fovs) -> dict[str, Variable]:
    return {
        "mask": Variable(
            ("fov", "y", "x"),
            MASK_DTYPE,
            (fovs.rows, fovs.height, fovs.width),
            grid_chunk=1,
            grid_shard=fovs.shard,
            attrs={"long_name": "0 background, 1..n the objects of the field"},
        ),
        "cell_count": Variable(("fov",), "int32", (fovs.rows,)),
        "error": Variable(("fov",), "string", (fovs.rows,), PENDING),
        **{name: Variable(("fov",), "string", (fovs.rows,)) for name in fovs.coords},
        **receipt_variables(fovs.rows, fovs.shard),
    }
