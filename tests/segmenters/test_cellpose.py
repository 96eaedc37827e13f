"""CPnet segmenters: blocks against fields alone, real fields, and the size model."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cellpose.metrics import average_precision
from skimage.draw import disk
from tifffile import imread

from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ChannelError, WeightsError
from zarrloc.segmenters import cellpose, cpnet, dynamics, segment_block, size, tiles

CPU = torch.device("cpu")
Image = npt.NDArray[np.float32]


class Oracle(torch.nn.Module):
    """A network that reads flows and logit from its input, as the tests put them there."""

    diam_labels = torch.tensor([30.0])
    style = 0.5

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, torch.full((len(x), cpnet.STYLE), self.style)


def oracle(diameter: float | str, sizes: size.SizeModel | None = None) -> Any:
    config = SegmentConfig(model="oracle", diameter=diameter, tile_batch=3)
    return cellpose.CellposeSegmenter(Oracle(), 30.0, sizes, config, CPU)  # type: ignore[arg-type]


def scene(radius: int, shape: tuple[int, int] = (260, 250)) -> tuple[Image, npt.NDArray[np.uint32]]:
    """What `Oracle` is to say of discs of `radius`, and the discs."""
    masks = np.zeros(shape, np.uint32)
    centres = [(y, x) for y in (60, 130, 200) for x in (60, 130, 190)]
    for label, centre in enumerate(centres, start=1):
        masks[disk(centre, radius)] = label
    flow = dynamics.mask_flows(masks) * dynamics.FLOW_SCALE
    return np.concatenate((flow, np.where(masks, 5, -5)[None])).astype(np.float32), masks


def exact(masks: npt.NDArray[np.uint32], true: npt.NDArray[np.uint32]) -> bool:
    return bool(average_precision([true], [masks], [0.9])[0].all())


@pytest.mark.parametrize("diameter", [30, 20])
def test_true_flows_of_a_block_give_true_masks(diameter: float) -> None:
    segmenter = oracle(diameter)
    scenes = [scene(16), scene(12, (280, 300)), scene(14)]
    states = segmenter.network([image for image, _ in scenes])
    for state, (_, true) in zip(states, scenes, strict=True):
        mask = segmenter.mask(state)
        assert mask.shape == true.shape
        assert exact(mask, true)


def test_a_blank_field_has_an_empty_mask_and_leaves_its_neighbours_alone(
    shared: Callable[..., Path],
) -> None:
    segmenter = real(shared, diameter=60)
    fields = [crop(shared, "AAMP"), np.zeros((2, 90, 100), np.uint16), crop(shared, "ABCE1")]
    together = segment_block(segmenter, fields, ("nucleus", "protein"))
    assert not together[1].any()
    for index in (0, 2):
        (alone,) = segment_block(segmenter, [fields[index]], ("nucleus", "protein"))
        assert alone.max() > 2
        assert exact(together[index], alone)


def real(shared: Callable[..., Path], **settings: Any) -> cellpose.CellposeSegmenter:
    config = SegmentConfig(
        model=str(shared("weights", "cellpose_cpnet_v1_scellseg.pt")),
        channels=settings.pop("channels", ("nucleus",)),
        **settings,
    )
    return cellpose.load(config, CPU)


def crop(shared: Callable[..., Path], gene: str) -> npt.NDArray[np.uint16]:
    (path,) = shared("opencell").glob(f"OC-FOV_{gene}_*_proj.tif")
    image: npt.NDArray[np.uint16] = imread(path)[:, 180:400, 180:400]
    return image


def test_channels_go_in_by_role_whatever_the_order_of_the_store(
    shared: Callable[..., Path],
) -> None:
    segmenter = real(shared, channels=("protein", "nucleus"), diameter=60)
    image = crop(shared, "AAMP")
    given = segmenter.prepare(image, ("nucleus", "protein"))
    turned = segmenter.prepare(image[::-1], ("protein", "nucleus"))
    np.testing.assert_array_equal(given, turned)
    np.testing.assert_allclose(given[0], tiles.normalise(image[1:])[0])
    assert not real(shared, diameter=60).prepare(image, ("nucleus", "protein"))[1].any()
    with pytest.raises(ChannelError, match="protein not found"):
        segmenter.prepare(image[:1], ("nucleus",))


def test_fingerprint_knows_weights_and_settings_but_not_the_batch(
    shared: Callable[..., Path], tmp_path: Path
) -> None:
    copied = tmp_path / "elsewhere.pt"
    copied.write_bytes(shared("weights", "cellpose_cpnet_v1_scellseg.pt").read_bytes())
    before = real(shared, diameter=60).fingerprint
    batched = SegmentConfig(model=str(copied), channels=("nucleus",), diameter=60, tile_batch=3)
    assert cellpose.load(batched, CPU).fingerprint == before
    for changed in ({"diameter": 61}, {"min_size": 3}, {"channels": ("protein",)}):
        assert real(shared, **({"diameter": 60} | changed)).fingerprint != before
    sizes = str(shared("weights", "size_compute.npy"))
    assert real(shared, size_model=sizes).fingerprint["size_model"]


def model(**changes: Any) -> dict[str, Any]:
    slope = np.full(cpnet.STYLE, 1 / cpnet.STYLE)
    return {"A": slope, "smean": np.zeros(256, "f4"), "ymean": 0.0, "diam_mean": 30.0} | changes


def saved(path: Path, values: object) -> Path:
    np.save(path, np.array(values, dtype=object), allow_pickle=True)
    return path


def test_size_model_is_a_regression_of_log_diameter(tmp_path: Path) -> None:
    sizes = size.load(saved(tmp_path / "size.npy", model(ymean=np.float32(0.25))))
    style = np.full(256, 0.5, np.float32)
    assert sizes.diameter_px(style) == pytest.approx(30 * np.exp(0.75))
    assert sizes.diameter_px(style - 9) == size.SMALLEST_PX
    assert sizes.diameter_px(style * np.nan) == 30


def test_auto_diameter_is_the_masks_own_size_after_the_styles_guess(tmp_path: Path) -> None:
    # The style says 30 * exp(1/16), near enough to see discs of 28 px, which then decide.
    sizes = size.load(saved(tmp_path / "size.npy", model()))
    segmenter = oracle("auto", sizes)
    image, true = scene(14)
    blank = np.full_like(image, -5)
    blank[:2] = 0
    ((diameter, default)) = segmenter.diameters_px([image, blank])
    assert diameter == pytest.approx(2 * np.sqrt((true == 1).sum() / np.pi), rel=0.03)
    assert default == 30
    (state,) = segmenter.network([image])
    assert state.rescale == pytest.approx(30 / diameter)
    assert exact(segmenter.mask(state), true)


def test_the_real_size_model_loads_and_a_pickle_with_code_in_it_does_not(
    shared: Callable[..., Path], tmp_path: Path
) -> None:
    real_sizes = size.load(shared("weights", "size_compute.npy"))
    assert real_sizes.slope.shape == real_sizes.mean_style.shape == (256,)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, Sequence[Path]]:
            return Path.touch, (marker,)

    with pytest.raises(WeightsError, match="refused to load"):
        size.load(saved(tmp_path / "evil.npy", model(A=Evil())))
    assert not marker.exists()
    (tmp_path / "pickle").write_bytes(pickle.dumps(model()))
    with pytest.raises(WeightsError, match="no Cellpose size model"):
        size.load(tmp_path / "pickle")
    with pytest.raises(WeightsError, match="no Cellpose size model"):
        size.load(saved(tmp_path / "less.npy", {"A": np.zeros(256)}))
