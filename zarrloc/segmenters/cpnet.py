"""CPnet, the residual U-Net of Cellpose 1 to 3, which Cellpose 4 no longer carries.

Architecture: Stringer et al., Nature Methods 2021, and Cellpose's published weights, whose
parameter names the module tree below spells. Every convolution is preceded by its batch
normalisation, and a style vector (the normalised mean of the deepest features) is added to
every convolution of the way up but the first of a level.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from zarrloc.errors import WeightsError
from zarrloc.models.weights import read_tensors

INPUTS = 2
"""Channels of the input: what is segmented, and a second channel (nucleus) or zeros."""

OUTPUTS = 3
"""Channels of the output: flow along y, flow along x (both times 5), logit of being in a cell."""

WIDTHS = (32, 64, 128, 256)
STYLE = WIDTHS[-1]

TRAINING_DIAMETERS = ("diam_mean", "diam_labels")
"""Not weights: the diameter in px that objects were rescaled to in training, and their own mean.
Files older than Cellpose 2 lack them."""


def _normalised_convolution(inputs: int, outputs: int, size: int, relu: bool = True) -> nn.Module:
    layers: list[nn.Module] = [
        nn.BatchNorm2d(inputs),
        nn.Conv2d(inputs, outputs, size, padding=size // 2),
    ]
    if relu:
        layers.insert(1, nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class _Down(nn.Module):
    """Two residual steps of two 3 x 3 convolutions each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _numbered(
            "conv",
            [_normalised_convolution(inputs if n == 0 else outputs, outputs, 3) for n in range(4)],
        )
        self.proj = _normalised_convolution(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x) + self.conv[1](self.conv[0](x))
        further: Tensor = self.conv[3](self.conv[2](x))
        return x + further


class _Styled(nn.Module):
    """A convolution of features shifted by a linear map of the style."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _normalised_convolution(width, width, 3)
        self.full = nn.Linear(STYLE, width)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        shifted: Tensor = self.conv(x + self.full(style)[:, :, None, None])
        return shifted


class _Up(nn.Module):
    """As `_Down`, with the features of the same level of the way down, and with the style."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = _normalised_convolution(inputs, outputs, 3)
        self.conv = _numbered("conv", [first, *(_Styled(outputs) for _ in range(3))])
        self.proj = _normalised_convolution(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor, skipped: Tensor, style: Tensor) -> Tensor:
        x = self.proj(x) + self.conv[1](self.conv[0](x) + skipped, style)
        further: Tensor = self.conv[3](self.conv[2](x, style), style)
        return x + further


class CPnet(nn.Module):
    """The network. `(n, 2, y, x)` float32, sides multiples of 8 -> output `(n, 3, y, x)`, style.

    The style `(n, 256)` is a unit vector per tile; Cellpose's size model reads it.
    """

    diam_mean: Tensor
    diam_labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = (INPUTS, *WIDTHS[:-1])
        self.downsample = _level(
            "down", _numbered("res_down", [_Down(*io) for io in zip(inputs, WIDTHS, strict=True)])
        )
        deeper = (*WIDTHS[1:], WIDTHS[-1])
        self.upsample = _level(
            "up", _numbered("res_up", [_Up(*io) for io in zip(deeper, WIDTHS, strict=True)])
        )
        self.output = _normalised_convolution(WIDTHS[0], OUTPUTS, 1)
        for name in TRAINING_DIAMETERS:
            self.register_buffer(name, torch.full((1,), 30.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels: list[Tensor] = []
        for block in self.downsample.get_submodule("down").children():
            x = block(functional.max_pool2d(levels[-1], 2) if levels else x)
            levels.append(x)
        style = functional.normalize(x.mean(dim=(2, 3)))
        blocks = self.upsample.get_submodule("up").children()
        for block, skipped in reversed(list(zip(blocks, levels, strict=True))):
            if skipped is not levels[-1]:
                x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(x, skipped, style)
        return self.output(x), style


def load(path: Path, device: torch.device | str = "cpu") -> CPnet:
    """The network with the weights of `path`, in evaluation mode, channels last (a CPU's fastest).

    Strict: every parameter must be there with its shape, and nothing else; only the two training
    diameters may lack (older files), and are then 30 px. Raises `WeightsError`.
    """
    state = read_tensors(path)
    if not isinstance(state, dict) or "W2" in state:
        raise WeightsError(
            f"{path} holds no CPnet (Cellpose 1 to 3) weights; for Cellpose 4 pass --model cpsam"
        )
    network = CPnet()
    defaults = {name: getattr(network, name) for name in TRAINING_DIAMETERS}
    try:
        network.load_state_dict(defaults | state)
    except RuntimeError as error:
        raise WeightsError(f"{path} is not exactly a two-channel CPnet: {error}") from error
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _numbered(prefix: str, modules: list[nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((f"{prefix}_{n}", m) for n, m in enumerate(modules)))


def _level(name: str, modules: nn.Module) -> nn.Module:
    parent = nn.Module()
    parent.add_module(name, modules)
    return parent
