import pytest
import torch

from zarrloc.errors import ChannelError
from zarrloc.models.channels import resolve
from zarrloc.models.specs import HPA, RGB

OPENCELL = ("nucleus", "protein")


def test_natural_follows_the_roles() -> None:
    channels = resolve(None, HPA, OPENCELL, "natural")
    assert channels.passes == ((None, 1, 0, None),)
    assert channels.feature_width(768) == 768
    assert channels.as_config() == "natural"
    assert channels.describe() == (
        "nucleus -> nucleus, protein -> protein, microtubules and er blank"
    )


@pytest.mark.parametrize("text", ["protein=1,nucleus=2", " nucleus=B , protein=G "])
def test_explicit_goes_by_index_or_by_name_of_the_input(text: str) -> None:
    channels = resolve(text, RGB, OPENCELL, "replicate")
    assert channels.passes == ((None, 1, 0),)
    assert channels.as_config() == "protein=1,nucleus=2"
    assert channels.describe() == "nucleus -> B, protein -> G, R blank"
    assert resolve(channels.as_config(), RGB, OPENCELL, "natural") == channels


def test_replicate_takes_each_channel_alone_in_the_stores_order() -> None:
    channels = resolve("replicate", RGB, OPENCELL, "natural")
    assert channels.passes == ((0, 0, 0), (1, 1, 1))
    assert channels.feature_width(384) == 768
    assert channels.as_config() == "replicate"
    assert channels.describe() == "nucleus -> R + G + B | protein -> R + G + B"


def test_apply_moves_channels_and_leaves_the_rest_zero() -> None:
    images = torch.arange(2 * 2 * 3 * 5, dtype=torch.float32).reshape(2, 2, 3, 5) + 1
    mapped = resolve("protein=1", HPA, OPENCELL, "natural").apply(images)
    assert mapped.shape == (1, 2, 4, 3, 5)
    assert torch.equal(mapped[0, :, 1], images[:, 1])
    assert not mapped[0][:, [0, 2, 3]].any()

    mapped = resolve("replicate", RGB, OPENCELL, "natural").apply(images)
    assert mapped.shape == (2, 2, 3, 3, 5)
    for channel in (0, 1):
        for i in range(3):
            assert torch.equal(mapped[channel, :, i], images[:, channel])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("natural", r"the store has \['nucleus', 'protein'\], the backbone \['R', 'G', 'B'\]"),
        ("DAPI=2", r"channel 'DAPI' is not in the store, which has \['nucleus', 'protein'\]"),
        ("protein=3", r"input '3' does not exist; the backbone's inputs are 0 \(R\), 1 \(G\)"),
        ("protein=-1", "input '-1' does not exist"),
        ("protein=er", "input 'er' does not exist"),
        ("protein=1,nucleus=1", "input '1' is named twice"),
        ("protein=1,nucleus=G", "input 'G' is named twice"),
        ("protein=0,protein=1", "channel 'protein' is named twice"),
        ("both", "expected natural, replicate or ROLE=INPUT"),
        ("", "expected natural, replicate or ROLE=INPUT"),
        ("protein=1,", "expected natural, replicate or ROLE=INPUT"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ChannelError, match=message):
        resolve(text, RGB, OPENCELL, "protein=1,nucleus=2")


def test_the_default_is_refused_where_the_store_lacks_its_role() -> None:
    with pytest.raises(ChannelError, match="channel 'protein' is not in the store"):
        resolve(None, RGB, ("nucleus", "actin"), "protein=1,nucleus=2")
