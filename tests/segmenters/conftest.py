"""Tests here compare with cellpose itself, whose torchvision may need the shim."""

import zarrloc._torchvision  # noqa: F401
