"""A backbone by name: what it is, and the network with its weights.

`spec` imports neither torch nor timm for a name in `SPECS`; `load` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zarrloc.errors import ConfigError
from zarrloc.models import specs
from zarrloc.models.specs import BackboneSpec

if TYPE_CHECKING:
    from zarrloc.models.vit import Backbone

CLASSIC = "classic"
"""No network: the measurements of `zarrloc.pixels.classic`, which `embed` takes in its place."""


def spec(name: str) -> BackboneSpec:
    """The spec of a name in `SPECS`, of `timm:<model>`, or of a `zarrloc pretrain` directory.

    Raises `ConfigError` for an unknown name, `WeightsError` for a damaged directory.
    """
    if name in specs.SPECS:
        return specs.SPECS[name]
    if name.startswith("timm:"):
        from zarrloc.models.vit import timm_spec

        return timm_spec(name)
    if Path(name).is_dir():
        from zarrloc.models.weights import read_spec

        return read_spec(Path(name))
    if name == CLASSIC:
        raise ConfigError("backbone 'classic' is no network: `zarrloc embed` alone takes it")
    raise ConfigError(
        f"unknown backbone {name!r}; expected one of {', '.join(specs.SPECS)}, timm:<model>, "
        "classic (for embed), or a directory written by `zarrloc pretrain`"
    )


def load(name: str, weights: str | Path | None = None) -> Backbone:
    """The backbone `name`, frozen, on the CPU, with its weights.

    `weights` is `random:SEED`, a path (see `zarrloc.models.weights.read_state`), or None for the
    published ones, or, where `name` is a directory, for its own.

    Raises `ConfigError` for an unknown name and `WeightsError` for weights that are absent,
    unreadable or not exactly this backbone's.
    """
    from zarrloc.models.vit import Backbone
    from zarrloc.models.weights import fill, freeze, obtain

    backbone = Backbone(spec(name))
    state, source = obtain(backbone, weights)
    fill(backbone.vit, state, source)
    return freeze(backbone, source)
