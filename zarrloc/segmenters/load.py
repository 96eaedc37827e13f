"""The segmenter that a config asks for."""

import torch

from zarrloc.config.segment import CELLPOSE_4, SegmentConfig
from zarrloc.segmenters.grow import Grown
from zarrloc.segmenters.seam import Segmenter


def load(config: SegmentConfig, device: str | torch.device = "cpu") -> Segmenter:
    """The segmenter `config` asks for, its weights read, checked and on `device`.

    Raises `WeightsError` (absent or wrong weights, and what to do), `ConfigError`.
    """
    if config.model == "watershed":
        from zarrloc.segmenters import watershed

        segmenter: Segmenter = watershed.WatershedSegmenter(config)
    elif config.model in CELLPOSE_4:
        from zarrloc.segmenters import cpsam

        segmenter = cpsam.load(config, torch.device(device))
    else:
        from zarrloc.segmenters import cellpose

        segmenter = cellpose.load(config, torch.device(device))
    if config.grow_role is None and config.grow_px is None:
        return segmenter
    return Grown(segmenter, config.grow_role, config.grow_px)
