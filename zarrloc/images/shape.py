"""What all fields of a store have in common, learned from the files' headers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import SourceError
from zarrloc.images import files, opencell, read, tiff
from zarrloc.images.catalog import commonest
from zarrloc.images.dtypes import STORED
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import FILE_NAMES, Channels, map_channels
from zarrloc.store.remote import at_once

HEADERS = 512
"""So many files, evenly spread, are looked into to learn what is commonest: one by one it takes
the coordinator a millisecond each, while its workers wait."""

REMOTE_HEADERS = 16
"""The same for an object store, where each costs a download. Where none of them can be read, no
further ones are tried: a refusal is the same for all."""

SAME_PIXEL = 0.02
"""Sizes of a pixel that differ by less are one size, measured twice."""

MOST_PADDING = 2
"""A store of the largest field's size may be so many times as large as its fields."""

BYTES = 2
"""Bytes of a pixel, typically."""

FEW_BYTES = 256 << 20
"""A store under this size is not worth a warning."""


@dataclass(frozen=True)
class Shape:
    """What every field of the store has in common, and which channel has which role."""

    channels: Channels
    dtype: str
    height: int
    width: int
    pixel_size_um: float | None
    file_pixel_um: float | None
    """What the files say of it, which further files must say too; None for anything."""
    notes: tuple[str, ...] = field(default=(), compare=False)


def shape_of(
    found: Sequence[FovSource], config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> Shape:
    """Learn from the files' headers what they have in common.

    Raises SourceError if no field can be read, ChannelError if roles cannot be determined.
    """
    whole = [one for one in found if not one.problem]
    is_opencell = any(one.kind.startswith("opencell") for one in whole)
    remote = bool(whole) and files.is_remote(whole[0].paths[0])
    some = whole[:: max(1, len(whole) // (REMOTE_HEADERS if remote else HEADERS))]
    headers, reasons = _headers(some, config, unsigned, reader)
    if not headers and len(some) < len(whole) and not remote:
        headers, reasons = _headers(whole, config, unsigned, reader)
    if not headers:
        reasons += [f"{_shown(one)} {one.problem}" for one in found if one.problem]
        raise SourceError(f"none of the {len(found)} images can be read; the first: {reasons[0]}")
    channels = _channels(whole, headers, config, is_opencell)
    _refuse_all(some, headers, config, channels)
    height, width, sizes = _size(headers, config, len(whole))
    pixel, said = _pixel(headers, config, is_opencell)
    dtype = config.dtype or str(commonest([STORED.get(h.dtype, h.dtype) for h in headers]))
    file_pixel = None if config.pixel_size_um or is_opencell else pixel
    return Shape(channels, dtype, height, width, pixel, file_pixel, (*channels.how, *sizes, *said))


def _channels(
    whole: Sequence[FovSource],
    headers: Sequence[tiff.Header],
    config: IngestConfig,
    is_opencell: bool,
) -> Channels:
    names = commonest([h.channel_names or () for h in headers])
    count = commonest([h.size("C") for h in headers])
    in_files = any(one.channels for one in whole)
    return map_channels(
        config.channels,
        names or None,  # type: ignore[arg-type]
        count=count,  # type: ignore[arg-type]
        is_opencell=is_opencell,
        **({"origin": FILE_NAMES} if in_files else {}),
    )


def _refuse_all(
    some: Sequence[FovSource],
    headers: Sequence[tiff.Header],
    config: IngestConfig,
    channels: Channels,
) -> None:
    """Refuse a source of which no field could become a row."""
    first = None
    for header in headers:
        try:
            tiff.check_stack(header.size("T"), header.size("Z"), config.project)
            opencell_order = channels.origin == "opencell"
            channels.order(None if opencell_order else header.channel_names, header.size("C"))
        except SourceError as error:
            first = first or error
        else:
            return
    raise SourceError(
        f"none of the {len(headers)} images can be used; the first, {_shown(some[0])}: {first}"
    )


def _size(
    headers: Sequence[tiff.Header], config: IngestConfig, fields: int
) -> tuple[int, int, list[str]]:
    """Height and width that hold every field, unless a few odd ones would double the store."""
    if config.field_size:
        height, width = map(int, config.field_size.split("x"))
        return height, width, []
    sizes = sorted((h.size("Y"), h.size("X")) for h in headers)
    kept = sorted(sizes, key=lambda size: size[0] * size[1])
    pixels = sum(height * width for height, width in sizes)
    full = _bounds(kept)
    each = max(h.size("C") for h in headers) * BYTES
    while (
        len(set(kept)) > 1
        and _area(_bounds(kept)) * len(sizes) > MOST_PADDING * pixels
        and _area(_bounds(kept)) * fields * each > FEW_BYTES
    ):
        kept.pop()
    height, width = _bounds(kept)
    if (height, width) != full:
        over = len(sizes) - sum(h <= height and w <= width for h, w in sizes)
        return height, width, [
            f"field size {height}x{width} px; {over} of {len(sizes)} fields are larger and would "
            f"make the store {_area(full) / _area((height, width)):.1f} times as large: they get "
            f"an error. --field-size {full[0]}x{full[1]} takes them in"
        ]  # fmt: skip
    several = len(set(sizes))
    if several > 1:
        return height, width, [
            f"field size {height}x{width} px: fields have {several} sizes, smaller ones are padded"
        ]  # fmt: skip
    return height, width, []


def _bounds(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _pixel(
    headers: Sequence[tiff.Header], config: IngestConfig, is_opencell: bool
) -> tuple[float | None, list[str]]:
    """Micrometres a pixel, and what is odd about it."""
    if config.pixel_size_um or is_opencell:
        return config.pixel_size_um or opencell.PIXEL_SIZE_UM, []
    sizes = [h.pixel_size_um for h in headers if h.pixel_size_um]
    if not sizes:
        return None, []
    pixel: float = commonest(sizes)  # type: ignore[assignment]
    notes = []
    if len(sizes) < len(headers):
        notes.append(
            f"{len(headers) - len(sizes)} of {len(headers)} files do not say the size of a pixel; "
            f"taken to be {pixel:g} um, as in the others"
        )
    flat = [h for h in headers if h.pixel_height_um and not same_pixel(h.pixel_height_um, pixel)]
    if flat and flat[0].pixel_size_um == pixel:
        notes.append(
            f"pixels are not square: {flat[0].pixel_height_um:g} um high, {pixel:g} um wide; "
            f"{pixel:g} um is taken for both"
        )
    return pixel, notes


def same_pixel(one: float, other: float) -> bool:
    """Whether two sizes of a pixel are the same, but for how exactly they were measured."""
    return abs(one - other) <= SAME_PIXEL * max(one, other)


def _headers(
    some: Sequence[FovSource], config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> tuple[list[tiff.Header], list[str]]:
    """What can be learned of these files, and why nothing can of the others."""
    describe = describer(config, unsigned, reader)

    def look(one: FovSource) -> tiff.Header | str:
        try:
            return describe(one)
        except SourceError as error:
            return f"{_shown(one)} {error}"

    remote = bool(some) and files.is_remote(some[0].paths[0])
    found = at_once(look, some) if remote else list(map(look, some))
    headers = [one for one in found if isinstance(one, tiff.Header)]
    return headers, [one for one in found if isinstance(one, str)]


def describer(
    config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> Callable[[FovSource], tiff.Header]:
    """What tells the header of a field."""

    def describe(source: FovSource) -> tiff.Header:
        if reader is not None:
            image = reader(source.paths[0])
            shape, dtype = image.pixels.shape, image.pixels.dtype.name
            about = tiff.Header(shape, image.axes, dtype, image.channel_names, image.pixel_size_um)
            return read.known_of(source, about)
        pairs = any("=" in name for name in config.channels)
        channels = None if source.channels or pairs else len(config.channels) or None
        return read.describe(source, axes=config.axes, channels=channels, unsigned=unsigned)

    return describe


def _shown(source: FovSource) -> str:
    return files.base_name(source.paths[0])
