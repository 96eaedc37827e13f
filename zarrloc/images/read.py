"""One field of view as an array, whatever files it comes in."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import SourceError
from zarrloc.images import files, tiff
from zarrloc.images.find import FovSource
from zarrloc.images.roles import role_of


def read_uri(
    uri: str,
    *,
    axes: str | None = None,
    channels: int | None = None,
    unsigned: bool = False,
    check: Callable[[tiff.Header], None] | None = None,
) -> tiff.Image:
    """The built-in `tiff.Reader`, once its options are bound with `functools.partial`."""
    return tiff.read(
        files.content(uri, unsigned=unsigned), axes=axes, channels=channels, check=check
    )


def describe(
    source: FovSource,
    *,
    axes: str | None = None,
    channels: int | None = None,
    unsigned: bool = False,
) -> tiff.Header:
    """Header of a field's (first) file, not decoded; channel names those of the field."""
    if source.problem:
        raise SourceError(source.problem)
    content = files.content(source.paths[0], unsigned=unsigned)
    about = tiff.header(content, axes=axes, channels=channels)
    return dataclasses.replace(about, channel_names=source.channels or about.channel_names)


def read_field(
    source: FovSource,
    roles: Sequence[str],
    *,
    channels_given: bool = False,
    project: str | None = None,
    reader: tiff.Reader | None = None,
) -> npt.NDArray[Any]:
    """Read one field of view as `(channel, y, x)` in the order of `roles`, dtype as in the file.

    OpenCell's order is known; with `channels_given` (by --channels) the file's order is taken as
    that of `roles`; otherwise channels are put in order by the names in the file's metadata.
    `reader` defaults to `read_uri`. Raises SourceError with what is wrong with the file.
    """
    if source.problem:
        raise SourceError(source.problem)
    read = reader or partial(read_uri, channels=len(roles))
    if source.kind == "per-channel":
        return _stacked(source, roles, read, project)
    image = read(source.paths[0])
    field = tiff.to_field(image, roles, project)
    if source.kind != "image" or channels_given:
        return field
    return field[_order(image.channel_names, roles)]


def _order(names: Sequence[str] | None, roles: Sequence[str]) -> list[int]:
    if names is None:
        raise SourceError("does not name its channels; pass --channels with their order")
    got = [role_of(name) for name in names]
    if sorted(got) != sorted(roles):
        raise SourceError(f"has channels {', '.join(names)}, expected {', '.join(roles)}")
    return [got.index(role) for role in roles]


def _stacked(
    source: FovSource, roles: Sequence[str], read: tiff.Reader, project: str | None
) -> npt.NDArray[Any]:
    paths = dict(zip(map(role_of, source.channels), source.paths, strict=True))
    if sorted(paths) != sorted(roles):
        raise SourceError(f"has channels {', '.join(paths)}, expected {', '.join(roles)}")
    planes = []
    for role in roles:
        try:
            planes.append(tiff.to_field(read(paths[role]), (role,), project)[0])
        except SourceError as error:
            raise SourceError(f"{PurePosixPath(paths[role]).name}: {error}") from error
    kinds = [
        f"{role} {plane.shape} {plane.dtype}" for role, plane in zip(roles, planes, strict=True)
    ]
    if len({(plane.shape, plane.dtype) for plane in planes}) > 1:
        raise SourceError(f"has channels of different shape or dtype: {', '.join(kinds)}")
    return np.stack(planes)
