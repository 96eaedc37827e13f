"""Tests here compare with cellpose itself, whose torchvision may need the shim."""

import zarrloc.models.torchvision_shim  # noqa: F401
