import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from zarrloc.errors import ConfigError
from zarrloc.models.channels import ChannelMap, resolve
from zarrloc.models.inputs import Norm, Size
from zarrloc.models.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_SD,
    normalise,
    pad_to_patch,
    prepare,
    resize,
)
from zarrloc.models.specs import HPA, RGB

OPENCELL = ("nucleus", "protein")
EXPLICIT = resolve("protein=1,nucleus=2", RGB, OPENCELL, "")


def fields(height: int, width: int, n: int = 2, dtype: type = np.uint16) -> npt.NDArray[np.uint16]:
    """Sparse bright spots on a camera offset, as (n, 2, height, width)."""
    rng = np.random.default_rng(5)
    images = rng.normal(600, 40, (n, 2, height, width))
    images[:, 1] += 40_000 * (rng.random((n, height, width)) > 0.999)
    images[:, 0] += 5_000 * (np.indices((height, width)).sum(0) % 90 < 30)
    return images.clip(0, 65_535).astype(dtype)


def zscore64(images: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    values = images.astype(np.float64)
    mean, sd = (f(values, axis=(-2, -1), keepdims=True) for f in (np.mean, np.std))
    return np.asarray((values - mean) / (sd + 1e-7))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_zscore_equals_float64_numpy(dtype: type) -> None:
    images = fields(600, 600, dtype=np.uint16)
    images = images // 200 if dtype is np.uint8 else images
    images = images.astype(dtype)
    got = normalise(torch.from_numpy(images), "zscore").numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, zscore64(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["zscore", "imagenet"])
@pytest.mark.parametrize("size", ["native", "224", "900"])
def test_a_blank_channel_is_zero_at_any_size(norm: Norm, size: str) -> None:
    images = torch.from_numpy(fields(300, 260))
    images[1, 0] = 40_001  # a row of it has no exact sum in float32
    plan = Size.parse(size).plan(300, 260, 8, None)
    got = normalise(resize(images, plan.height, plan.width), norm)
    assert not got[1, 0].any()
    assert got[0, 0].any()
    assert got[1, 1].any()


def test_imagenet_norm_is_a_percentile_range_and_then_the_inputs_statistics() -> None:
    images = fields(120, 130)
    low, high = np.percentile(images, (0.1, 99.9), axis=(-2, -1), keepdims=True)
    unit = ((images - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(normalise(torch.from_numpy(images), "imagenet"), unit, atol=1e-6)

    prepared, largest = prepare(
        torch.from_numpy(images), EXPLICIT, Size.parse("native"), "imagenet", 10, None
    )
    for i, channel in ((1, 1), (2, 0)):
        expected = (unit[:, channel] - IMAGENET_MEAN[i]) / IMAGENET_SD[i]
        np.testing.assert_allclose(prepared[0, :, i], expected, atol=1e-5)
    assert not prepared[0, :, 0].any()
    torch.testing.assert_close(largest, prepared.abs().amax((0, 2, 3, 4)))


def test_imagenet_norm_needs_rgb_inputs() -> None:
    natural = resolve("natural", HPA, OPENCELL, "")
    with pytest.raises(ConfigError, match="norm imagenet has statistics for R, G, B"):
        prepare(torch.ones(1, 2, 8, 8), natural, Size.parse("native"), "imagenet", 8, None)


def test_none_keeps_the_values_as_stored() -> None:
    images = fields(32, 40)
    got = normalise(torch.from_numpy(images), "none")
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, images)
    with pytest.raises(ConfigError, match=r"range.*zscore, minmax, imagenet, trained, none"):
        normalise(torch.from_numpy(images), "range")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [(224, 168), (100, 75), (500, 375)])
def test_resize_equals_pillows_antialiased_bicubic(target: tuple[int, int]) -> None:
    images = fields(400, 300, n=1)
    got = resize(torch.from_numpy(images), *target)
    for channel in (0, 1):
        plane = Image.fromarray(images[0, channel].astype(np.float32))
        expected = np.asarray(plane.resize(target[::-1], Image.Resampling.BICUBIC))
        # torch takes its coordinates in float32: 3e-5 of the contrast
        np.testing.assert_allclose(got[0, channel], expected, rtol=0, atol=3e-5 * 40_000)


def test_resize_to_the_same_size_changes_nothing() -> None:
    images = fields(64, 48)
    np.testing.assert_array_equal(resize(torch.from_numpy(images), 64, 48), images)


def test_padding_is_zero_below_and_to_the_right() -> None:
    images = torch.ones(2, 3, 21, 32)
    padded = pad_to_patch(images, 16)
    assert padded.shape == (2, 3, 32, 32)
    assert torch.equal(padded[..., :21, :], images)
    assert not padded[..., 21:, :].any()
    assert pad_to_patch(padded, 16).shape == padded.shape


@pytest.mark.parametrize(
    ("channel_map", "inputs"),
    [
        (EXPLICIT, [[None, 1, 0]]),
        (resolve("natural", HPA, OPENCELL, ""), [[None, 1, 0, None]]),
        (resolve("replicate", RGB, OPENCELL, ""), [[0, 0, 0], [1, 1, 1]]),
    ],
)
def test_prepare_normalises_what_goes_into_the_network(
    channel_map: ChannelMap, inputs: list[list[int | None]]
) -> None:
    images = torch.from_numpy(fields(300, 210))
    prepared, largest = prepare(images, channel_map, Size.parse("150"), "zscore", 16, 0.2)
    assert prepared.shape == (len(inputs), 2, len(inputs[0]), 160, 112)
    assert not prepared[..., 150:, :].any()
    assert not prepared[..., 105:].any()
    expected = zscore64(resize(images, 150, 105).numpy())
    for p, channels in enumerate(inputs):
        for i, channel in enumerate(channels):
            got = prepared[p, :, i, :150, :105].numpy()
            if channel is None:
                assert not got.any()
            else:
                np.testing.assert_allclose(got, expected[:, channel], rtol=1e-4, atol=1e-4)
    used = sorted({channel for channel in inputs[0] + inputs[-1] if channel is not None})
    np.testing.assert_allclose(largest, np.abs(expected[:, used]).max((1, 2, 3)), rtol=1e-4)


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.from_numpy(fields(90, 70, n=3))
    arguments = (EXPLICIT, Size.parse("64"), "zscore", 8, None)
    together, _ = prepare(images, *arguments)
    for i in range(3):
        alone, _ = prepare(images[i : i + 1], *arguments)
        assert torch.equal(alone[:, 0], together[:, i])


def test_trained_is_the_range_then_the_recorded_affine() -> None:
    images = torch.rand(2, 2, 16, 16) * 900 + 500
    images[1, 0] = 700.0
    mapping = resolve("protein=1,nucleus=2", RGB, ("nucleus", "protein"), "")
    affine = ((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    native = Size.parse("native")
    got, _ = prepare(images, mapping, native, "trained", 8, None, affine)
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    unit = torch.nan_to_num((images - low) / (high - low))
    torch.testing.assert_close(got[0, :, 1], (unit[:, 1] - 0.2) / 0.25)
    torch.testing.assert_close(got[0, :, 2], (unit[:, 0] - 0.3) / 2.0)
    assert not got[0, :, 0].any()
    with pytest.raises(ConfigError, match="zarrloc pretrain"):
        prepare(images, mapping, native, "trained", 8, None)
