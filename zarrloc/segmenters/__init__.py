"""Segmentation: fields in, masks out, through one seam that any model or function can fill.

`load(config, device)` gives a `Segmenter`; `segment_block` runs its three phases in a row.
"""

from zarrloc.segmenters.load import load, refuse_missing_roles, refuse_unknown
from zarrloc.segmenters.seam import AnySegmenter, Segmenter, from_callable, segment_block

__all__ = [
    "AnySegmenter",
    "Segmenter",
    "from_callable",
    "load",
    "refuse_missing_roles",
    "refuse_unknown",
    "segment_block",
]
