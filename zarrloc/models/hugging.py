"""State dicts under Hugging Face's names for a ViT, brought to timm's.

Hugging Face keeps query, key and value apart and calls every part differently; the numbers are the
same. So is what is in front of the names: `vit.`, `dinov2.`, or SubCell's `encoder.`.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from zarrloc.errors import WeightsError

MARK = "embeddings.patch_embeddings.projection.weight"
"""The name that tells a Hugging Face ViT, behind whatever prefix."""

PARTS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "layernorm.": "norm.",
}
OF_A_BLOCK = {
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
LEFT_OUT = ("classifier", "pooler.", "decoder.", "head.", "lm_head", "classifiers.")
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QKV = re.compile(r"attention\.(?:attention\.)?(query|key|value)\.(weight|bias)")


def is_hugging(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has Hugging Face's names."""
    return any(key.endswith(MARK) for key in state)


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under timm's names; a pooler of SubCell's keeps its own.

    Parameters
    ----------
    state
        Tensors by Hugging Face's names, of ViT, DINOv2 or ViT-MAE.

    Returns
    -------
    dict of str to Tensor
        The same tensors, query, key and value of a block stacked into one.

    Raises
    ------
    WeightsError
        Naming what has no counterpart.

    Examples
    --------
    >>> to_timm({"vit.embeddings.cls_token": torch.ones(1, 1, 4),
    ...          f"vit.{MARK}": torch.ones(4, 3, 2, 2)})["cls_token"].shape
    torch.Size([1, 1, 4])
    """
    mark = next(key for key in state if key.endswith(MARK))
    prefix = mark.removesuffix(MARK)
    found: dict[str, Tensor] = {}
    qkv: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if key.startswith("pool_model."):
            found[key] = value
        elif (named := _renamed(name)) is not None:
            found[named] = value
        elif match := _BLOCK.fullmatch(name):
            part = _QKV.fullmatch(match[2])
            if part is None:
                unknown.append(key)
            else:
                qkv.setdefault(f"blocks.{match[1]}.attn.qkv.{part[2]}", {})[part[1]] = value
        elif not name.startswith(LEFT_OUT):
            unknown.append(key)
    for key, parts in qkv.items():
        missing = {"query", "key", "value"} - parts.keys()
        if missing:
            unknown.append(f"{key} without {', '.join(sorted(missing))}")
        else:
            found[key] = torch.cat([parts["query"], parts["key"], parts["value"]])
    if unknown:
        listed = ", ".join(sorted(unknown)[:10])
        raise WeightsError(
            f"{len(unknown)} tensors under Hugging Face's names have no counterpart in a plain "
            f"ViT: {listed}"
        )
    return found


def _renamed(name: str) -> str | None:
    for theirs, ours in PARTS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if match := _BLOCK.fullmatch(name):
        for theirs, ours in OF_A_BLOCK.items():
            if match[2].startswith(theirs):
                return f"blocks.{match[1]}.{ours}{match[2].removeprefix(theirs)}"
    return None


_CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.(.+)")


def unchunked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as if DINOv2's training had not put its blocks into chunks: `blocks.1.6.` is 6."""
    if not any(_CHUNKED.match(key) for key in state):
        return dict(state)
    return {_CHUNKED.sub(r"blocks.\1.\2", key): value for key, value in state.items()}
