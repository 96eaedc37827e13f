"""The report of 160,000 cells: size of the file, time to first paint, time to the drawn map.

    python benchmarks/report.py [--points 160000] [--fields 34]

The cells are those of a few simulated fields, over and over: pictures cost what they would, and
nothing waits for UMAP, whose time is its own (`--umap` measures it, on 768 features).
Needs Chromium. Drawn headless and without a GPU, so a desktop's browser is faster.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.report.browser import chromium
from tests.written import write_group
from zarrloc.config.report import ReportConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.pixels import measure
from zarrloc.report.projection import project
from zarrloc.report.write import write_report
from zarrloc.simulate import LABELS as TARGETS
from zarrloc.simulate import simulate_fov
from zarrloc.stages.split import split
from zarrloc.stages.train import train
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.document import ensure_root
from zarrloc.store.location import Location

LABELS = tuple(TARGETS)
WINDOW_PX = 256


def make_store(path: Path, points: int, fields: int) -> Location:
    """A store of `fields` simulated fields and a table of `points` cells, embedded and split."""
    location = Location.of(path)
    ensure_root(location)
    rng = np.random.default_rng(0)
    shown = np.arange(fields) % len(LABELS)
    simulated = [simulate_fov({LABELS[label]: 3}, seed=seed) for seed, label in enumerate(shown)]
    fov = np.array([f"FID{index:08d}" for index in range(fields)])
    protein = np.array([f"SIM{index:04d}" for index in range(fields)])
    images = np.stack([field.image for field in simulated])
    background = np.percentile(images, 2, axis=(2, 3)).astype(np.float32)
    side = images.shape[-1]
    grade = np.where(np.arange(len(LABELS)) == shown[:, None], 3, 0).astype(np.uint8)
    double = rng.random(fields) < 0.3
    grade[double, (shown[double] + 1) % len(LABELS)] = 3
    settings = {"height": side, "width": side, "dtype": "uint16", "pixel_size_um": 0.2063}
    ingest = StageAttrs.of("ingest", settings, {}, block_rows=fields)
    write(
        location, "fovs", ingest,
        image=(("fov", "channel", "y", "x"), images),
        background=(("fov", "channel"), background),
        grade=(("fov", "label"), grade),
        label=(("label",), np.array(LABELS)),
        channel=(("channel",), np.array(["nucleus", "protein"])),
        fov=(("fov",), fov),
        protein=(("fov",), protein),
        **dict.fromkeys(("error", "ensg", "cell_line"), (("fov",), np.array([""] * fields))),
        height=(("fov",), np.full(fields, side, np.int32)),
        width=(("fov",), np.full(fields, side, np.int32)),
    )  # fmt: skip
    masks = np.stack([field.cells for field in simulated]).astype(np.uint16)
    segment = StageAttrs.of("segment", {"model": "truth"}, {"fovs": ingest.fingerprint})
    write(location, "segmentations/sim", segment, mask=(("fov", "y", "x"), masks))

    tables = [
        measure.cells(image, mask, low, WINDOW_PX)
        for image, mask, low in zip(images, masks, background, strict=True)
    ]
    fov_index = np.sort(rng.integers(0, fields, points))
    pick = [rng.integers(0, len(tables[index]["mask_label"])) for index in fov_index]
    columns = {
        name: np.array([tables[f][name][i] for f, i in zip(fov_index, pick, strict=True)])
        for name in ("mask_label", "centroid_y", "centroid_x")
    }
    cells = StageAttrs.of("cells", {"window_px": WINDOW_PX}, {"fovs": ingest.fingerprint})
    write(
        location, "cells/sim", cells,
        fov_index=(("cell",), fov_index),
        keep=(("cell",), np.ones(points, bool)),
        **{name: (("cell",), values) for name, values in columns.items()},
    )  # fmt: skip
    angle = 2 * np.pi * shown[fov_index] / len(LABELS)
    features = np.stack([np.cos(angle), np.sin(angle)], 1) * 8 + rng.normal(size=(points, 2))
    embed = StageAttrs.of(
        "embed",
        {"level": "cell", "backbone": "planted", "window_px": WINDOW_PX, "outside": "black"},
        {"fovs": ingest.fingerprint, "cells/sim": cells.fingerprint},
    )
    write(
        location, "embeddings/cells", embed,
        embedding=(("cell", "feature"), features.astype(np.float32)),
        fov_index=(("cell",), fov_index),
        error=(("cell",), np.array([""] * points)),
    )  # fmt: skip
    split(location, SplitConfig(folds=2), "grouped")
    train(location, TrainConfig(embedding="cells", split="grouped", hidden=(), epochs=1), "head")
    return location


def write(location: Location, path: str, attrs: StageAttrs, **arrays: Any) -> None:
    """One group, its only block done, pictures in chunks of a field."""
    for receipt in ("block_output", "block_bytes"):
        arrays[receipt] = (("block",), np.ones(1, np.uint64))
    kept = {"zarrloc": attrs.model_dump(), "pixel_size_um": 0.2063}
    write_group(location, path, arrays, attrs=kept, shard=64)


def look(file: Path, profile: Path) -> dict[str, float]:
    """Seconds to first paint, to the map with all its points, to a tip under the mouse."""
    drawn = "performance.getEntriesByName('map drawn').length === 1"
    with chromium(profile) as page:
        start = time.perf_counter()
        page.load(file)
        page.wait(drawn)
        map_s = time.perf_counter() - start
        mark_s = page.value("performance.getEntriesByName('map drawn')[0].startTime") / 1000
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        first_paint_s = page.value(paint) / 1000
        page.value("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
        start = time.perf_counter()
        spot = "document.querySelector('#map .frame').getBoundingClientRect()"
        x, y = (page.value(f"{spot}.{axis}") for axis in "xy")
        for step in range(400):
            page.move(x + 150 + step, y + 150 + step // 2)
            if not page.value("document.getElementById('tip').hidden"):
                break
        else:
            raise SystemExit("no tip appeared under the mouse")
        tip_s = (time.perf_counter() - start) / (step + 1)
        assert page.errors == [], page.errors
    return {
        "first_paint_s": first_paint_s,
        "map_s": mark_s,
        "map_seen_s": map_s,
        "hover_step_s": tip_s,
    }


def main() -> None:
    """Make, write, look, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=160_000)
    parser.add_argument("--fields", type=int, default=34)
    parser.add_argument("--umap", action="store_true", help="also time UMAP on 768 features")
    parser.add_argument("--out", default="benchmarks/results/report.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"points": options.points}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        location = make_store(where / "cells.zarr", options.points, options.fields)
        config = ReportConfig(knn=(), baselines=False, bootstrap=100)
        start = time.perf_counter()
        summary = write_report(location, where / "report.html", config, project=lambda x, _: x)
        found["write_s"] = time.perf_counter() - start
        found["file_mb"] = summary.bytes / 1e6
        found |= look(summary.out, where / "profile")
    if options.umap:
        features = np.random.default_rng(0).normal(size=(options.points, 768)).astype("f4")
        start = time.perf_counter()
        project(features, ReportConfig())
        found["umap_s"] = time.perf_counter() - start
    found = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps(found, indent=2))
    Path(options.out).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
