"""The paper's tables on simulated data, end to end on two cores: no download, no GPU.

    python examples/paper/simulated.py FOLDER [--proteins 500] [--steps 300] [--seeds 3]
    zarrloc reproduce examples/paper/*.yaml FOLDER/opencell.zarr --stand-ins FOLDER/stand_ins.yaml

Three things stand in for what the paper had: a small ViT trained on coloured shapes for ImageNet's,
one on simulated fields with four stains for the Human Protein Atlas', and one on cells of those for
its single cells. OpenCell is `zarrloc simulate`; its expert is the truth, wrong in one of twenty.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
import yaml

import zarrloc
from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate.dataset import plan, planned_fov
from zarrloc.simulate.write import simulate
from zarrloc.stages.label import label

PIXEL_UM = 2 * 0.2063  # fields are binned two by two: a quarter of the work
WINDOW_UM, WINDOW_PX = 33.008, 48  # of a cell; fields are embedded at the same resolution
EXPERT_FIELDS = 41
EXPERT_ERRS = 0.05
HPA_SEED, OPENCELL_SEED = 1, 2
"""No protein is in both."""
ARCH = {
    "arch": "vit_tiny_patch16",
    "arch_options": ["patch_size=8", "depth=3", "embed_dim=96", "num_heads=3"],
}
SMALL = {
    # The paper's DINO learns too little in minutes (benchmarks/README.md, "Objectives").
    "objective": "simclr", "size": WINDOW_PX, "learning_rate": 6e-3,
    "global_scale": [0.15, 0.4], "final_weight_decay": 0.1, "drop_path": 0.0,
    "head_hidden": 256, "projection": 64, "jitter": 0.3, "remove_channel": 0.5,
    "guard_epochs": 0, "cache": "device",
}  # fmt: skip


def main() -> None:
    """Make everything that is not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--proteins", type=int, default=500)
    parser.add_argument("--fovs", type=int, default=1, help="fields a protein")
    parser.add_argument("--steps", type=int, default=300, help="of each backbone's training")
    parser.add_argument(
        "--size", type=int, default=300, help="side of a field before it is binned, px"
    )
    parser.add_argument("--seeds", type=int, default=1, help="of splits, heads and fine-tuning")
    parser.add_argument("--cluster", default="auto", help="as of `zarrloc ingest`")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    run = zarrloc.RunConfig(cluster=given.cluster)

    opencell = folder / "opencell"
    if not opencell.exists():
        config = SimulateConfig(
            proteins=given.proteins, fovs_per_protein=given.fovs, size=given.size,
            seed=OPENCELL_SEED,
        )  # fmt: skip
        simulate(opencell, config)
    write_binned(opencell / "raw", folder / "opencell-raw")
    tables = opencell / "labels"
    zarrloc.ingest(
        folder / "opencell-raw", folder / "opencell.zarr",
        zarrloc.IngestConfig(pixel_size_um=PIXEL_UM),
        labels=tables / "opencell-localization-annotations.csv",
        cell_lines=tables / "all-public-targets.csv", run=run,
    )  # fmt: skip
    store = folder / "opencell.zarr"
    watershed = zarrloc.SegmentConfig(model="watershed")
    zarrloc.segment(store, watershed, "paper", crop_um=WINDOW_UM, run=run)
    label(store, "paper", expert(opencell, store, folder / "expert.csv"))

    few = max(16, given.proteins // 10)
    batch = min(64, 4 * few // 3)
    write_hpa(folder / "hpa-raw", few, given.size)
    write_shapes(folder / "rgb-raw", 4 * few, given.size)
    for name, roles in (("hpa", "microtubules,protein,nucleus,er"), ("rgb", "R,G,B")):
        wanted = zarrloc.IngestConfig(
            channels=tuple(roles.split(",")), axes="CYX", pixel_size_um=PIXEL_UM
        )
        zarrloc.ingest(folder / f"{name}-raw", folder / f"{name}.zarr", wanted, run=run)
    zarrloc.segment(folder / "hpa.zarr", watershed, "cells", crop_um=WINDOW_UM, run=run)
    cells = {"level": "cell", "crop_um": WINDOW_UM, "global_scale": [0.4, 1.0]}
    for name, own in (("hpa", {}), ("rgb", {}), ("hpa-cells", cells)):
        settings = zarrloc.PretrainConfig.of(
            {**ARCH, **SMALL, **own, "steps": given.steps, "batch": batch}
        )
        zarrloc.pretrain(folder / f"{name.split('-')[0]}.zarr", folder / name, settings)
    for seed in range(given.seeds):
        file = folder / stand_ins_file(seed)
        file.write_text(yaml.safe_dump(stand_ins(seed, batch), sort_keys=False))
        out = f" --out {store}.reproduce-{seed}" if seed else ""
        print(
            f"now: zarrloc reproduce {Path(__file__).parent}/*.yaml {store} --stand-ins {file}{out}"
        )


def stand_ins_file(seed: int) -> str:
    """The name of the file for a seed."""
    return f"stand_ins-{seed}.yaml" if seed else "stand_ins.yaml"


def stand_ins(seed: int = 0, batch: int = 64) -> dict[str, object]:
    """What takes whose place, and settings that small backbones want."""
    rgb, hpa = {"backbone": "rgb"}, {"backbone": "hpa"}
    scratch = {"arch": ARCH["arch"]}
    return {
        "backbones": {
            "dino-vits8": rgb,
            "dino-vitb8": dict(rgb),
            "dino-vitb16": dict(rgb),
            "hpa-fov-vitb8": hpa,
            "hpa-cell-vitb16": {"backbone": "hpa-cells"},
            "vit_small_patch8": scratch,
            "vit_base_patch8": dict(scratch),
        },
        "epochs_share": 0.05,
        "cell_epochs_share": 0.01,
        "table": {
            "size": f"um:{WINDOW_UM / WINDOW_PX:.4f}",
            "crop_um": WINDOW_UM,
            "segment": {"model": "watershed"},
            "head": {"hidden": [128], "epochs": 600, "lr": 3e-3},
            "seed": seed,
        },
        "pretrain": {
            **SMALL, "batch": batch, "learning_rate": 3e-3, "arch_options": ARCH["arch_options"],
            "seed": seed,
        },
    }  # fmt: skip


def expert(opencell: Path, store: Path, table: Path) -> Path:
    """What an expert would say of the cells of some fields of one label, from the truth."""
    rng = np.random.default_rng(0)
    with (opencell / "truth" / "cells.csv").open() as file:
        shown = {(row["field"], int(row["mask_id"])): row["labels"] for row in csv.DictReader(file)}
    tree = zarrloc.open_store(store)
    fovs, masks = tree["fovs"].to_dataset(), tree["segmentations/paper"].to_dataset()
    grade = fovs.grade.values
    single = np.flatnonzero(((grade == 3).sum(1) == 1) & ((grade > 0).sum(1) == 1))
    names = {path.name.split("_FID")[1][:8]: path.stem for path in (opencell / "raw").iterdir()}
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fov", "mask_label", "whole", "confirmed"])
        for row in rng.permutation(single)[:EXPERT_FIELDS]:
            name = str(fovs.fov.values[row])
            stem = names[name[-8:]]
            truth = tifffile.imread(opencell / "truth" / f"{stem}_cells.tif")
            truth = truth[::2, ::2]
            found = masks.mask[int(row)].values[: truth.shape[0], : truth.shape[1]]
            wanted = str(fovs.label.values[grade[row] == 3][0])
            for number in np.unique(found[found > 0]):
                inside = found == number
                cell = int(np.bincount(truth[inside]).argmax())
                union = (inside | (truth == cell)).sum()
                whole = cell > 0 and (inside & (truth == cell)).sum() / union >= 0.5
                confirmed = shown.get((stem, cell)) == wanted
                whole, confirmed = (
                    bool(said) != (rng.random() < EXPERT_ERRS) for said in (whole, confirmed)
                )
                writer.writerow([name, number, *("yes" if x else "no" for x in (whole, confirmed))])
    return table


def binned(image: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """`(channel, y, x)` -> `(channel, y / 2, x / 2)`: the mean of two by two pixels."""
    channels, height, width = image.shape
    blocks = image.reshape(channels, height // 2, 2, width // 2, 2)
    return blocks.mean((2, 4)).astype(np.uint16)


def write_binned(raw: Path, folder: Path) -> None:
    """Every field of `raw`, binned, under the same name."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    for path in sorted(raw.iterdir()):
        image = binned(tifffile.imread(path))
        tifffile.imwrite(partial / path.name, image, imagej=True, metadata={"axes": "CYX"})
    partial.rename(folder)


def write_hpa(folder: Path, proteins: int, size: int) -> None:
    """Fields of other proteins with four stains: microtubules, protein, nucleus, ER."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    config = SimulateConfig(proteins=proteins, fovs_per_protein=2, size=size, seed=HPA_SEED)
    for target in plan(config):
        for field in range(target.fovs):
            nucleus, protein = planned_fov(target, field, config).image
            # A scene is its protein's and its seed's, whatever pattern it shows.
            stains = {
                stain: planned_fov(replace(target, grades={stain: 3}), field, config).image[1]
                for stain in ("cytoskeleton", "er")
            }
            image = binned(np.stack([stains["cytoskeleton"], protein, nucleus, stains["er"]]))
            path = partial / f"P{target.number:04d}_{field}.tif"
            tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "CYX"})
    partial.rename(folder)


def write_shapes(folder: Path, count: int, size: int) -> None:
    """Pictures of coloured shapes and stripes, which know nothing of cells."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(exist_ok=True)
    y, x = np.mgrid[:size, :size] / size
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = np.ones((3, size, size)) * rng.random((3, 1, 1))
        for _ in range(rng.integers(6, 30)):
            cy, cx, radius, angle = rng.random(4) * (1, 1, 0.25, np.pi)
            u = (y - cy) * np.cos(angle) + (x - cx) * np.sin(angle)
            v = (x - cx) * np.cos(angle) - (y - cy) * np.sin(angle)
            inside = [
                np.hypot(u, 2 * v) < radius,
                np.maximum(np.abs(u), np.abs(v)) < radius,
                np.abs(u) < radius / 8,
            ][rng.integers(3)]
            stripes = 0.7 + 0.3 * np.sin(rng.uniform(20, 200) * u)
            picture = np.where(inside, rng.random((3, 1, 1)) * stripes, picture)
        noisy = 60_000 * picture + rng.normal(0, 600, picture.shape)
        image = binned(np.clip(noisy, 0, 65_535).astype(np.uint16))
        path = partial / f"shapes_{number:04d}.tif"
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "CYX"})
    partial.rename(folder)


if __name__ == "__main__":
    main()
