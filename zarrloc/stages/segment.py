"""`zarrloc.segment`: masks, then the table of the cells they hold."""

from pathlib import Path
from typing import Any

from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.stages.segment_fovs import Function, segment_fovs
from zarrloc.stages.tabulate import tabulate


def segment(
    store: str | Path,
    config: SegmentConfig,
    name: str,
    *,
    function: Function | None = None,
    run: RunConfig | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **table: Any,
) -> tuple[Summary, Summary]:
    """Segment every field, then measure its cells: `segmentations/<name>` and `cells/<name>`.

    `function(image (channel, y, x), roles) -> mask (y, x)` takes the place of a model; `table`
    are the settings of `tabulate`: `crop_um`, `keep_percentile`, `block_cells`. Errors as
    `segment_fovs` and `tabulate` raise them.
    """
    common: dict[str, Any] = {"run": run, "overwrite": overwrite, "quiet": quiet}
    masks = segment_fovs(store, config, name, function=function, **common)
    return masks, tabulate(store, name, **table, **common)
