"""Objectives by name."""

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.dino import Dino
from zarrloc.pretraining.dinov2 import DinoV2
from zarrloc.pretraining.mae import Mae
from zarrloc.pretraining.objective import Objective
from zarrloc.pretraining.simclr import SimClr
from zarrloc.pretraining.vicreg import VicReg

OBJECTIVES: dict[str, type[Objective]] = {
    "dino": Dino,
    "dinov2": DinoV2,
    "mae": Mae,
    "simclr": SimClr,
    "vicreg": VicReg,
}


def objective_of(config: PretrainConfig, spec: BackboneSpec) -> Objective:
    """A fresh objective as `config` wants it, for a backbone of `spec`."""
    return OBJECTIVES[config.objective](config, spec)
