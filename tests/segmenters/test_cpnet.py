"""CPnet against the same network in plain tensor code, and what its loading refuses."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zarrloc.errors import WeightsError
from zarrloc.segmenters import cpnet

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """Random weights with batch statistics that are not the identity."""
    torch.manual_seed(0)
    state = cpnet.CPnet().state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.dtype == torch.float32 and not name.startswith("diam"):
            value.normal_(0, 0.3 / max(1, value[0].numel()) ** 0.5).add_(value.ndim == 1)
    return state


def save(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def plain(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cellpose's residual U-Net from its state dict alone."""

    def unit(name: str, x: Tensor, relu: bool = True) -> Tensor:
        conv = f"{name}.{2 if relu else 1}"
        norm = [state[f"{name}.0.{part}"] for part in ("running_mean", "running_var")]
        x = F.batch_norm(x, *norm, state[f"{name}.0.weight"], state[f"{name}.0.bias"])
        weight = state[f"{conv}.weight"]
        x = x.relu() if relu else x
        return F.conv2d(x, weight, state[f"{conv}.bias"], padding=weight.shape[-1] // 2)

    def styled(name: str, x: Tensor, style: Tensor) -> Tensor:
        shift = style @ state[f"{name}.full.weight"].T + state[f"{name}.full.bias"]
        return unit(f"{name}.conv", x + shift[..., None, None])

    levels = []
    for n in range(4):
        at = f"downsample.down.res_down_{n}"
        x = F.max_pool2d(x, 2) if n else x
        x = unit(f"{at}.proj", x, relu=False) + unit(
            f"{at}.conv.conv_1", unit(f"{at}.conv.conv_0", x)
        )
        x = x + unit(f"{at}.conv.conv_3", unit(f"{at}.conv.conv_2", x))
        levels.append(x)
    style = x.mean((2, 3))
    style = style / style.norm(dim=1, keepdim=True)
    for n in (3, 2, 1, 0):
        at = f"upsample.up.res_up_{n}"
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if n < 3 else x
        first = unit(f"{at}.conv.conv_0", x) + levels[n]
        x = unit(f"{at}.proj", x, relu=False) + styled(f"{at}.conv.conv_1", first, style)
        x = x + styled(f"{at}.conv.conv_3", styled(f"{at}.conv.conv_2", x, style), style)
    return unit("output", x), style


def test_output_and_style_are_those_of_the_plain_network(state: State, tmp_path: Path) -> None:
    network = cpnet.load(save(tmp_path / "weights", state))
    x = torch.rand(2, 2, 32, 48)
    for ours, expected in zip(network(x), plain(state, x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_real_weights_load_and_a_file_without_diameters_gets_30_px(
    state: State, tmp_path: Path, shared: Callable[..., Path]
) -> None:
    old = {name: value for name, value in state.items() if not name.startswith("diam")}
    assert cpnet.load(save(tmp_path / "old", old)).diam_labels.item() == 30
    state["diam_labels"] = torch.tensor([47.0])
    assert cpnet.load(save(tmp_path / "new", state)).diam_labels.item() == 47
    real = cpnet.load(shared("weights", "cellpose_cpnet_v1_scellseg.pt"))
    assert not real.training
    assert real.diam_mean.item() == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("output.2.bias"), "output.2.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "extra"),
        (lambda s: s.update({"output.2.bias": torch.zeros(4)}), "output.2.bias"),
        (lambda s: s.update(W2=torch.zeros(1)), "cpsam"),
    ],
)
def test_anything_but_a_whole_cpnet_is_refused(
    state: State, tmp_path: Path, change: Callable[[State], object], message: str
) -> None:
    change(state)
    with pytest.raises(WeightsError, match=message):
        cpnet.load(save(tmp_path / "weights", state))


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(Evil()))
    save(tmp_path / "zipped", Evil())
    for file in (path, tmp_path / "zipped"):
        with pytest.raises(WeightsError, match="cannot read"):
            cpnet.load(file)
    assert not marker.exists()
