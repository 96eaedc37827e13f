from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zarrloc.models.cost import forward_flops, tokens_of
from zarrloc.models.specs import SPECS, BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.reproduction.estimate import Machine


def test_arithmetic_of_a_vit() -> None:
    """Twelve blocks of ViT-S: 21.3 million weights, and two products of attention."""
    flops = forward_flops(SPECS["dino-vits16"], 197)
    assert flops == pytest.approx(2 * 21.3e6 * 197 + 4 * 12 * 197**2 * 384, rel=0.01)
    assert Machine.measured().flops > 1e8


def test_arithmetic_is_what_torch_counts() -> None:
    """Of a whole small network, but for the patches' own embedding."""
    spec = BackboneSpec("small", "vit_tiny_patch16_224", ("a",), 16, 192, "", options={"depth": 3})
    network = Backbone(spec).eval()
    plain = sdpa_kernel(SDPBackend.MATH)  # of which each product is counted
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 1, 224, 224))
    assert forward_flops(spec, 197) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_tokens_of_what_a_network_sees() -> None:
    """A class token and whole patches, the last padded; of each channel where it has tokens."""
    patches = BackboneSpec("a", "vit_tiny_patch16_224", ("a", "b"), 16, 192, "")
    assert tokens_of(patches, 224, 160, 2) == 1 + 14 * 10
    assert tokens_of(patches, 225, 1, 2) == 1 + 15 * 1
    assert tokens_of(replace(patches, tokens="channel"), 224, 160, 2) == 1 + 14 * 10 * 2
