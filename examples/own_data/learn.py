"""Does learning beat classic features on your images? A labelled folder in, one table out.

    python examples/own_data/learn.py FOLDER --channels nucleus,protein
    python examples/own_data/learn.py FOLDER --labels labels.csv --group donor --minutes 20

FOLDER holds TIFFs in a folder a class (`FOLDER/golgi/17.tif`), or anywhere with `--labels`: a CSV
with `path` and `label`, and a column for `--group` (plate, donor, field). All scores are of groups
that no part of the work has seen: without a group each image is its own, and siblings give answers
away.

A ViT for your image size is trained without labels for `--minutes` on what is here, then a linear
probe and nearest neighbours score it beside chance, brightness, classic features and the same ViT
with random weights; five folds, mean and sd. Run it again: it continues.
"""

import argparse
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import zarrloc
from zarrloc.groups.embeddings import read_samples, row_folds
from zarrloc.scoring.baseline_features import baseline_features
from zarrloc.scoring.baselines import permuted
from zarrloc.scoring.evaluation import score_folds, training_rows
from zarrloc.scoring.knn import Neighbours, neighbours, vote
from zarrloc.scoring.metrics import Truth, called_of, counts, f1_of, macro, truth_of
from zarrloc.scoring.probe import train_probe
from zarrloc.store.location import Location

K = 5
SIDES = (32, 48, 64, 96, 128, 160)
"""What images are shrunk to for training: larger ones cost too much without a GPU."""
TRIAL_STEPS = 6
COMPARES = ("dinov2", "simclr", "vicreg")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything that is not done yet, and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=Path, help="CSV; else the class is the image's folder")
    parser.add_argument("--group", help="column that stays together in a fold")
    parser.add_argument("--group-from", help="regular expression: its first group, of the path")
    parser.add_argument("--channels", help="names in the files' order, such as nucleus,protein")
    parser.add_argument("--axes", help="of plain TIFFs, such as CYX or YX")
    parser.add_argument("--objective", default="vicreg", help="as of `zarrloc pretrain`")
    parser.add_argument("--minutes", type=float, default=5.0, help="of training")
    parser.add_argument("--out", type=Path, default=Path("own_data"), help="where things go")
    parser.add_argument("--cluster", default="local")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    run = zarrloc.RunConfig(cluster=given.cluster)

    labels, group = label_table(given)
    store = given.out / "own.zarr"
    channels = tuple(given.channels.split(",")) if given.channels else ()
    zarrloc.ingest(
        given.folder, store, zarrloc.IngestConfig(channels=channels, axes=given.axes),
        labels=labels, run=run,
    )  # fmt: skip
    by = group or "image"
    zarrloc.split(store, zarrloc.SplitConfig(folds=5, group=by), f"by-{by}")
    zarrloc.embed(store, zarrloc.EmbedConfig(backbone="classic"), "classic", run=run)
    backbones = train(store, given.out, given.objective, given.minutes, run)
    table = scores(store, f"by-{by}", ["classic", *backbones], backbones[-1])
    report(table, by, given.out)
    return table


def label_table(given: argparse.Namespace) -> tuple[Path, str | None]:
    """The table of labels, and the column that groups: as given, or from the folders' names."""
    if given.labels is not None:
        return given.labels, given.group
    images = sorted(p for p in given.folder.rglob("*") if p.suffix.lower() in (".tif", ".tiff"))
    made = given.out / "labels.csv"
    with made.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *["group"] * bool(given.group_from)])
        for image in images:
            row = [str(image.relative_to(given.folder)), image.parent.name]
            if given.group_from:
                found = re.search(given.group_from, str(image.relative_to(given.folder)))
                row.append(found[1] if found else "none")
            writer.writerow(row)
    return made, "group" if given.group_from else None


def train(store: Path, out: Path, objective: str, minutes: float, run: Any) -> list[str]:
    """A ViT that fits the images, with random weights and trained; names of the embeddings."""
    image = xr.open_zarr(store, group="fovs").image
    side = min(SIDES, key=lambda s: abs(s - min(image.shape[2:])))
    patch = 4 if side <= 32 else 8
    batch = int(min(64, max(8, len(image) // 8)))
    shared: dict[str, Any] = {
        "arch": "vit_tiny_patch16",
        "arch_options": (f"patch_size={patch}", "embed_dim=128", "depth=4", "num_heads=4"),
        "objective": objective,
        "batch": batch,
        "size": side,
        "local_size": max(patch, side // 2 // patch * patch),
        "local_views": 2,
        "local_scale": (0.2, 0.5),
        "global_scale": (0.5, 1.0),
        "warp": 0.1,
        "jitter": 0.3,
        # A tenth of the sides a step, and as fast as small networks bear.
        "learning_rate": 6e-3 * (1 if objective == "dino" else 0.5),
        "momentum": 0.98,
        "final_weight_decay": 0.1,
        "drop_path": 0.0,
        "prototypes": 256,
        "head_hidden": 512,
        "bottleneck": 64,
        "decoder_width": 128,
        "decoder_depth": 2,
        "cache": "device",
        "log_steps": 2,
    }
    trial = out / "trial"
    zarrloc.pretrain(
        store, trial, zarrloc.PretrainConfig(**shared, steps=TRIAL_STEPS, guard_epochs=0)
    )
    last = json.loads((trial / "log.jsonl").read_text().splitlines()[-1])
    planned = out / "steps.json"
    if not planned.exists():  # a second call trains on, it does not begin another run
        steps = max(20, round(60 * minutes * last["images_per_s"] / batch))
        planned.write_text(json.dumps(steps))
    steps = json.loads(planned.read_text())
    every = max(1, steps * batch // len(image) // 5)
    folder = out / "trained"
    settings = {**shared, "steps": steps, "guard_epochs": every, "log_steps": max(1, steps // 50)}
    zarrloc.pretrain(store, folder, zarrloc.PretrainConfig(**settings))
    names = {"random ViT": "random:0", f"{objective}, trained": None}
    for name, weights in names.items():
        config = zarrloc.EmbedConfig(
            backbone=str(folder), weights=weights, norm="trained", size=str(side)
        )
        zarrloc.embed(store, config, re.sub(r"\W+", "-", name), run=run)
    return [re.sub(r"\W+", "-", name) for name in names]


def scores(store: Path, split: str, names: list[str], learned: str) -> dict[str, dict[str, float]]:
    """Macro-F1 of a probe over folds, and of neighbours of other groups, by features."""
    location = Location.of(store)
    samples = read_samples(location, learned)
    fold = row_folds(location, split, samples)
    alone = bool(((samples.grade > 0).sum(axis=1) == 1).all())  # one class an image: one is called
    truth = truth_of(samples.grade, "positive", exclusive=alone)
    group = groups_of(store, split)
    tables = {name: read_samples(location, name).features for name in names}
    rows = truth.labelled & np.all([np.isfinite(t).all(1) for t in tables.values()], axis=0)
    tables |= {
        title: features
        for title, features in baseline_features(location, samples).items()
        if title != "classic features"
    }
    tables["classic and learned"] = np.concatenate([tables["classic"], tables[learned]], axis=1)
    truth, fold, group = truth[rows], fold[rows], group[rows]
    train_part = training_rows(fold, int(fold.max()) + 1)

    def probe(answers: Truth, features: np.ndarray) -> dict[str, Any]:
        heads = train_probe(features, answers, train_part)
        return score_folds(answers, heads.probability(features), fold, group, samples.labels)

    def knn(features: np.ndarray) -> float:
        spread = features.std(0)
        unit = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
        found: Neighbours = neighbours(unit.astype(np.float32), K, [group])[1]
        return float(
            macro(f1_of(counts(truth, called_of(vote(found, truth, K), 0.5, alone)).sum(axis=0)))
        )

    found = {"permuted labels": {**figures(probe(permuted(truth, 0), tables[learned][rows]))}}
    order = [t for t in tables if t not in names] + names
    order.append(order.pop(order.index("classic and learned")))
    for title in order:
        features = tables[title][rows]
        found[title] = {**figures(probe(truth, features)), "knn": knn(features)}
    return found


def groups_of(store: Path, split: str) -> np.ndarray:
    """What stayed together in the split."""
    by = split.removeprefix("by-")
    fovs = xr.open_zarr(store, group="fovs")
    return np.array([str(x) for x in fovs["fov" if by == "image" else by].values])


def figures(scored: dict[str, Any]) -> dict[str, float]:
    """Macro-F1 over the validation folds."""
    found = scored["validation"]["macro_f1"]
    return {"probe": found["mean"], "sd": found["sd"]}


def report(table: dict[str, dict[str, float]], by: str, out: Path) -> None:
    """Print the table, and write it beside the store."""
    lines = [
        f"macro-F1, folds by {by}; neighbours: {K}, of other groups",
        "",
        "| features | linear probe | neighbours |",
        "|---|---|---|",
    ]
    for title, row in table.items():
        knn = f"{row['knn']:.3f}" if "knn" in row else ""
        lines.append(f"| {title} | {row['probe']:.3f} ± {row['sd']:.3f} | {knn} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
