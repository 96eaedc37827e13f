"""Which backbones there are and what each takes in: data alone, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

RGB = ("R", "G", "B")
# The order of Dino4Cells' notebooks and augmentation code; its YAML's comments contradict it.
HPA = ("microtubules", "protein", "nucleus", "er")
ANY = ("channel",)
"""The one input of a network that takes a channel at a time."""

# The paper's best map onto an ImageNet backbone (Table D3).
IMAGENET_CHANNELS = "protein=1,nucleus=2"


@dataclass(frozen=True)
class BackboneSpec:
    """What a backbone is, without its weights."""

    name: str
    timm_model: str
    """timm's name of the architecture, with the pretrained tag where there is one."""
    roles: tuple[str, ...]
    """The role of each input, in the order of the network's inputs."""
    patch: int
    """Side of a patch in pixels: heights and widths must be its multiples."""
    features: int
    """Width of the embedding."""
    source: str
    """URL, `doi:` or path the published weights come from."""
    licence: str = ""
    default_channels: str = IMAGENET_CHANNELS
    """The channel map used where `--channels` says nothing."""
    position: Literal["facebook", "hugging", "timm"] = "facebook"
    """How the position embedding is brought to another size (see `zarrloc.models.vit`)."""
    norm: Literal["zscore", "minmax"] = "zscore"
    """How an image is normalised where `--norm` says nothing."""
    pool_heads: int = 0
    """Heads of the gated attention that pools all tokens (SubCell); 0: the class token alone."""
    tokens: Literal["patch", "channel"] = "patch"
    """Whether a token is a patch of all inputs together, or of one input: then any may be absent,
    which is all NaN (ChannelViT)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """timm arguments beyond the named model's own: `img_size`, `depth`, `global_pool`, ..."""


def _dino(name: str, timm_model: str, patch: int, features: int, arch: str) -> BackboneSpec:
    file = f"dino_{arch}_pretrain"
    url = f"https://dl.fbaipublicfiles.com/dino/{file}/{file}.pth"
    return BackboneSpec(name, timm_model, RGB, patch, features, url, "Apache-2.0")


def _hpa(name: str, timm_model: str, patch: int, source: str) -> BackboneSpec:
    licence = "see the Zenodo record"
    return BackboneSpec(name, timm_model, HPA, patch, 768, source, licence, "natural")


def _dinov2(name: str, timm_model: str, features: int) -> BackboneSpec:
    file = name.replace("-", "_")
    url = f"https://dl.fbaipublicfiles.com/dinov2/{file}/{file}_pretrain.pth"
    return BackboneSpec(name, timm_model, RGB, 14, features, url, "Apache-2.0")


def _dinov3(name: str, timm_model: str, features: int) -> BackboneSpec:
    return BackboneSpec(
        name,
        timm_model,
        RGB,
        16,
        features,
        f"https://huggingface.co/timm/{timm_model}/resolve/main/model.safetensors",
        "DINOv3 License",
        position="timm",  # rotary: there is no embedding to interpolate
        options={"global_pool": "token"},  # as the original; timm alone averages the patches
    )


def _subcell(name: str, file: str) -> BackboneSpec:
    # As CellProfiling/SubCellPortable: LayerNorm's eps, min-max over a crop's channels together.
    return BackboneSpec(
        name,
        "vit_base_patch16_224",
        ("nucleus", "protein"),
        16,
        1536,
        f"https://czi-subcell-public.s3.amazonaws.com/models/{file}",
        "MIT",
        "natural",
        position="hugging",
        norm="minmax",
        pool_heads=2,
        options={"img_size": 448, "norm_eps": 1e-12},
    )


def _cell_dino(name: str, roles: tuple[str, ...], channels: str) -> BackboneSpec:
    # facebookresearch/dinov2, dinov2/hub/cell_dino: LayerScale, no registers.
    page = "request:https://ai.meta.com/resources/models-and-libraries/cell-dino-downloads/"
    licence = "FAIR Noncommercial Research"
    options = {"init_values": 1.0}
    return BackboneSpec(
        name, "vit_large_patch16_224", roles, 16, 1024, page, licence, channels, options=options
    )


SPECS: Mapping[str, BackboneSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _dino("dino-vits16", "vit_small_patch16_224.dino", 16, 384, "deitsmall16"),
            _dino("dino-vits8", "vit_small_patch8_224.dino", 8, 384, "deitsmall8"),
            _dino("dino-vitb16", "vit_base_patch16_224.dino", 16, 768, "vitbase16"),
            _dino("dino-vitb8", "vit_base_patch8_224.dino", 8, 768, "vitbase8"),
            _hpa(
                "hpa-fov-vitb8",
                "vit_base_patch8_224",
                8,
                "doi:10.5281/zenodo.8061392/DINO_FOV_checkpoint.pth",
            ),
            _hpa(
                "hpa-cell-vitb16",
                "vit_base_patch16_224",
                16,
                "doi:10.5281/zenodo.8061426/DINO_single_cell_checkpoint.pth",
            ),
            _dinov2("dinov2-vits14", "vit_small_patch14_dinov2.lvd142m", 384),
            _dinov2("dinov2-vitb14", "vit_base_patch14_dinov2.lvd142m", 768),
            _dinov3("dinov3-vits16", "vit_small_patch16_dinov3.lvd1689m", 384),
            _dinov3("dinov3-vitb16", "vit_base_patch16_dinov3.lvd1689m", 768),
            _subcell("subcell-mae", "DNA-Protein_MAE-CellS-ProtS-Pool.pth"),
            _subcell("subcell-vit", "DNA-Protein_ViT-ProtS-Pool.pth"),
            BackboneSpec(
                "morphem",
                "vit_small_patch16_224",
                ANY,
                16,
                384,
                "https://huggingface.co/CaicedoLab/MorphEm/resolve/main/model.safetensors",
                "MIT",
                "replicate",
            ),
            _cell_dino("cell-dino-hpa", HPA, "natural"),
            _cell_dino("cell-dino-channel", ANY, "replicate"),
        )
    }
)
