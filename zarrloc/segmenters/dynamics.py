"""From a Cellpose network's flows to masks, with the numbers of Cellpose 3.1 on a CPU.

Pixels follow the flow to where it converges; the heaps they form are the objects; an object
whose shape would give another flow than the network's is dropped (Stringer et al., Nature
Methods 2021). Seeding and clean-up are Cellpose 4's own functions. Two steps are ours, as
version 4 changed their numbers: it samples the flow half a pixel off, and diffuses all objects
for as long as the largest needs.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects
from torch.nn.functional import grid_sample

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose.dynamics import get_masks_torch
from cellpose.utils import fill_holes_and_remove_small_masks

# isort: on
from zarrloc.segmenters.objects import Mask, numbered, without_small

FLOW_SCALE = 5.0
"""The network is trained on unit flows times this."""

Flow = npt.NDArray[np.float32]


def masks_from_flows(
    flow: Flow,
    logit: npt.NDArray[np.float32],
    steps: int,
    *,
    interpolate: bool = True,
    flow_threshold: float,
    cellprob_threshold: float,
) -> Mask:
    """Masks `(y, x)` of objects that flow `(2, y, x)` converges in, before their clean-up.

    `logit` `(y, x)` above `cellprob_threshold` is inside an object. `interpolate=False` steps from
    whole pixel to whole pixel, as Cellpose does where it only measures sizes.
    """
    inside = logit > cellprob_threshold
    if not inside.any():
        return np.zeros(logit.shape, np.uint32)
    follow = _follow if interpolate else _follow_nearest
    ends = follow(flow * inside / FLOW_SCALE, inside, steps)
    accept_sparse_default()
    masks: Mask = get_masks_torch(ends.int(), np.nonzero(inside), logit.shape).astype(np.uint32)
    if flow_threshold > 0 and masks.any():
        masks[np.isin(masks, 1 + np.nonzero(_flow_errors(masks, flow) > flow_threshold)[0])] = 0
    return masks


def accept_sparse_default() -> None:
    """Opt out of torch's checks of sparse tensors, as it does unasked but not without a warning.

    Cellpose clamps the indices of its histogram before it makes it one.
    """
    torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]


def clean(masks: npt.NDArray[np.integer[Any]], min_size: int) -> Mask:
    """Masks with holes filled and those under `min_size` px removed, numbered 1..n."""
    # Version 3.1 takes the n-th id for id n. Where the flow check has left gaps, a small mask
    # thus takes another one with it: kept, as it also decides the diameter the size model finds.
    small = 1 + np.nonzero(np.unique(masks, return_counts=True)[1][1:] < min_size)[0]
    kept = numbered(np.where(np.isin(masks, small), 0, masks))
    filled = fill_holes_and_remove_small_masks(kept, min_size=0)
    return without_small(filled, min_size)


def _follow(flow: Flow, inside: npt.NDArray[np.bool_], steps: int) -> torch.Tensor:
    """Where the pixels `inside` end, `(2, pixels)` in px: bilinear steps that stay in the field."""
    height, width = inside.shape
    last = torch.tensor([width - 1, height - 1], dtype=torch.float32)
    # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's, x before y.
    field = torch.from_numpy(flow[::-1].copy()) * (2 / last)[:, None, None]
    y, x = np.nonzero(inside)
    points = torch.from_numpy(np.stack((x, y), axis=-1).astype(np.float32)) * 2 / last - 1
    points = points[None, None]
    for _ in range(steps):
        step = grid_sample(field[None], points, padding_mode="border", align_corners=True)
        points.add_(step.movedim(1, -1)).clamp_(-1, 1)
    return ((points[0, 0] + 1) / 2 * last).T.flip(0)


def _follow_nearest(flow: Flow, inside: npt.NDArray[np.bool_], steps: int) -> torch.Tensor:
    """As `_follow`, with the flow of the pixel a point is in."""
    height, width = inside.shape
    last = torch.tensor([[height - 1], [width - 1]], dtype=torch.float32)
    field = torch.from_numpy(flow).flatten(1)
    points = torch.from_numpy(np.stack(np.nonzero(inside)).astype(np.float32))
    for _ in range(steps):
        y, x = points.int()
        points = torch.minimum((points + field[:, y * width + x]).clamp_(min=0), last)
    return points


def _flow_errors(masks: Mask, flow: Flow) -> npt.NDArray[np.float64]:
    """Mean squared error of each object's flow, `(objects,)`: the network's against its shape's."""
    count = int(masks.max()) + 1
    squares = ((mask_flows(masks) - flow / FLOW_SCALE) ** 2).sum(axis=0)
    sums = np.bincount(masks.ravel(), squares.ravel(), minlength=count)
    areas = np.bincount(masks.ravel(), minlength=count)
    return (sums / np.maximum(areas, 1))[1:]


def mask_flows(masks: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    """Unit flow `(2, y, x)` of each object in `masks` `(y, x)` towards its centre.

    Heat is put into the object's centre and spread over its own pixels (the mean of 3 x 3) for
    twice its height plus width in steps; the flow is the direction in which it rises.
    """
    flow = np.zeros((2, *masks.shape))
    for label, box in enumerate(find_objects(masks), start=1):
        if box is None:
            continue
        inside = np.pad(masks[box] == label, 1)
        heat = _diffuse(inside)
        y, x = np.nonzero(inside)
        slope = np.stack((heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]))
        flow[:, box[0].start + y - 1, box[1].start + x - 1] = slope / (1e-60 + np.hypot(*slope))
    return flow


def _diffuse(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    height, width = inside.shape
    y, x = np.nonzero(inside)
    middle = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).argmin()
    centre = y[middle], x[middle]
    share = inside[1:-1, 1:-1] / 9
    heat = np.zeros((height, width))
    inner = heat[1:-1, 1:-1]
    rows = np.empty((height - 2, width))
    for _ in range(2 * (height + width)):  # in place: this loop is the price of the whole check
        heat[centre] += 1
        np.add(heat[:-2], heat[1:-1], out=rows)
        rows += heat[2:]
        np.add(rows[:, :-2], rows[:, 1:-1], out=inner)
        inner += rows[:, 2:]
        inner *= share
    return heat
