import argparse
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import safetensors.torch
import torch
from torch import Tensor

from zarrloc.errors import WeightsError
from zarrloc.models import backbones, specs, weights
from zarrloc.models.specs import HPA, RGB, BackboneSpec
from zarrloc.models.vit import Backbone

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3, "img_size": 64}
TINY = BackboneSpec(
    "tiny",
    "vit_small_patch16_224",
    RGB,
    16,
    48,
    "https://example.org/dino/tiny.pth",
    options=SMALL,
)
HPA_TINY = replace(TINY, name="hpa-tiny", roles=HPA, source="doi:10.5281/zenodo.1/hpa.pth")

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def tiny_specs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two tiny backbones under names of their own, and a cache of this test's own."""
    monkeypatch.setattr(specs, "SPECS", {"tiny": TINY, "hpa-tiny": HPA_TINY})
    monkeypatch.setenv("ZARRLOC_CACHE", str(tmp_path / "cache"))


def state_of(name: str = "tiny", seed: int = 0) -> State:
    state: State = backbones.load(name, f"random:{seed}").vit.state_dict()
    return state


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


HEAD = {"mlp.0.weight": torch.ones(3, 48), "last_layer.weight_g": torch.ones(5, 1)}


def full_checkpoint(state: State) -> dict[str, Any]:
    """As facebookresearch's main_dino.py saves it; the student's numbers are others."""
    student = {key: value + 1 for key, value in state.items()}
    return {
        "student": prefixed(
            {**prefixed(student, "backbone."), **prefixed(HEAD, "head.")}, "module."
        ),
        "teacher": {**prefixed(state, "backbone."), **prefixed(HEAD, "head.")},
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": np.float64(1e-4)}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", momentum_teacher=np.float64(0.996)),
        "dino_loss": {"center": torch.zeros(1, 5)},
        "fp16_scaler": {"scale": 65536.0},
    }


FORMS: dict[str, Callable[[State], Any]] = {
    "facebook backbone": lambda state: state,
    "facebook full checkpoint": full_checkpoint,
    "teacher under module.backbone.": lambda state: {
        "teacher": prefixed(
            {**prefixed(state, "backbone."), "head.mlp.bias": torch.ones(2)}, "module."
        )
    },
    "flat with prefixes": lambda state: prefixed(state, "module.backbone."),
    "DINOv2 with its mask token": lambda state: {**state, "mask_token": torch.zeros(1, 48)},
}


@pytest.mark.parametrize("name", ["tiny", "hpa-tiny"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_backbone(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    torch.save(FORMS[form](state_of(name)), path)
    loaded = backbones.load(name, path)
    assert loaded.weights_source == "some.pth"
    assert loaded.weights_hash == backbones.load(name, "random:0").weights_hash


def test_old_torch_files_and_safetensors_are_read_too(tmp_path: Path) -> None:
    torch.save(state_of(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state_of(), tmp_path / "new.safetensors")
    old, new = (backbones.load("tiny", tmp_path / f) for f in ("old.pth", "new.safetensors"))
    assert old.weights_hash == new.weights_hash == weights.hash_state(state_of())


def test_a_classifier_is_dropped_and_a_networks_own_head_is_not(tmp_path: Path) -> None:
    """timm's ConvNeXt keeps `head.norm` without a classifier; ResNet's classifier is `fc`."""
    import timm  # here, after zarrloc has made its torchvision import

    for name in ("convnext_atto", "resnet18"):
        published = timm.create_model(name, num_classes=7)
        safetensors.torch.save_file(published.state_dict(), tmp_path / f"{name}.safetensors")
        loaded = backbones.load(f"timm:{name}", tmp_path / f"{name}.safetensors")
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            features = published.eval().forward_head(
                published.forward_features(images), pre_logits=True
            )
            torch.testing.assert_close(loaded(images), features)


def test_missing_and_unexpected_keys_are_listed(tmp_path: Path) -> None:
    state = state_of()
    del state["blocks.1.attn.qkv.bias"], state["norm.weight"]
    torch.save({**state, "blocks.1.extra": torch.ones(2)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError) as caught:
        backbones.load("tiny", tmp_path / "odd.pth")
    assert "missing blocks.1.attn.qkv.bias, norm.weight" in str(caught.value)
    assert "unexpected blocks.1.extra" in str(caught.value)


def test_dropped_blocks_never_pass(tmp_path: Path) -> None:
    """What Dino4Cells' loader does: `"0."` replaced by nothing, loaded with strict=False."""
    state = {key.replace("0.", ""): value for key, value in state_of().items()}
    torch.save(state, tmp_path / "mangled.pth")
    with pytest.raises(WeightsError, match=r"missing blocks\.0\.attn\.proj\.bias"):
        backbones.load("tiny", tmp_path / "mangled.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"roles": HPA}, "inputs: 4, expected 3"),
        (
            {"timm_model": "vit_base_patch8_224"},
            "patch: 8, expected 16, positions: 65, expected 17",
        ),
        ({"options": {**SMALL, "embed_dim": 96}}, "width: 96, expected 48"),
        ({"options": {**SMALL, "depth": 3}}, r"depth: 3, expected 2; unexpected blocks\.2\."),
        ({"options": {**SMALL, "img_size": 96}}, r"wrong shape: pos_embed \(1, 37, 48\) for"),
    ],
)
def test_another_network_is_refused_with_the_difference(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    torch.save(Backbone(replace(TINY, **change)).vit.state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=f"other.pth does not fit this backbone: .*{message}"):
        backbones.load("tiny", tmp_path / "other.pth")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def write_damaged(path: Path, kind: str) -> None:
    torch.save(state_of(), path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "garbage":
        path.write_bytes(os.urandom(4096))
    elif kind == "bomb":
        torch.save({"teacher": Bomb(path.with_name("exploded"))}, path)
    elif kind == "old bomb":
        path.write_bytes(pickle.dumps(Bomb(path.with_name("exploded"))))


@pytest.mark.parametrize("kind", ["truncated", "empty", "garbage", "bomb", "old bomb"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_and_malicious_files_are_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{suffix}"
    write_damaged(path, kind)
    with pytest.raises(WeightsError, match=f"cannot read .*bad.{suffix}") as refused:
        backbones.load("tiny", path)
    assert "Re-running" not in str(refused.value)  # torch advises to load unsafely
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "got list"),
        ({"epoch": 3, "loss": 0.5}, "got epoch, loss"),
        ({"teacher": 3}, "got int"),
        ({0: torch.ones(1)}, "got 0"),
    ],
)
def test_files_of_something_else_are_refused(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "else.pth")
    with pytest.raises(WeightsError, match=f"else.pth holds no backbone: {found}"):
        backbones.load("tiny", tmp_path / "else.pth")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights at .*nowhere\.pth"):
        backbones.load("tiny", tmp_path / "nowhere.pth")


def test_random_weights_follow_their_seed_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first, again, other = (backbones.load("tiny", f"random:{seed}") for seed in (0, 0, 1))
    assert torch.equal(torch.rand(4), expected), "torch's global generator was moved"
    assert first.weights_source == "random:0"
    assert first.weights_hash == again.weights_hash != other.weights_hash

    state = first.vit.state_dict()
    assert float(state["blocks.0.mlp.fc1.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(state["pos_embed"].std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(state["norm.weight"], torch.ones(48))
    assert not state["blocks.1.attn.qkv.bias"].any()


@pytest.mark.parametrize("text", ["random:", "random:x", "random:-1", "random:1.5"])
def test_a_seed_is_a_whole_number(text: str) -> None:
    with pytest.raises(WeightsError, match="expected random:SEED"):
        backbones.load("tiny", text)


def test_the_hash_sees_names_shapes_dtypes_and_values() -> None:
    state = {"a": torch.arange(6.0), "b": torch.zeros(2)}
    same = {"b": torch.zeros(2), "a": torch.arange(6.0).reshape(3, 2).t().t().reshape(6)}
    assert weights.hash_state(same) == weights.hash_state(state)
    others: list[State] = [
        {"a": state["a"], "c": state["b"]},
        {"a": state["a"].reshape(2, 3), "b": state["b"]},
        {"a": state["a"].double(), "b": state["b"]},
        {"a": state["a"], "b": torch.tensor([0.0, 1e-30])},
    ]
    hashes = {weights.hash_state(other) for other in [state, *others]}
    assert len(hashes) == 5


def saved(directory: Path, **change: Any) -> Backbone:
    backbone = Backbone(replace(TINY, **change))
    weights.fill(backbone.vit, weights.random_state(backbone.vit, 5), "random:5")
    weights.save_backbone(
        directory,
        backbone,
        normalisation={"mean": [0.1, 0.2], "sd": [1, 1]},
        lineage={"from": "scratch", "epochs": 3},
    )
    return weights.freeze(backbone, "random:5")


def test_a_saved_backbone_loads_by_its_directory_alone(tmp_path: Path) -> None:
    roles = ("nucleus", "protein")
    backbone = saved(tmp_path / "ft", roles=roles, default_channels="natural")
    spec = backbones.spec(str(tmp_path / "ft"))
    assert (spec.roles, spec.patch, spec.features) == (roles, 16, 48)
    assert (spec.default_channels, spec.position, spec.options) == ("natural", "facebook", SMALL)

    loaded = backbones.load(str(tmp_path / "ft"))
    assert loaded.weights_source == "ft"
    assert loaded.weights_hash == backbone.weights_hash
    images = torch.randn(2, 2, 48, 80, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(images), backbone(images))
    metadata = weights.read_metadata(tmp_path / "ft")
    assert metadata["lineage"] == {"from": "scratch", "epochs": 3}
    assert metadata["normalisation"] == {"mean": [0.1, 0.2], "sd": [1, 1]}
    assert sorted(path.name for path in (tmp_path / "ft").iterdir()) == [
        "backbone.json",
        "backbone.safetensors",
    ]


def test_a_saved_backbone_is_also_weights_for_its_name(tmp_path: Path) -> None:
    backbone = saved(tmp_path / "ft")
    for path in (tmp_path / "ft", tmp_path / "ft" / "backbone.safetensors"):
        assert backbones.load("tiny", path).weights_hash == backbone.weights_hash


def test_damaged_directories_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(WeightsError, match=r"holds no backbone: backbone.json is missing"):
        backbones.load(str(empty))

    saved(tmp_path / "torn")
    saved(tmp_path / "other")
    other = {key: value + 1 for key, value in state_of().items()}
    safetensors.torch.save_file(other, tmp_path / "torn" / "backbone.safetensors")
    with pytest.raises(
        WeightsError, match=r"backbone.safetensors has hash \w+, backbone.json says"
    ):
        backbones.load(str(tmp_path / "torn"))

    metadata = json.loads((tmp_path / "other" / "backbone.json").read_text())
    for key, value, message in [
        ("format", 99, "^.*backbone.json has format 99, this zarrloc knows 2: update it"),
        ("spec", {"name": "x"}, "backbone.json is damaged"),
        ("spec", 3, "backbone.json is damaged"),
        ("format", None, "holds no backbone: backbone.json is missing or damaged"),
    ]:
        (tmp_path / "other" / "backbone.json").write_text(json.dumps({**metadata, key: value}))
        with pytest.raises(WeightsError, match=message):
            backbones.load(str(tmp_path / "other"))


def test_the_facebook_export_is_what_their_tools_read(tmp_path: Path) -> None:
    state = state_of(seed=2)
    weights.export_facebook(tmp_path / "checkpoint.pth", state)
    # As their eval code: checkpoint[teacher], prefixes replaced by nothing.
    teacher = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["teacher"]
    stripped = {
        key.replace("module.", "").replace("backbone.", ""): teacher[key] for key in teacher
    }
    assert all(key.startswith("backbone.") for key in teacher)
    assert weights.hash_state(stripped) == weights.hash_state(state)
    assert backbones.load("tiny", tmp_path / "checkpoint.pth").weights_hash == weights.hash_state(
        state
    )


def test_published_weights_are_fetched_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[str, str | None]] = []

    def retrieve(
        url: str, known_hash: str | None, fname: str, path: Path, downloader: object
    ) -> str:
        calls.append((url, known_hash))
        path.mkdir(parents=True, exist_ok=True)
        torch.save(state_of("hpa-tiny" if "zenodo" in url else "tiny"), path / fname)
        return str(path / fname)

    class Record:
        registry = {"hpa.pth": "md5:0123"}  # noqa: RUF012

        def load_registry_from_doi(self) -> None:
            """What Zenodo would answer is above."""

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(pooch, "create", lambda path, base_url: Record())
    for name in ("tiny", "hpa-tiny", "tiny", "hpa-tiny"):
        loaded = backbones.load(name)
        assert loaded.weights_source == "published"
        assert loaded.weights_hash == weights.hash_state(state_of(name))
    zenodo = "https://zenodo.org/records/1/files/hpa.pth?download=1"
    assert calls == [(TINY.source, None), (zenodo, "md5:0123")]


def test_without_a_network_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setattr(pooch, "create", refuse)
    for name in ("tiny", "hpa-tiny"):
        with pytest.raises(WeightsError) as caught:
            backbones.load(name)
        said = str(caught.value)
        assert specs.SPECS[name].source.rpartition("/")[2] in said
        assert "pass --weights PATH" in said
        assert str(tmp_path / "cache") in said
