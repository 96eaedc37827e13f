"""Plates of known pixels, written as the software of each vendor names its files."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile

Plane = npt.NDArray[Any]
WELLS = ("B02", "C11")
SITES = 2
STAINS = ("DAPI", "GFP")


class Shot(NamedTuple):
    """One plane of one channel of one field, all counted from 1."""

    well: str
    site: int
    channel: int
    plane: int
    pixels: Plane

    @property
    def row(self) -> int:
        return ord(self.well[0]) - 64

    @property
    def column(self) -> int:
        return int(self.well[1:])


def pixels_of(well: str, site: int, planes: int = 1, seed: int = 0) -> Plane:
    """`(z, channel, y, x)` uint16, other in each field."""
    rng = np.random.default_rng([seed, ord(well[0]), int(well[1:]), site])
    return rng.integers(100, 5000, (planes, 2, 24, 32)).astype(np.uint16)


def shots(planes: int, seed: int = 0) -> Iterator[Shot]:
    """Every plane of a plate of two wells with two fields each."""
    for well in WELLS:
        for site in range(1, SITES + 1):
            stack = pixels_of(well, site, planes, seed)
            for z, channel in np.ndindex(*stack.shape[:2]):
                yield Shot(well, site, channel + 1, z + 1, stack[z, channel])


def _save(path: Path, pixels: Plane) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, metadata=None)


def phenix(folder: Path, planes: int, seed: int = 0) -> None:
    """Harmony: images in `Images/`, the index one folder up."""
    entries, images = "", ""
    for channel, name in enumerate(("HOECHST 33342", "EGFP"), 1):
        entries += (
            f'<Entry ChannelID="{channel}"><ChannelName>{name}</ChannelName>'
            '<ImageResolutionX Unit="m">3.2E-07</ImageResolutionX></Entry>'
        )
    for shot in shots(planes, seed):
        name = (
            f"r{shot.row:02}c{shot.column:02}f{shot.site:02}p{shot.plane:02}"
            f"-ch{shot.channel}sk1fk1fl1.tiff"
        )
        _save(folder / "Images" / name, shot.pixels)
        images += f"<Image><URL>{name}</URL><ChannelID>{shot.channel}</ChannelID></Image>"
    xmlns = 'xmlns="43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7"'
    (folder / "Index.idx.xml").write_text(
        f"<EvaluationInputData {xmlns}><Plates><Plate><Name>P1</Name></Plate></Plates>"
        f"<Maps><Map>{entries}</Map></Maps><Images>{images}</Images></EvaluationInputData>"
    )


def cellvoyager(folder: Path, planes: int, seed: int = 0) -> None:
    """The action number changes with the channel."""
    records = ""
    for shot in shots(planes, seed):
        name = (
            f"P1_{shot.well}_T0001F{shot.site:03}L01A{shot.channel:02}Z{shot.plane:02}"
            f"C{shot.channel:02}.tif"
        )
        _save(folder / name, shot.pixels)
        records += f'<bts:MeasurementRecord bts:Type="IMG">{name}</bts:MeasurementRecord>'
    bts = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'
    (folder / "MeasurementData.mlf").write_text(
        f"<bts:MeasurementData {bts}>{records}</bts:MeasurementData>"
    )
    channels = "".join(
        f'<bts:MeasurementChannel bts:Ch="{n}" bts:HorizontalPixelDimension="0.32"/>'
        for n in (1, 2)
    )
    (folder / "MeasurementDetail.mrf").write_text(
        f"<bts:MeasurementDetail {bts}>{channels}</bts:MeasurementDetail>"
    )


def metaxpress(folder: Path, planes: int, seed: int = 0) -> None:
    """As exported: a GUID of its own for each file, and a thumbnail beside it."""
    rng = np.random.default_rng(0)
    for shot in shots(planes, seed):
        where = folder / "TimePoint_1" / (f"ZStep_{shot.plane}" if planes > 1 else "")
        for kind, pixels in (("", shot.pixels), ("_thumb", shot.pixels[::4, ::4])):
            guid = str(uuid.UUID(bytes=rng.bytes(16))).upper()
            name = f"P1_{shot.well}_s{shot.site}_w{shot.channel}{kind}{guid}.tif"
            _save(where / name, pixels)
    (folder / "P1.HTD").write_text('"WaveName1", "DAPI"\r\n"WaveName2", "GFP"\r\n')


def in_cell(folder: Path, planes: int, seed: int = 0) -> None:
    """Filters of excitation and emission in the name."""
    for shot in shots(planes, seed):
        filters = ("DAPI - DAPI", "Blue - FITC")[shot.channel - 1]
        z = f" z {shot.plane}" if planes > 1 else ""
        name = f"{shot.well[0]} - {shot.column}(fld {shot.site} wv {filters}{z}).tif"
        _save(folder / name, shot.pixels)


def protein_atlas(folder: Path, planes: int, seed: int = 0) -> None:
    """Colours, each with its role."""
    for shot in shots(planes, seed):
        colour = ("blue", "green")[shot.channel - 1]
        _save(folder / f"17_{shot.well}_{shot.site}_{colour}.tif", shot.pixels)


def stains(folder: Path, planes: int, seed: int = 0) -> None:
    """Anyone's: a stain, a site and a plane as words of the name."""
    for shot in shots(planes, seed):
        z = f"_z{shot.plane:02}" if planes > 1 else ""
        name = f"exp1_{shot.well}_s{shot.site}_{STAINS[shot.channel - 1]}{z}.tif"
        _save(folder / name, shot.pixels)


def folders(folder: Path, planes: int, seed: int = 0) -> None:
    """One folder a channel."""
    for shot in shots(planes, seed):
        z = f"_z{shot.plane:02}" if planes > 1 else ""
        name = f"{shot.well}_s{shot.site}{z}.tif"
        _save(folder / STAINS[shot.channel - 1] / name, shot.pixels)


VENDORS: Mapping[str, Callable[..., None]] = {
    "Opera Phenix": phenix,
    "CellVoyager": cellvoyager,
    "MetaXpress": metaxpress,
    "IN Cell": in_cell,
    "Human Protein Atlas": protein_atlas,
    "stains": stains,
    "folders": folders,
}
