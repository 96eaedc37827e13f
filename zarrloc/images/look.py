"""A look at a source before anything is read: its fields, as they are understood."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import SourceError
from zarrloc.images import find, tiff
from zarrloc.images.fields import FovSource
from zarrloc.images.shape import Shape, describer, shape_of

SHOWN = 10
COLUMNS = ("field", "plate", "well", "site", "channels", "planes", "pixels", "um/px", "dtype")


@dataclass(frozen=True)
class Look:
    """What a source holds, its pixels unread."""

    found: find.Fields
    shape: Shape
    rows: tuple[tuple[str, ...], ...]
    """The first fields, one tuple each, in the order of `COLUMNS`."""

    @property
    def exit_code(self) -> int:
        """Always 0: an unusable source raises instead."""
        return 0

    def lines(self) -> list[str]:
        """The fields found, as lines of text."""
        problems = [one for one in self.found if one.problem]
        size = f"{self.shape.height}x{self.shape.width} px, {self.shape.dtype}"
        pixel = self.shape.pixel_size_um
        lines = [
            f"{len(self.found)} fields of {len(self.shape.channels.roles)} channels "
            f"({', '.join(self.shape.channels.roles)}), {size}, "
            + (f"{pixel:g} um a pixel" if pixel else "size of a pixel unknown")
        ]
        lines += [counted for name in ("plate", "well") if (counted := self._counted(name))]
        lines += [*self.found.notes, *self.shape.notes]
        lines += _table((COLUMNS, *self.rows))
        if len(self.found) > len(self.rows):
            lines.append(f"... and {len(self.found) - len(self.rows)} more")
        for one in problems[:SHOWN]:
            lines.append(f"{one.fov}: {one.problem}")
        if len(problems) > SHOWN:
            lines.append(f"... {len(problems)} fields with a problem in all")
        return lines

    def _counted(self, name: str) -> str:
        values = Counter(one.coords.get(name, "") for one in self.found)
        del values[""]
        some = ", ".join(sorted(values)[:6]) + (", ..." if len(values) > 6 else "")
        return f"{len(values)} {name}{'s' * (len(values) > 1)}: {some}" if values else ""


def look(
    source: str | Path | None,
    config: IngestConfig | None = None,
    *,
    manifest: str | Path | None = None,
    unsigned: bool = False,
    reader: tiff.Reader | None = None,
) -> Look:
    """Understand a source as `ingest` would, from names and headers alone.

    Parameters
    ----------
    source, manifest
        As of `ingest`.
    config
        Its settings.
    unsigned
        Read a public object store without credentials.
    reader
        Replaces the built-in reader.

    Raises
    ------
    SourceError
        Where no field can be read.
    ChannelError
        Where the channels' roles cannot be determined.

    Examples
    --------
    >>> look("plate/").rows[0]  # doctest: +SKIP
    ('P1_B02_s1', 'P1', 'B02', '1', 'nucleus, protein', '1', '1024x1024', '0.32', 'uint16')
    """
    config = config or IngestConfig()
    found = find.find(
        source,
        manifest=manifest,
        channels=config.channels,
        pattern=config.pattern,
        project=config.project,
        unsigned=unsigned,
    )
    shape = shape_of(found, config, unsigned, reader)
    describe = describer(config, unsigned, reader)
    rows = tuple(_row(one, shape, config, describe) for one in found[:SHOWN])
    return Look(found, shape, rows)


def _row(
    one: FovSource,
    shape: Shape,
    config: IngestConfig,
    describe: Callable[[FovSource], tiff.Header],
) -> tuple[str, ...]:
    known = tuple(one.coords.get(name, "") for name in ("plate", "well", "site"))
    try:
        header = describe(one)
        names = None if shape.channels.origin == "opencell" else header.channel_names
        order = shape.channels.order(names, header.size("C"))
        tiff.check_stack(header.size("T"), header.size("Z"), config.project)
    except SourceError as error:
        return (one.fov, *known, f"ERROR: {error}", "", "", "", "")
    called = [names[place] if names else str(place) for place in order]
    channels = ", ".join(
        role if role == name.lower() else f"{role} ({name})"
        for role, name in zip(shape.channels.roles, called, strict=True)
    )
    pixel = config.pixel_size_um or header.pixel_size_um or shape.pixel_size_um
    return (
        one.fov, *known, channels, str(header.size("Z")),
        f"{header.size('Y')}x{header.size('X')}", f"{pixel:g}" if pixel else "", header.dtype,
    )  # fmt: skip


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, those that are empty left out."""
    kept = [place for place in range(len(rows[0])) if any(row[place] for row in rows[1:])]
    widths = [max(len(row[place]) for row in rows) for place in kept]
    cells = [
        [f"{row[place]:{width}}" for place, width in zip(kept, widths, strict=True)] for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]
