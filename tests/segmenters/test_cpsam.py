"""Cellpose 4's path with a stand-in for its model: the real one's weights are 1.2 GB."""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cellpose.models import CellposeModel

from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters import cpsam, segment_block

from .test_dynamics import discs, flow_of, logit

ROLES = ("nucleus", "protein")


class Stand:
    """Answers `eval` as the real model does: the discs of each field that it is shown."""

    net = torch.nn.Linear(2, 2)

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def eval(self, x: npt.NDArray[np.float32], **options: Any) -> tuple[Any, Any, Any]:
        inspect.signature(CellposeModel.eval).bind(self, x, **options)
        assert options["channel_axis"] == 1
        self.calls.append({"shape": x.shape} | options)
        masks = [(image[1] > 0.5).astype(np.uint32) for image in x]
        flow = np.stack([flow_of(mask) for mask in masks], axis=1)
        # As the real one, without the axes of length 1.
        return None, [None, flow.squeeze(), np.stack([*map(logit, masks)]).squeeze()], None


def segmenter(**settings: Any) -> cpsam.CellposeSamSegmenter:
    config = SegmentConfig(model="cpsam", **settings)
    return cpsam.CellposeSamSegmenter(Stand(), config, torch.device("cpu"))


def shown(where: tuple[int, int, int], shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    return np.stack([discs(where, shape=shape), np.zeros(shape)]).astype(np.uint16) * 900


def test_fields_of_one_size_go_together_and_come_back_in_order() -> None:
    wheres = [((30, 30, 20), (90, 120)), ((40, 50, 18), (80, 100)), ((50, 80, 15), (90, 120))]
    model = segmenter()
    masks = segment_block(model, [shown(*where) for where in wheres], ROLES)
    assert [call["shape"] for call in model.model.calls] == [(2, 2, 90, 120), (1, 2, 80, 100)]
    for mask, (disc, shape) in zip(masks, wheres, strict=True):
        assert mask.dtype == np.uint32
        assert ((mask > 0) != (discs(disc, shape=shape) > 0)).mean() < 0.01


def test_settings_reach_the_model() -> None:
    model = segmenter(diameter=45, tile_batch=5)
    segment_block(model, [shown((30, 30, 20), (90, 120))], ROLES)
    (call,) = model.model.calls
    assert (call["diameter"], call["batch_size"], call["normalize"]) == (45, 5, False)
    assert model.roles == ("protein", "nucleus")
    assert model.fingerprint != segmenter(diameter=46).fingerprint
    assert segmenter().fingerprint == segmenter(tile_batch=2).fingerprint
