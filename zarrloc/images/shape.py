"""What all fields of a store have in common, learned from the files' headers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import SourceError
from zarrloc.images import files, opencell, read, tiff
from zarrloc.images.catalog import commonest
from zarrloc.images.find import FovSource
from zarrloc.images.roles import map_channels

HEADERS = 64
"""So many files, evenly spread, are looked into to learn what is commonest: one by one it takes
the coordinator a millisecond each, while its workers wait."""

REMOTE_HEADERS = 16
"""The same of an object store, where each costs a download."""


@dataclass(frozen=True)
class Shape:
    """What every field of the store has in common, and where the channel roles came from."""

    roles: tuple[str, ...]
    named_by: str
    """`given`, `opencell` or `files`."""
    dtype: str
    height: int
    width: int
    pixel_size_um: float | None
    notes: tuple[str, ...] = field(default=(), compare=False)


def shape_of(
    found: Sequence[FovSource], config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> Shape:
    """Learn from the files' headers what they have in common."""
    whole = [one for one in found if not one.problem]
    is_opencell = any(one.kind.startswith("opencell") for one in whole)
    remote = bool(whole) and files.is_remote(whole[0].paths[0])
    some = whole[:: max(1, len(whole) // (REMOTE_HEADERS if remote else HEADERS))]
    headers, reasons = _headers(some, config, unsigned, reader)
    if not headers and len(some) < len(whole):
        headers, reasons = _headers(whole, config, unsigned, reader)
    if not headers:
        reasons += [one.problem for one in found if one.problem]
        raise SourceError(f"none of the {len(found)} images can be read; the first: {reasons[0]}")
    names = commonest([h.channel_names or () for h in headers])
    roles, how = map_channels(config.channels, names or None, is_opencell)  # type: ignore[arg-type]
    if config.field_size:
        height, width = map(int, config.field_size.split("x"))
    else:
        height, width = commonest([(h.size("Y"), h.size("X")) for h in headers])  # type: ignore[misc]
    sizes = [h.pixel_size_um for h in headers if h.pixel_size_um]
    pixel = config.pixel_size_um or (
        opencell.PIXEL_SIZE_UM if is_opencell else (float(commonest(sizes)) if sizes else None)  # type: ignore[arg-type]
    )
    named_by = "given" if config.channels else "opencell" if is_opencell else "files"
    return Shape(
        roles,
        named_by,
        str(commonest([h.dtype for h in headers])),
        height,
        width,
        pixel,
        how,
    )


def _headers(
    some: Sequence[FovSource], config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> tuple[list[tiff.Header], list[str]]:
    """What can be learned of these files, and why nothing can of the others."""
    headers, reasons = [], []
    for one in some:
        try:
            headers.append(_header(one, config, unsigned, reader))
        except SourceError as error:
            reasons.append(f"{Path(one.paths[0]).name} {error}")
    return headers, reasons


def _header(
    source: FovSource, config: IngestConfig, unsigned: bool, reader: tiff.Reader | None
) -> tiff.Header:
    if reader is not None:
        image = reader(source.paths[0])
        shape, dtype = image.pixels.shape, image.pixels.dtype.name
        return tiff.Header(shape, image.axes, dtype, image.channel_names, image.pixel_size_um)
    channels = None if source.channels else len(config.channels) or None
    return read.describe(source, axes=config.axes, channels=channels, unsigned=unsigned)
