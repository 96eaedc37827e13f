"""Micro-Manager's stacks: which page is which plane stands in a tag of each page."""

import json
from dataclasses import dataclass
from typing import Any

from zarrloc.errors import SourceError

TAG = 51123
_AXES = {"T": "FrameIndex", "Z": "SliceIndex", "C": "ChannelIndex"}


@dataclass(frozen=True)
class Layout:
    """The planes of a stack: `sizes` along T, Z, C, and the page of each, in that order."""

    sizes: tuple[int, int, int]
    pages: tuple[int, ...]
    names: tuple[str, ...] | None
    pixel_size_um: float | None


def layout(tif: Any) -> Layout | None:
    """How the pages of a Micro-Manager file belong together; None for any other TIFF.

    Raises SourceError where planes are missing, or pages of several positions are in one file.
    """
    if TAG not in tif.pages[0].tags:
        return None
    said = [_said(page) for page in tif.pages]
    if len({int(one.get("PositionIndex", 0)) for one in said}) > 1:
        raise SourceError(
            "holds several positions of Micro-Manager; save each in a file of its own"
        )
    places = [tuple(int(one.get(key, 0)) for key in _AXES.values()) for one in said]
    order = sorted(range(len(places)), key=lambda page: places[page])
    firsts = [sorted({place[axis] for place in places}) for axis in range(3)]
    sizes = (len(firsts[0]), len(firsts[1]), len(firsts[2]))
    if sizes[0] * sizes[1] * sizes[2] != len(set(places)) or len(set(places)) != len(places):
        raise SourceError(
            f"holds {len(places)} planes of Micro-Manager, expected {sizes[0]} x {sizes[1]} x "
            f"{sizes[2]} (time, z, channel)"
        )
    by_channel = {
        place[2]: str(one.get("Channel") or "") for place, one in zip(places, said, strict=True)
    }
    names = tuple(by_channel[channel] for channel in sorted(by_channel))
    pixel = float(said[0].get("PixelSizeUm") or 0)
    return Layout(sizes, tuple(order), names if all(names) else None, pixel or None)


def _said(page: Any) -> dict[str, Any]:
    tag = page.tags.get(TAG)
    value = {} if tag is None else tag.value
    if isinstance(value, str | bytes):
        value = json.loads(value)
    return dict(value)
