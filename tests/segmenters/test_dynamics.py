"""Flows to masks: against true masks, and against steps written out in numpy."""

import numpy as np
import numpy.typing as npt
import torch
from cellpose.dynamics import masks_to_flows_gpu
from scipy.ndimage import gaussian_filter
from skimage.draw import disk

from zarrloc.segmenters import dynamics

SETTINGS = {"flow_threshold": 0.4, "cellprob_threshold": 0.0}


def discs(
    *where: tuple[int, int, int], shape: tuple[int, int] = (90, 120)
) -> npt.NDArray[np.uint32]:
    masks = np.zeros(shape, np.uint32)
    for label, (y, x, radius) in enumerate(where, start=1):
        masks[disk((y, x), radius, shape=shape)] = label
    return masks


TRUE = discs((20, 20, 15), (20, 49, 14), (60, 60, 22), (80, 115, 18))


def logit(masks: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    return np.where(masks > 0, 5, -5).astype(np.float32)


def flow_of(masks: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    return (dynamics.mask_flows(masks) * dynamics.FLOW_SCALE).astype(np.float32)


def test_mask_flows_are_cellposes_for_each_object_alone() -> None:
    flows = dynamics.mask_flows(TRUE)
    flows[:, [20, 20, 60], [20, 49, 60]] = 0  # in the very centre only rounding has a direction
    for label in range(1, 4):  # whole discs: both find the same centre
        alone = (label == TRUE).astype(np.int64)
        rows, columns = (np.ptp(axis) + 3 for axis in np.nonzero(alone))
        theirs, _ = masks_to_flows_gpu(alone, torch.device("cpu"), niter=2 * (rows + columns))
        theirs[:, [20, 20, 60], [20, 49, 60]] = 0
        np.testing.assert_allclose(flows * alone, theirs, atol=1e-6)


def test_true_flows_give_the_true_masks_back() -> None:
    for interpolate in (True, False):
        masks = dynamics.masks_from_flows(
            flow_of(TRUE), logit(TRUE), 100, interpolate=interpolate, **SETTINGS
        )
        masks = dynamics.clean(masks, 15)
        assert masks.dtype == np.uint32
        # Same partition: ids pair up one to one.
        pairs = np.unique(np.stack((TRUE.ravel(), masks.ravel())), axis=1).T
        assert len(pairs) == 5
        assert set(masks.ravel()) == set(range(5))


def test_interpolated_steps_are_bilinear_and_stay_in_the_field() -> None:
    rng = np.random.default_rng(0)
    # Rough flow would be chaotic: rounding alone would then part the two.
    flow = gaussian_filter(rng.normal(0, 3, (2, 12, 17)), (0, 2, 2)).astype(np.float32)
    inside = rng.random((12, 17)) < 0.5
    expected = np.stack(np.nonzero(inside)).astype(np.float64)
    last = np.array([[11], [16]])
    for _ in range(20):
        low = np.minimum(expected.astype(int), last - 1)
        (y, x), (b, a) = low, expected - low
        step = (
            flow[:, y, x] * (1 - b) * (1 - a)
            + flow[:, y, x + 1] * (1 - b) * a
            + flow[:, y + 1, x] * b * (1 - a)
            + flow[:, y + 1, x + 1] * b * a
        )
        expected = np.clip(expected + step, 0, last)
    ends = dynamics._follow(flow, inside, 20)
    np.testing.assert_allclose(ends.numpy(), expected, atol=5e-3)


def test_an_object_whose_flow_contradicts_its_shape_goes() -> None:
    flow = flow_of(TRUE)
    # All of the third disc flows to its left edge: one heap, but not a disc's flow.
    at = TRUE == 3
    y, x = np.nonzero(at)
    towards = np.stack((60 - y, x.min() + 2 - x)).astype(np.float32)
    flow[:, at] = dynamics.FLOW_SCALE * towards / np.maximum(np.hypot(*towards), 1)
    kept = dynamics.masks_from_flows(flow, logit(TRUE), 100, **SETTINGS)
    everything = dynamics.masks_from_flows(
        flow, logit(TRUE), 100, flow_threshold=0, cellprob_threshold=0
    )
    assert not kept[at].any()
    assert everything[at].any()
    assert (kept > 0)[~at].sum() == (TRUE > 0)[~at].sum()


def test_nothing_inside_gives_no_masks() -> None:
    nothing = dynamics.masks_from_flows(
        np.zeros((2, 9, 9), np.float32), np.full((9, 9), -1, np.float32), 10, **SETTINGS
    )
    assert nothing.dtype == np.uint32
    assert not dynamics.clean(nothing, 15).any()


def test_clean_fills_holes_drops_small_ones_and_numbers_without_gaps() -> None:
    masks = discs((20, 20, 10), (60, 60, 12), (5, 100, 2))
    masks[TRUE.shape[0] - 1, 0:3] = 4
    masks[masks == 2] = 9
    masks[59:62, 59:62] = 0
    cleaned = dynamics.clean(masks, 10)
    np.testing.assert_array_equal(np.unique(cleaned), [0, 1, 2])
    assert (cleaned[55:65, 55:65] == cleaned[50, 60]).all()
    assert not cleaned[-1, :3].any()
