"""What a backbone is to be shown, as settings say it: size and normalisation, without torch."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from zarrloc.errors import ConfigError
from zarrloc.models.specs import RGB

Norm = Literal["zscore", "minmax", "imagenet", "trained", "none"]

Affine = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and sd of each input of a backbone, for values in [0, 1]."""


NEAR = 1.25
"""Details that differ by less are taken for the same."""


class Plan(NamedTuple):
    """What a field becomes: pixels before the padding, and how much one stands for."""

    height: int
    width: int
    um_per_px: float | None
    um_per_token: float | None
    """Side of a patch; None also for what has no patches, such as a convolutional network."""


class Detail(NamedTuple):
    """How fine an image is that a network sees."""

    shrunk: float
    """Stored pixels to one of its, along a side."""
    um_per_px: float | None

    @classmethod
    def of(cls, shrunk: float, pixel_size_um: float | None) -> Self:
        """That of images which a network sees `shrunk` times smaller than they are stored."""
        return cls(shrunk, None if pixel_size_um is None else shrunk * pixel_size_um)

    def __str__(self) -> str:
        """In words, `2 stored ones along a side (0.4 um)`."""
        um = "" if self.um_per_px is None else f" ({self.um_per_px:.3g} um)"
        return f"{self.shrunk:.3g} stored ones along a side{um}"

    def size(self, longer_px: int, pixel_size_um: float | None) -> str:
        """The `--size` that shows images of so many pixels, of this size, in this detail.

        Examples
        --------
        >>> half = Detail.of(2, 0.2)
        >>> half.size(600, 0.2), half.size(600, 0.4), half.size(600, None)
        ('um:0.4', 'native', '300')
        """
        if self.near(Detail.of(1, pixel_size_um)):
            return "native"
        if self.um_per_px is None or pixel_size_um is None:
            return str(max(1, round(longer_px / self.shrunk)))
        return f"um:{self.um_per_px:.3g}"

    def coarser(self, other: Self) -> float:
        """How many times as coarse as `other`: by micrometres where both know them."""
        if self.um_per_px is None or other.um_per_px is None:
            return self.shrunk / other.shrunk
        return self.um_per_px / other.um_per_px

    def near(self, other: Self) -> bool:
        """Whether both are taken for the same."""
        return 1 / NEAR < self.coarser(other) < NEAR


@dataclass(frozen=True)
class Size:
    """`native`, the longer side in pixels (`224`), or a physical pixel size (`um:0.32`)."""

    kind: Literal["native", "pixels", "um"]
    value: float = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `native`, `N` or `um:X`; raises `ConfigError` for anything else."""
        if text == "native":
            return cls("native")
        if text.isdecimal() and int(text) > 0:
            return cls("pixels", int(text))
        try:
            if text.startswith("um:") and 0 < (value := float(text[3:])) < float("inf"):
                return cls("um", value)
        except ValueError:
            pass
        raise ConfigError(
            f"size {text!r}: expected native, the longer side in pixels such as 224, "
            "or a pixel size in micrometres such as um:0.32"
        )

    def __str__(self) -> str:
        """The text `parse` reads."""
        return {"native": "native", "pixels": f"{self.value:g}", "um": f"um:{self.value:g}"}[
            self.kind
        ]

    def plan(self, height: int, width: int, patch: int, pixel_size_um: float | None) -> Plan:
        """The size a field of `height` x `width` px gets, aspect kept, and its um a pixel.

        A `patch` of 1 px stands for none.
        Raises `ConfigError` for `um:` where the store does not say its pixel size.
        """
        if self.kind == "um" and pixel_size_um is None:
            raise ConfigError(
                f"size {self} needs the pixel size, which the store does not have; "
                "ingest with one, or pass --size native or a number of pixels"
            )
        scale = 1.0
        if self.kind == "pixels":
            scale = self.value / max(height, width)
        elif self.kind == "um" and pixel_size_um is not None:
            scale = pixel_size_um / self.value
        um = None if pixel_size_um is None else pixel_size_um / scale
        out = (max(1, round(height * scale)), max(1, round(width * scale)))
        return Plan(*out, um, None if um is None or patch == 1 else um * patch)


def refuse_norm(norm: str, inputs: tuple[str, ...], trained: Affine | None) -> None:
    """Refuse a normalisation that a backbone of these input roles has no statistics for.

    Raises
    ------
    ConfigError
        For `imagenet` on inputs other than R, G, B, and for `trained` without an affine.
    """
    if norm == "imagenet" and inputs != RGB:
        raise ConfigError(
            f"norm imagenet has statistics for R, G, B; this backbone's inputs are {list(inputs)}; "
            "use --norm zscore"
        )
    if norm == "trained" and trained is None:
        raise ConfigError(
            "norm trained is for a backbone made by `zarrloc pretrain`, which records it; "
            "use --norm zscore"
        )
