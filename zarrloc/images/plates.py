"""What file names of microscopes mean: one recogniser a vendor, as a table.

Each names the parts of a base name by its groups: plate, well (or row and col), site, z, t,
channel. An index beside the files adds what names leave out.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from zarrloc.errors import SourceError
from zarrloc.images import files, wells
from zarrloc.images.fields import Part
from zarrloc.images.files import File
from zarrloc.images.patterns import GUID

_TIFF = r"\.(?:tiff?|png)"
_WELL = r"(?P<well>[A-Z]{1,2}\d{2})"
# Folders that a vendor puts between a plate's folder and its files.
_INNER = re.compile(r"(images?|timepoint_(?P<t>\d+)|zstep_(?P<z>\d+))", re.IGNORECASE)


@dataclass(frozen=True)
class Index:
    """What a file beside the images says of a plate."""

    plate: str = ""
    names: dict[int, str] = field(default_factory=dict)
    """Number of a channel -> what it is called."""
    pixel_size_um: float | None = None
    listed: frozenset[str] = frozenset()
    """Base names of the images it lists, where it does."""


@dataclass(frozen=True)
class Naming:
    """How the software of one vendor names files."""

    vendor: str
    name: re.Pattern[str]
    tag: str = "{}"
    """What its users call a channel, from the text in the name."""
    index: Callable[[str, str, bool], Index] | None = None
    """From the plate's folder, the plate's name in the file names, and `unsigned`."""


# --- indexes ------------------------------------------------------------------------------------


def _phenix(folder: str, plate: str, unsigned: bool) -> Index:
    """Harmony's `Index.idx.xml` (or `Index.xml`), beside the images or one folder up."""
    up = folder.rstrip("/").rpartition("/")[0]
    names = ("Index.idx.xml", "Index.xml")
    where = [f"{place}/{name}" for place in (folder, f"{folder}/Images", up) for name in names]
    root = _xml(where, unsigned)
    if root is None:
        return Index()
    names_of: dict[int, str] = {}
    pixel = None
    listed = set()
    for entry in (*root.iterfind("{*}Maps/{*}Map/{*}Entry"), *root.iterfind("{*}Images/{*}Image")):
        number = entry.get("ChannelID") or entry.findtext("{*}ChannelID")
        called = entry.findtext("{*}ChannelName")
        if number and number.isdecimal() and called:
            names_of.setdefault(int(number), called.strip())
        metres = entry.findtext("{*}ImageResolutionX")
        pixel = pixel or (float(metres) * 1e6 if metres else None)
        listed.add(entry.findtext("{*}URL") or "")
    called = root.findtext("{*}Plates/{*}Plate/{*}Name") or ""
    return Index(called.strip(), names_of, pixel, frozenset(listed - {""}))


def _cellvoyager(folder: str, plate: str, unsigned: bool) -> Index:
    """Yokogawa's `MeasurementData.mlf` lists the images, `MeasurementDetail.mrf` the channels."""
    data = _xml([f"{folder}/MeasurementData.mlf"], unsigned)
    detail = _xml([f"{folder}/MeasurementDetail.mrf"], unsigned)
    pixel, names = None, {}
    for channel in () if detail is None else detail.iterfind("{*}MeasurementChannel"):
        said = {key.rpartition("}")[2]: value for key, value in channel.attrib.items()}
        pixel = pixel or float(said.get("HorizontalPixelDimension") or 0) or None
        called = said.get("Target") or said.get("Fluorophore")
        if called and said.get("Ch", "").isdecimal():
            names[int(said["Ch"])] = called
    listed = {
        (record.text or "").strip()
        for record in (() if data is None else data.iterfind("{*}MeasurementRecord"))
        if any(k.endswith("}Type") and v == "IMG" for k, v in record.attrib.items())
    }
    return Index("", names, pixel, frozenset(listed))


def _metaxpress(folder: str, plate: str, unsigned: bool) -> Index:
    """MetaXpress's `PLATE.HTD` holds lines such as `"WaveName1", "DAPI"`."""
    text = _text([f"{folder}/{plate}.{end}" for end in ("HTD", "htd")], unsigned)
    found = re.findall(r'"WaveName(\d+)"\s*,\s*"([^"]+)"', text or "")
    return Index("", {int(number): name.strip() for number, name in found if name.strip()})


def _xml(where: Iterable[str], unsigned: bool) -> ElementTree.Element | None:
    text = _text(where, unsigned)
    try:
        return None if text is None else ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None


def _text(where: Iterable[str], unsigned: bool) -> str | None:
    """The first of some files that is there."""
    for uri in where:
        if not files.stat(uri, unsigned=unsigned).problem:
            try:
                data = files.data(uri, unsigned=unsigned)
            except SourceError:
                continue
            return data.decode("utf-8-sig", errors="replace")
    return None


# --- the table ----------------------------------------------------------------------------------

NAMINGS = (
    Naming(
        "Opera Phenix / Operetta",
        re.compile(
            r"r(?P<row>\d+)c(?P<col>\d+)f(?P<site>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)"
            rf"(?:sk(?P<t>\d+)(?:fk\d+)?(?:fl\d+)?)?{_TIFF}",
            re.IGNORECASE,
        ),
        "ch{}",
        _phenix,
    ),
    Naming(
        "Operetta",
        re.compile(
            r"(?P<row>\d{3})(?P<col>\d{3})-(?P<site>\d+)-(?P<z>\d{3})(?P<t>\d{3})(?P<channel>\d{3})"
            rf"{_TIFF}"
        ),
        "ch{}",
        _phenix,
    ),
    Naming(
        "CellVoyager",
        re.compile(
            rf"(?P<plate>.+)_{_WELL}_T(?P<t>\d+)F(?P<site>\d+)L\d+A\d+Z(?P<z>\d+)C(?P<channel>\d+)"
            rf"{_TIFF}",
            re.IGNORECASE,
        ),
        "C{}",
        _cellvoyager,
    ),
    Naming(
        "MetaXpress",
        re.compile(
            rf"(?:(?P<plate>.+?)_)?{_WELL}(?:_s(?P<site>\d+))?(?:_z(?P<z>\d+))?_w(?P<channel>\d+)"
            rf"(?:_z(?P<z2>\d+))?(?:_t(?P<t>\d+))?(?:{GUID})?{_TIFF}",
            re.IGNORECASE,
        ),
        "w{}",
        _metaxpress,
    ),
    Naming(
        "IN Cell",
        re.compile(
            r"(?P<row>[A-Z]{1,2}) - (?P<col>\d{1,2})\(fld (?P<site>\d+)(?: wv (?P<channel>[^)]+?))"
            rf"(?: z (?P<z>\d+))?(?: time (?P<t>\d+)[^)]*)?\){_TIFF}",
            re.IGNORECASE,
        ),
    ),
    Naming(
        "ArrayScan",
        re.compile(
            rf"(?P<plate>.+?)_?(?P<well>[A-P]\d{{2}})f(?P<site>\d+)d(?P<channel>\d){_TIFF}",
            re.IGNORECASE,
        ),
        "d{}",
    ),
    Naming(
        "Micro-Manager 2",
        re.compile(
            r"img_channel(?P<channel>\d+)_position(?P<site>\d+)_time(?P<t>\d+)_z(?P<z>\d+)"
            rf"{_TIFF}",
            re.IGNORECASE,
        ),
        "ch{}",
    ),
    Naming(
        "Micro-Manager",
        re.compile(rf"img_(?P<t>\d{{9}})_(?P<channel>.+)_(?P<z>\d{{3}}){_TIFF}", re.IGNORECASE),
    ),
    Naming(
        "Human Protein Atlas",
        re.compile(
            r"(?:(?P<plate>\d+)_(?P<well>[A-P]\d{1,2})_(?P<site>\d+)|(?P<fov>.+))"
            rf"_(?P<channel>blue|green|red|yellow){_TIFF}",
            re.IGNORECASE,
        ),
    ),
)

HPA_ROLES = {"blue": "nucleus", "green": "protein", "red": "microtubules", "yellow": "er"}
"""What the Human Protein Atlas shows in each colour."""

THUMBNAIL = re.compile(rf"(?:.*_)?thumb(?:s|nail)?(?:{GUID})?{_TIFF}", re.IGNORECASE)
"""MetaXpress writes one beside each image."""


@dataclass(frozen=True)
class Recognised:
    """Files whose names a vendor's software made, the other files, and what was found."""

    parts: tuple[Part, ...] = ()
    rest: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()


def recognise(found: Sequence[File], *, unsigned: bool = False) -> Recognised:
    """Tell the files of a microscope's plates by their names."""
    rest = list(found)
    parts: list[Part] = []
    notes: list[str] = []
    for naming in NAMINGS:
        named = [(file, match) for file in rest if (match := naming.name.fullmatch(file.name))]
        if len({match["channel"].lower() for _, match in named}) < 2 and "fov" in (
            naming.name.groupindex
        ):
            continue  # a colour alone says nothing of who wrote the file
        if named:
            mine = _parts(naming, named, unsigned, notes)
            parts += mine
            taken = {part.file.uri for part in mine}
            rest = [file for file in rest if file.uri not in taken]
    return Recognised(tuple(parts), tuple(rest), tuple(notes))


def _parts(
    naming: Naming,
    named: Sequence[tuple[File, re.Match[str]]],
    unsigned: bool,
    notes: list[str],
) -> list[Part]:
    """The files of one vendor, each with what its name and its plate's index say."""
    indexes: dict[tuple[str, str], Index] = {}
    label = _labels(naming, [match["channel"] for _, match in named])
    times = {_said(match).get("t") or _inner(file.uri)[1].get("t") for file, match in named}
    parts = []
    for file, match in named:
        folder, inner = _inner(file.uri)
        said = inner | _said(match)
        place = folder, said.get("plate", "")
        if place not in indexes and naming.index is not None:
            indexes[place] = naming.index(*place, unsigned)
        index = indexes.get(place, Index())
        plate = said.get("plate") or index.plate
        row, column = said.get("row", ""), said.get("col", "")
        text = said.get("well") or (f"r{row}c{column}" if row.isdecimal() else row + column)
        well = wells.name_of(text) or text
        site, time = said.get("site", ""), said.get("t", "") if len(times) > 1 else ""
        name = [plate, well, site and f"s{site}", time and f"t{time}"]
        coords = {"plate": plate or files.base_name(folder), "well": well, "site": site}
        if not well:
            coords = {}
        if time:
            coords["time"] = time
        channel = label[match["channel"]]
        number = match["channel"]
        if number.isdecimal() and int(number) in index.names:
            channel = f"{channel}: {index.names[int(number)]}"
        parts.append(
            Part(
                file, said.get("fov") or "_".join(filter(None, name)) or files.base_name(folder),
                folder, channel,
                said.get("z") or said.get("z2", ""), coords, pixel_size_um=index.pixel_size_um,
            )
        )  # fmt: skip
    channels = ", ".join(sorted({part.channel for part in parts}))
    notes.append(f"{len(parts)} files are named as {naming.vendor} does: channels {channels}")
    there = {part.file.name for part in parts}
    missing = sum(len(index.listed - there) for index in indexes.values())
    if missing:
        notes.append(f"the index lists {missing} images whose files are not here")
    return _single_planes(parts)


def _said(match: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in match.groupdict().items() if value}


def _inner(uri: str) -> tuple[str, dict[str, str]]:
    """The plate's folder, and what the folders within it say (`TimePoint_1/ZStep_3`)."""
    folder = uri.rpartition("/")[0]
    said: dict[str, str] = {}
    while match := _INNER.fullmatch(files.base_name(folder)):
        said |= _said(match)
        folder = folder.rpartition("/")[0]
    return folder, said


def _labels(naming: Naming, texts: Iterable[str]) -> dict[str, str]:
    """What each channel is called, from its text in the names."""
    every = set(texts)
    if naming.vendor == "Human Protein Atlas":
        return {text: f"{text.lower()}: {HPA_ROLES[text.lower()]}" for text in every}
    ends = [text.rpartition(" - ")[2] for text in every]  # IN Cell: excitation - emission
    return {
        text: naming.tag.format(end if ends.count(end) == 1 else text)
        for text, end in ((text, text.rpartition(" - ")[2]) for text in every)
    }


def _single_planes(parts: Sequence[Part]) -> list[Part]:
    """The parts, without planes if no field has more than one."""
    if len({part.plane for part in parts}) > 1:
        return list(parts)
    return [dataclasses.replace(part, plane="") for part in parts]
