"""Cellpose 4's path with a stand-in for its network: the real one's weights are 1.2 GB."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cellpose.models import CellposeModel
from torch import Tensor

from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters import cpsam, dynamics, segment_block

from .test_dynamics import discs

ROLES = ("nucleus", "protein")
CPU = torch.device("cpu")


class Net(torch.nn.Module):
    """Flows uphill in the second channel, blurred; of tiles of one size alone, as the real ones."""

    device = CPU

    def __init__(self, side: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.side, self.dtype = side, dtype
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.shape[2:] == (self.side, self.side)
        assert x.dtype == self.dtype
        self.seen.append(len(x))
        blurred = x[:, -1:]
        for _ in range(8):
            blurred = torch.nn.functional.avg_pool2d(blurred, 9, 1, 4)
        uphill = torch.gradient(blurred, dim=(2, 3))
        output = torch.cat([50 * uphill[0], 50 * uphill[1], 20 * (x[:, -1:] - 0.5)], 1)
        return output, torch.zeros(len(x), 256, dtype=x.dtype)


def model_of(net: Net, backbone: str = "sam_vitl") -> Any:
    """The real model around another network."""
    model = CellposeModel.__new__(CellposeModel)
    model.net, model.backbone, model.device, model.gpu = net, backbone, CPU, False
    return model


def segmenter(net: Net | None = None, **settings: Any) -> cpsam.CellposeSamSegmenter:
    config = SegmentConfig(model="cpsam", flow_threshold=0, **settings)
    return cpsam.CellposeSamSegmenter(model_of(net or Net(256)), config, CPU)


def shown(where: tuple[int, int, int], shape: tuple[int, int]) -> npt.NDArray[np.uint16]:
    return np.stack([discs(where, shape=shape), np.zeros(shape)]).astype(np.uint16) * 900


WHERES = [((30, 30, 20), (90, 120)), ((240, 250, 28), (280, 500)), ((50, 80, 15), (90, 120))]


@pytest.mark.parametrize(
    ("backbone", "side", "diameter"),
    [("sam_vitl", 256, "auto"), ("sam_vitl", 256, 45.0), ("dino_vitl", 384, "auto")],
)
def test_network_and_masks_are_those_of_cellposes_own_eval(
    backbone: str, side: int, diameter: Any
) -> None:
    dynamics.accept_sparse_default()
    model = segmenter(diameter=diameter)
    model = cpsam.CellposeSamSegmenter(model_of(Net(side), backbone), model.config, CPU)
    inputs = [model.prepare(shown(*where), ROLES) for where in WHERES]
    for state, image in zip(model.network(inputs), inputs, strict=True):
        masks, (_, flow, logit), _ = model.model.eval(
            image, channel_axis=0, normalize=False, diameter=model._diameter, flow_threshold=0
        )
        assert masks.max() > 0
        np.testing.assert_array_equal(model.mask(state) > 0, masks > 0)
        if diameter == "auto":
            np.testing.assert_allclose(state.output, np.stack([*flow, logit]), atol=1e-5)


def test_tiles_of_all_fields_share_batches_and_come_back_in_order() -> None:
    net = Net(256)
    masks = segment_block(segmenter(net, tile_batch=8), [shown(*w) for w in WHERES], ROLES)
    assert net.seen == [8]  # of 1 + 6 + 1
    for mask, (disc, shape) in zip(masks, WHERES, strict=True):
        assert mask.dtype == np.uint32
        assert ((mask > 0) != (discs(disc, shape=shape) > 0)).mean() < 0.01


def test_a_network_of_half_precision_is_given_what_it_wants() -> None:
    model = segmenter(Net(256, torch.bfloat16))
    (state,) = model.network([model.prepare(shown(*WHERES[0]), ROLES)])
    assert state.output.dtype == np.float32
    assert model.mask(state).max() > 0


def test_settings_are_recorded() -> None:
    model = segmenter(diameter=45, tile_batch=5)
    assert model.roles == ("protein", "nucleus")
    assert model.fingerprint != segmenter(diameter=46).fingerprint
    assert segmenter().fingerprint == segmenter(tile_batch=2).fingerprint
