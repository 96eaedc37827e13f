"""A whole simulated dataset in OpenCell's own form: images, the two label tables, the truth."""

import csv
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import tifffile
from dask.system import cpu_count

from zarrloc.config.simulate import SimulateConfig
from zarrloc.errors import ClusterError, ConfigError
from zarrloc.simulate.dataset import Target, plan, planned_fov
from zarrloc.simulate.fov import Fov

_POOL_FROM = 8  # fewer fields are done before a pool of processes has started


@dataclass(frozen=True)
class Summary:
    """What was written."""

    out: str
    fovs: int
    proteins: int
    cells: int


def simulate(out: str | os.PathLike[str], config: SimulateConfig | None = None) -> Summary:
    """Write a simulated dataset to the folder `out`, which appears only when it is complete.

    `raw/OC-FOV_<GENE>_<ENSG>_CID<6>_FID<8>_proj.tif` holds `(2, y, x)` uint16, Hoechst first;
    `labels/` OpenCell's two tables; `truth/` instance masks and `cells.csv`. The bytes depend on
    the seed and the sizes, not on the number of processes. As in OpenCell, some file names carry
    another ENSG or another spelling of the gene than the tables: join by cell line.

    Raises `ConfigError` if `out` holds anything already, `ClusterError` if a process dies.
    """
    config = config or SimulateConfig()
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; expected a new folder: name another one")
    targets = plan(config)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        for name in ("raw", "labels", "truth"):
            (partial / name).mkdir(parents=True)
        rows = list(_write_fovs(partial, targets, config))
        _write_tables(partial, targets, rows)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Summary(str(folder), sum(t.fovs for t in targets), len(targets), len(rows))


def _write_fovs(
    out: Path, targets: list[Target], config: SimulateConfig
) -> Iterator[dict[str, Any]]:
    """Write every field; yields the rows of `cells.csv` in the order of targets and fields."""
    pairs = [(target, field) for target in targets for field in range(target.fovs)]
    jobs = [(out, target, field, fid, config) for fid, (target, field) in enumerate(pairs, 1)]
    workers = min(config.workers or cpu_count(), len(jobs))
    if workers == 1 or len(jobs) < _POOL_FROM:
        for job in jobs:
            yield from _write_fov(job)
        return
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _die_with_parent) as pool:
            for rows in pool.map(_write_fov, jobs, chunksize=4):
                yield from rows
    except BrokenProcessPool as error:
        raise ClusterError(
            "a process died while it simulated; a script needs `if __name__ == '__main__':` "
            "around what it does, and workers=1 uses no other process"
        ) from error


def _die_with_parent() -> None:
    """A pool's process waits for work for ever, also when nobody is left to give it any."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_fov(
    job: tuple[Path, Target, int, int, SimulateConfig],
) -> list[dict[str, Any]]:
    out, target, field, fid, config = job
    fov = planned_fov(target, field, config)
    stem = (
        f"OC-FOV_{target.file_gene}_{target.file_ensg}_CID{target.cell_line:06d}_FID{fid:08d}_proj"
    )
    _write_image(out / "raw" / f"{stem}.tif", fov)
    for name, mask in (("cells", fov.cells), ("nuclei", fov.nuclei)):
        tifffile.imwrite(out / "truth" / f"{stem}_{name}.tif", mask, compression="zlib")
    return [
        {
            "field": stem,
            "mask_id": number,
            "labels": ";".join(grades),
            "grades": ";".join(map(str, grades.values())),
            "mitotic": int(number in fov.mitotic),
        }
        for number, grades in fov.grades.items()
    ]


def _write_image(path: Path, fov: Fov) -> None:
    """The tags of OpenCell's own files: ImageJ hyperstack, 5 px a um, no compression."""
    # Spelt out because tifffile's own ImageJ description leaves out the axes.
    tifffile.imwrite(
        path,
        fov.image,
        description=(
            "ImageJ=1.11a\nimages=2\nchannels=2\nhyperstack=true\nmode=grayscale\nunit=um\naxes=CYX"
        ),
        metadata=None,
        photometric="minisblack",
        resolution=(5, 5),
        resolutionunit="NONE",
        software="tifffile.py",
    )


def _write_tables(out: Path, targets: list[Target], rows: list[dict[str, Any]]) -> None:
    by_name = sorted(targets, key=lambda target: target.name)
    _write_csv(
        out / "labels" / "opencell-localization-annotations.csv",
        ("target_name", "ensg_id", *(f"annotations_grade_{grade}" for grade in (3, 2, 1))),
        ((t.name, t.ensg, *(";".join(_graded(t, grade)) for grade in (3, 2, 1))) for t in by_name),
    )
    _write_csv(
        out / "labels" / "all-public-targets.csv",
        ("cell_line_id", "target_name", "uniprot_id", "ensg_id"),
        (
            (t.cell_line, t.name, f"S{t.cell_line:05d}", t.file_ensg)
            for t in sorted(targets, key=lambda target: target.cell_line)
        ),
    )
    header = ("field", "mask_id", "labels", "grades", "mitotic")
    _write_csv(out / "truth" / "cells.csv", header, ([row[key] for key in header] for row in rows))


def _graded(target: Target, grade: int) -> list[str]:
    return [label for label, given in target.grades.items() if given == grade]


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(list(header))
        writer.writerows(rows)
