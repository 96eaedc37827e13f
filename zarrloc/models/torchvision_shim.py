"""Lets a CPU-only torch live beside a CUDA torchvision. Import this before timm or torchvision.

pip pairs a CPU build of torch with torchvision's CUDA wheel. Its compiled operators then don't
load, and its import dies on registering a fake for `torchvision::nms`. Declaring the two schemas
is enough: nothing here calls the operators. A torchvision that loads is left alone.
"""

import importlib
from typing import Any

import torch


def _import_torchvision() -> Any:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    importlib.import_module("torchvision")
    return library


# The declarations live as long as this reference.
LIBRARY = _import_torchvision()
