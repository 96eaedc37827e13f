"""One field of view as an array, whatever files it comes in."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import SourceError
from zarrloc.images import files, formats, tiff
from zarrloc.images.fields import FovSource
from zarrloc.images.roles import Channels, natural


def read_uri(
    uri: str,
    *,
    axes: str | None = None,
    channels: int | None = None,
    unsigned: bool = False,
    check: Callable[[tiff.Header], None] | None = None,
) -> tiff.Image:
    """The built-in `tiff.Reader`, once its options are bound with `functools.partial`."""
    return formats.read(uri, axes=axes, channels=channels, unsigned=unsigned, check=check)


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
    about = formats.header(source.paths[0], axes=axes, channels=channels, unsigned=unsigned)
    return known_of(source, about)


def known_of(source: FovSource, about: tiff.Header) -> tiff.Header:
    """The header of a field, from that of its first file and what is known beside it."""
    names = tuple(dict.fromkeys(source.channels)) or about.channel_names
    planes = len(set(source.planes)) or 1
    shape, axes = about.shape, about.axes
    if source.channels:
        shape, axes = (len(names or ()), *shape), "C" + axes
    if planes > 1:
        shape, axes = (planes, *shape), "Z" + axes
    if len(set(axes)) < len(axes):
        raise SourceError(
            f"{files.base_name(source.paths[0])}: has shape {about.shape} ({about.axes}), expected "
            f"one plane of one channel, as its name says; pass --pattern to say what names mean"
        )
    pixel = source.pixel_size_um or about.pixel_size_um
    return dataclasses.replace(
        about, shape=shape, axes=axes, channel_names=names, pixel_size_um=pixel
    )


def read_field(
    source: FovSource,
    channels: Channels,
    *,
    project: str | None = None,
    reader: tiff.Reader | None = None,
) -> npt.NDArray[Any]:
    """Read one field of view as `(channel, y, x)` in the order of the roles, dtype as in the file.

    Where files name their channels, the names decide which is which; elsewhere the order does, if
    `channels` knows one. `reader` defaults to `read_uri`. Raises SourceError with what is wrong
    with the file.
    """
    if source.problem:
        raise SourceError(source.problem)
    read = reader or partial(read_uri, channels=len(channels.roles))
    tags = source.channels or ("",) * len(source.paths)
    numbers = source.planes or ("",) * len(source.paths)
    files_of: dict[str, list[str]] = {}
    for _, tag, path in sorted(zip(map(natural, numbers), tags, source.paths, strict=True)):
        files_of.setdefault(tag, []).append(path)
    if not source.channels:
        return tiff.project(_stacked(source, files_of[""], read, channels, project), project)
    order = channels.order(list(files_of), len(files_of))
    wanted = [list(files_of)[place] for place in order]
    stacks = {tag: _stacked(source, files_of[tag], read, None, project) for tag in wanted}
    kinds = [f"{tag} {stack.shape[2:]} {stack.dtype}" for tag, stack in stacks.items()]
    if len({(stack.shape, stack.dtype) for stack in stacks.values()}) > 1:
        raise SourceError(f"has channels of different shape or dtype: {', '.join(kinds)}")
    return tiff.project(np.concatenate(list(stacks.values()), axis=1), project)


def _stacked(
    source: FovSource,
    paths: Sequence[str],
    read: tiff.Reader,
    channels: Channels | None,
    project: str | None,
) -> npt.NDArray[Any]:
    """The planes of some files `(z, channel, y, x)`: of one channel, or in the roles' order."""
    stacks = []
    for path in paths:
        try:
            image = read(path)
            stack = tiff.to_stack(image)
            if channels is None and stack.shape[1] != 1:
                raise SourceError(f"has {stack.shape[1]} channels, expected the one of its name")
            if channels is not None:
                named = None if source.kind.startswith("opencell") else image.channel_names
                stack = stack[:, channels.order(named, stack.shape[1])]
        except SourceError as error:
            if len(source.paths) == 1:
                raise
            raise SourceError(f"{files.base_name(path)}: {error}") from error
        stacks.append(stack)
    if len({(stack.shape, stack.dtype) for stack in stacks}) > 1:
        shapes = ", ".join(sorted({f"{stack.shape[2:]} {stack.dtype}" for stack in stacks}))
        raise SourceError(f"has z planes of different shape or dtype: {shapes}")
    return np.concatenate(stacks) if len(stacks) > 1 else stacks[0]
