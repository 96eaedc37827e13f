"""Weights: read from every form they come in, checked key by key, hashed, written back.

Nothing is ever unpickled beyond tensors and the few harmless types of DINO's full checkpoints,
and nothing is ever loaded loosely.
"""

import argparse
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from zarrloc.errors import WeightsError
from zarrloc.models import fetch, hugging, published
from zarrloc.models.source import FILE as WEIGHTS_FILE
from zarrloc.models.source import RANDOM, file_of, seed_of
from zarrloc.models.specs import BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.store.whole_file import replacing

FORMAT = 2  # of backbone.json; the first had no digest of itself
SPEC_FILE = "backbone.json"
EXPORT_FILE = "teacher.pth"

# What `args` and `epoch` of facebookresearch's full checkpoints are made of.
_SCALAR: Any = np.float64(0).__reduce__()[0]  # the function that unpickles numpy's scalars
_SAFE_TYPES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype("float64")),
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before numpy 2
]

# DINO's projection head and timm's classifiers, and what else is no part of a backbone.
_HEADS = ("head.", "fc.", "classifier.", "mask_token")


def obtain(backbone: Backbone, weights: str | Path | None) -> tuple[dict[str, Tensor], str]:
    """The state dict `weights` stands for, and the words that record where it came from."""
    if weights is None:
        source = Path(backbone.spec.source)
        if source.is_dir():
            return _own_state(source), source.resolve().name
        return _published_state(backbone.spec), "published"
    if str(weights).startswith(RANDOM):
        return random_state(backbone.vit, seed_of(str(weights))), str(weights)
    return read_state(Path(weights)), Path(weights).name


def read_state(path: Path) -> dict[str, Tensor]:
    """The backbone's state dict out of a file, under timm's names.

    Takes safetensors, flat state dicts, and full DINO checkpoints (facebookresearch, Dino4Cells),
    of which the teacher is taken; `module.` and `backbone.` prefixes go, and names of Hugging
    Face's ViTs become timm's. A directory written by
    `save_backbone` stands for its weights file.

    Raises `WeightsError` where the file is absent, damaged, unsafe or holds something else.
    """
    path = file_of(path)
    state = read_tensors(path)
    if isinstance(state, dict):
        state = state.get("teacher", state)
    if not _is_state(state):
        found = _some([*map(str, state)]) if isinstance(state, dict) else type(state).__name__
        raise WeightsError(
            f"{path.name} holds no backbone: got {found}; "
            "expected a state dict of tensors, or a checkpoint with one under 'teacher'"
        )
    state = {
        key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()
    }
    return hugging.to_timm(state) if hugging.is_hugging(state) else hugging.unchunked(state)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
    )


def read_tensors(path: Path) -> Any:
    """What a PyTorch or safetensors file holds, loaded safely. `WeightsError` where it can't be."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Mapped, a full checkpoint costs memory for the teacher alone; old files are no zip.
        mapped = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals(_SAFE_TYPES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"cannot read {path} ({_reason(error)}); expected a PyTorch file of plain tensors or "
            "safetensors; it may be cut off: download it again"
        ) from error


def _reason(error: Exception) -> str:
    """What torch says went wrong, without its advice, which is to load unsafely."""
    advice = ("Weights only load failed", "Please file an issue", "Check the documentation")
    lines = [line for line in str(error).splitlines() if line and not line.startswith(advice)]
    return lines[0] if lines else type(error).__name__


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `module`; both must have exactly the same names and shapes.

    Only heads that `module` does not have are left out, and `mask_token`, which DINOv2 needs for
    its training alone. Raises `WeightsError` that lists what is missing, unexpected or of another
    shape.
    """
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    state = {k: v for k, v in state.items() if k in expected or not k.startswith(_HEADS)}
    got = {key: tuple(value.shape) for key, value in state.items()}
    problems = []
    ours, theirs = _traits(expected), _traits(got)
    if changed := [k for k in ours if k in theirs and ours[k] != theirs[k]]:
        problems.append(", ".join(f"{k}: {theirs[k]}, expected {ours[k]}" for k in changed))
    if missing := sorted(expected.keys() - got.keys()):
        problems.append(f"missing {_some(missing)}")
    if unexpected := sorted(got.keys() - expected.keys()):
        problems.append(f"unexpected {_some(unexpected)}")
    shared = sorted(expected.keys() & got.keys())
    if wrong := [f"{k} {got[k]} for {expected[k]}" for k in shared if got[k] != expected[k]]:
        problems.append(f"wrong shape: {_some(wrong)}")
    if problems:
        raise WeightsError(
            f"{source} does not fit this backbone: {'; '.join(problems)}. "
            "`zarrloc backbones` lists what each backbone is"
        )
    module.load_state_dict(state)


def _traits(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """What sets one ViT apart from another, read off its shapes."""
    traits = {"depth": len({key.split(".")[1] for key in shapes if key.startswith("blocks.")})}
    if len(kernel := shapes.get("patch_embed.proj.weight", ())) == 4:
        traits |= dict(zip(("width", "inputs", "patch"), kernel, strict=False))
    if len(position := shapes.get("pos_embed", ())) == 3:
        traits["positions"] = position[1]
    return traits


def _some(names: list[str], limit: int = 20) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def random_state(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights as DINO initialises them, from `seed` alone: truncated normal of sd 0.02.

    Biases are 0, scales 1, buffers as built. torch's global generator is neither read nor moved.
    """
    generator = torch.Generator().manual_seed(seed)
    state = dict(module.state_dict())
    for name, parameter in sorted(module.named_parameters()):
        value = torch.zeros(parameter.shape)
        if parameter.ndim > 1:
            nn.init.trunc_normal_(value, std=0.02, generator=generator)
        elif not name.endswith("bias"):
            value += 1
        state[name] = value
    return state


def freeze(backbone: Backbone, source: str) -> Backbone:
    """Put it into evaluation mode, without gradients; record `source` and its weights' hash."""
    backbone.eval().requires_grad_(False)
    backbone.weights_source = source
    backbone.weights_hash = hash_state(backbone.vit.state_dict())
    return backbone


def hash_state(state: Mapping[str, Tensor]) -> str:
    """Hex digest (xxh3, 128 bits) of names, dtypes, shapes and values, in the names' order."""
    digest = xxhash.xxh3_128()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _published_state(spec: BackboneSpec) -> dict[str, Tensor]:
    try:
        path = fetch.obtain(published.remote_of(spec.source))
    except WeightsError as error:
        raise WeightsError(f"{spec.name}: {error}, or pass --weights PATH") from error
    return read_state(path)


def is_cached(source: str) -> bool:
    """Whether a published file is on this machine."""
    if source.startswith(published.REQUEST):
        return False
    return (fetch.folder() / published.remote_of(source).name).is_file()


def save_backbone(
    directory: Path,
    backbone: Backbone,
    *,
    normalisation: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> str:
    """Write `backbone.safetensors` and, last, `backbone.json`; gives the weights' hash.

    The JSON holds the spec (arch, roles, patch, options such as the image size), the hash, the
    `normalisation` the network was trained with and its `lineage` (whatever JSON says: the
    weights it started from, data, epochs). `backbones.load(directory)` needs nothing more.
    """
    from safetensors.torch import save

    directory.mkdir(parents=True, exist_ok=True)
    module: nn.Module = backbone.vit
    state = {key: value.cpu().contiguous() for key, value in module.state_dict().items()}
    digest = hash_state(state)
    metadata = {
        "format": FORMAT,
        "spec": asdict(backbone.spec),
        "weights_hash": digest,
        "normalisation": dict(normalisation),
        "lineage": dict(lineage),
    }
    with replacing(directory / WEIGHTS_FILE) as file:
        file.write(save(state))
    metadata["digest"] = _digest_of(metadata)
    with replacing(directory / SPEC_FILE) as file:
        file.write(f"{json.dumps(metadata, indent=2)}\n".encode())
    return digest


def read_metadata(directory: Path) -> dict[str, Any]:
    """`backbone.json` of a directory, checked for its format.

    Raises `WeightsError` where it is absent, damaged or newer than this zarrloc.
    """
    path = directory / SPEC_FILE
    try:
        metadata = json.loads(path.read_text())
        written = int(metadata["format"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"{directory} holds no backbone: {path.name} is missing or damaged "
            f"({type(error).__name__}); expected a directory written by `zarrloc pretrain`"
        ) from error
    if written > FORMAT:
        raise WeightsError(f"{path} has format {written}, this zarrloc knows {FORMAT}: update it")
    if written != 1 and metadata.get("digest") != _digest_of(metadata):
        raise WeightsError(f"{path} is damaged or was changed by hand; copy the directory again")
    return dict(metadata)


def _digest_of(metadata: Mapping[str, Any]) -> str:
    """16 hex digits of `backbone.json`, the digest itself left out."""
    bare = {key: value for key, value in metadata.items() if key != "digest"}
    return xxhash.xxh3_64_hexdigest(json.dumps(bare, sort_keys=True).encode())


def read_spec(directory: Path) -> BackboneSpec:
    """The spec of a directory written by `save_backbone`."""
    metadata = read_metadata(directory)
    try:
        fields = dict(metadata["spec"])
        fields |= {"roles": tuple(fields["roles"]), "source": str(directory)}
        return BackboneSpec(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{directory / SPEC_FILE} is damaged: {error}; copy it again") from error


def _own_state(directory: Path) -> dict[str, Tensor]:
    state = read_state(directory)
    recorded, found = read_metadata(directory)["weights_hash"], hash_state(state)
    if recorded != found:
        raise WeightsError(
            f"{directory / WEIGHTS_FILE} has hash {found}, {SPEC_FILE} says {recorded}: "
            "one of the two was changed or cut off; copy the directory again"
        )
    return state


def check_export(directory: Path) -> None:
    """Compare all that `save_backbone` and `export_facebook` wrote there with its hash.

    Raises
    ------
    WeightsError
        Where a file is missing, cut off or altered.
    """
    recorded = read_metadata(directory)["weights_hash"]
    for name in (WEIGHTS_FILE, EXPORT_FILE):
        if hash_state(read_state(directory / name)) != recorded:
            raise WeightsError(f"{directory / name} is damaged: its hash is not {recorded}")


def export_facebook(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write timm's `state` as facebookresearch's checkpoint, which DINO's own tools read.

    That is `{"teacher": {"backbone.<name>": tensor}}`; Dino4Cells' tools read the same.
    """
    teacher = {f"backbone.{key}": value.detach().cpu() for key, value in state.items()}
    with replacing(path) as file:
        torch.save({"teacher": teacher}, file)
