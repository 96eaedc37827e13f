"""The channel map and the one fixed affine in front of the network."""

import numpy as np
import pytest
import torch

from zarrloc.models.channels import resolve
from zarrloc.models.specs import HPA, RGB
from zarrloc.pretraining.inputs import Inputs, affine_of

ROLES = ("nucleus", "protein")
IMAGES = torch.rand(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def test_natural_inputs_by_hand() -> None:
    """HPA: protein on 1, nucleus on 2; what the store lacks is 0 after the affine too."""
    channels = resolve("natural", HPA, ROLES, "natural")
    mean, sd = affine_of(channels, IMAGES)
    seen = Inputs(channels, mean, sd)(IMAGES)
    assert seen.shape == (5, 4, 6, 6)
    for target, channel in ((1, 1), (2, 0)):
        values = IMAGES[:, channel].double().numpy()
        expected = (values - values.mean()) / values.std()
        np.testing.assert_allclose(seen[:, target], expected, atol=1e-5)
    assert not seen[:, [0, 3]].any()


def test_imagenet_backbones_keep_imagenet_statistics() -> None:
    """Whatever the images are."""
    channels = resolve("protein=1,nucleus=2", RGB, ROLES, "natural")
    mean, sd = affine_of(channels, IMAGES)
    assert mean == (0.485, 0.456, 0.406)
    seen = Inputs(channels, mean, sd)(IMAGES)
    torch.testing.assert_close(seen[:, 1], (IMAGES[:, 1] - 0.456) / 0.224)
    assert not seen[:, 0].any()


def test_replicate_is_one_channel_in_training_and_all_in_turn_else() -> None:
    """A training view holds one channel; whole images give one pass a channel."""
    inputs = Inputs(resolve("replicate", HPA, ROLES, "natural"), (0.5,) * 4, (0.25,) * 4)
    passes = inputs.passes(IMAGES)
    assert passes.shape == (2, 5, 4, 6, 6)
    for channel in range(2):
        torch.testing.assert_close(inputs(IMAGES[:, [channel]]), passes[channel])
        torch.testing.assert_close(passes[channel, :, 3], (IMAGES[:, channel] - 0.5) / 0.25)
    mean, sd = affine_of(inputs.channels, IMAGES)
    assert mean == pytest.approx((float(IMAGES.mean()),) * 4)
    assert sd == pytest.approx((float(IMAGES.std(correction=0)),) * 4)


def test_absent_channels_stay_absent() -> None:
    """NaN through the affine, in blank inputs, and out of the statistics."""
    channels = resolve("natural", ("er", "nucleus", "protein"), ("nucleus", "protein"), "natural")
    images = torch.rand(3, 2, 4, 4)
    images[1, 0] = torch.nan
    mean, sd = affine_of(channels, images)
    assert mean[1] == pytest.approx(images[[0, 2], 0].mean().item())
    assert sd[1] == pytest.approx(images[[0, 2], 0].std(correction=0).item())
    assert (mean[0], sd[0]) == (0.0, 1.0)
    found = Inputs(channels, mean, sd, torch.nan)(images)
    assert found[:, 0].isnan().all()
    assert found[1, 1].isnan().all()
    torch.testing.assert_close(found[0, 2], (images[0, 1] - mean[2]) / sd[2])


def test_channels_that_go_into_no_input_are_not_used() -> None:
    """Each in turn is, where one is shown in all inputs."""
    for text, used in (
        ("natural", [True, True]), ("protein=0", [False, True]), ("replicate", [True, True]),
    ):  # fmt: skip
        channels = resolve(text, HPA, ROLES, "natural")
        inputs = Inputs(channels, (0.0,) * 4, (1.0,) * 4)
        assert inputs.used.tolist() == used
        assert inputs.replicate == (text == "replicate")


def test_flat_channels_are_not_blown_up() -> None:
    """Their sd counts as a thousandth."""
    images = torch.rand(4, 2, 3, 3)
    images[:, 1] = 0.25
    mean, sd = affine_of(resolve("natural", ROLES, ROLES, "natural"), images)
    assert (mean[1], sd[1]) == (0.25, 1e-3)
