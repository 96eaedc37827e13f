"""Small TIFFs of known values, under OpenCell's names and under anyone's."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


def pixels(seed: int, shape: tuple[int, ...] = (2, 24, 32), dtype: str = "uint16") -> Any:
    """Random values above a camera offset, `(channel, y, x)`."""
    high = 250 if dtype == "uint8" else 5000
    return np.random.default_rng(seed).integers(100, high, shape).astype(dtype)


def opencell_name(fid: int, gene: str = "AAA", cid: int = 12, kind: str = "proj") -> str:
    """A base name as OpenCell has it; the ENSG is the same for all, as no join may use it."""
    return f"OC-FOV_{gene}_ENSG00000000001_CID{cid:06d}_FID{fid:08d}_{kind}.tif"


def write(path: Path, values: npt.NDArray[Any], axes: str = "CYX") -> Path:
    """An ImageJ hyperstack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, imagej=True, metadata={"axes": axes[-values.ndim :]})
    return path


def write_ome(path: Path, values: npt.NDArray[Any], names: tuple[str, ...]) -> Path:
    """An OME-TIFF that names its channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(path, values, ome=True, metadata=metadata)
    return path


def write_opencell(folder: Path, count: int, first: int = 1, **shape: Any) -> list[Path]:
    """`count` fields, two a protein: P00 (CID 12), P01 (CID 13), ..."""
    return [
        write(
            folder / opencell_name(fid, f"P{(fid - 1) // 2:02}", 12 + (fid - 1) // 2),
            pixels(fid, **shape),
        )
        for fid in range(first, first + count)
    ]


def write_label_tables(folder: Path, even: str = "er;golgi") -> tuple[Path, Path]:
    """OpenCell's two tables for such fields: annotations, cell lines."""
    folder.mkdir(parents=True, exist_ok=True)
    annotations, cell_lines = folder / "annotations.csv", folder / "targets.csv"
    grades = ",".join(f"annotations_grade_{grade}" for grade in (3, 2, 1))
    said = [f"{even},,vesicles", ",membrane,"]
    rows = [f"P{protein:02},ENSG2,{said[protein % 2]}" for protein in range(20)]
    annotations.write_text("\n".join([f"target_name,ensg_id,{grades}", *rows, ""]))
    rows = [f"{12 + protein},P{protein:02}" for protein in range(20)]
    cell_lines.write_text("\n".join(["cell_line_id,target_name", *rows, ""]))
    return annotations, cell_lines
