"""Does learning beat classic features on your images? A labelled folder in, one table out.

    python examples/own_data/learn.py FOLDER --channels nucleus,protein
    python examples/own_data/learn.py FOLDER --labels labels.csv --group donor --minutes 20

FOLDER holds TIFFs or PNGs in a folder a class (`FOLDER/golgi/17.tif`), or anywhere with `--labels`:
a CSV with `path` and `label`, and a column for `--group` (plate, donor, field). All scores are of
groups that no part of the work has seen: without a group each image is its own, and siblings give
answers away.

A ViT for your image size is trained without labels for `--minutes` on what is here, then a linear
probe and nearest neighbours score it beside chance, brightness, classic features and the same ViT
with random weights: predictions of all folds together, with 95 % intervals over groups. Run it
again: it continues.
"""

import argparse
import csv
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import zarrloc
from zarrloc.errors import ZarrlocError
from zarrloc.groups.embeddings import read_samples, row_folds
from zarrloc.scoring.baseline_features import baseline_features
from zarrloc.scoring.baselines import permuted
from zarrloc.scoring.evaluation import score_folds, training_rows
from zarrloc.scoring.knn import Neighbours, neighbours, vote
from zarrloc.scoring.metrics import Truth, called_of, counts, f1_of, macro, truth_of
from zarrloc.scoring.probe import train_probe
from zarrloc.store.location import Location

FOLDS, K = 5, 5
RESAMPLES = 1000
SUFFIXES = (".tif", ".tiff", ".png")
SIDES = (32, 48, 64, 96, 128, 160)
"""What images are shrunk to for training: larger ones cost too much without a GPU."""
LEAST_SIDE = 48
EPOCHS = 100
"""Images are shrunk further, to LEAST_SIDE, where the time is too short to see each so often."""
TRIAL_STEPS = 12
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
    if given.group_from and given.labels:
        parser.error("--group-from is of paths, without --labels; name a column of it by --group")
    if given.group and not given.labels:
        parser.error("--group names a column of --labels; --group-from finds groups in paths")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("zarrloc").setLevel(logging.INFO)  # a line now and then: it takes minutes
    run = zarrloc.RunConfig(cluster=given.cluster)

    labels, group = label_table(given)
    store = given.out / "own.zarr"
    channels = tuple(given.channels.split(",")) if given.channels else ()
    print(zarrloc.ingest(
        given.folder, store, zarrloc.IngestConfig(channels=channels, axes=given.axes),
        labels=labels, run=run,
    ))  # fmt: skip
    by = group or "image"
    folds = folds_of(store, by)
    print(zarrloc.split(store, zarrloc.SplitConfig(folds=folds, group=by), f"by-{by}"))
    zarrloc.embed(store, zarrloc.EmbedConfig(backbone="classic"), "classic", run=run)
    backbones = train(store, given.out, given.objective, given.minutes, run)
    table = scores(store, f"by-{by}", ["classic", *backbones], backbones[-1])
    report(table, by, given.out)
    return table


def label_table(given: argparse.Namespace) -> tuple[Path, str | None]:
    """The table of labels, and the column that groups: as given, or from the folders' names."""
    if given.labels is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        return given.labels, given.group
    images = sorted(p for p in given.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not images:
        sys.exit(f"no image in {given.folder}: a folder a class holds {', '.join(SUFFIXES)}")
    if stray := [image for image in images if image.parent == given.folder]:
        sys.exit(f"{stray[0]} lies in no folder of its class; move it there, or use --labels")
    given.out.mkdir(parents=True, exist_ok=True)
    made = given.out / "labels.csv"
    with made.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *["group"] * bool(given.group_from)])
        for image in images:
            row = [str(image.relative_to(given.folder)), image.parent.name]
            if given.group_from:
                found = re.search(given.group_from, row[0])
                if not found or not found.groups():
                    sys.exit(f"--group-from {given.group_from} finds no (group) in {row[0]}")
                row.append(found[1])
            writer.writerow(row)
    return made, "group" if given.group_from else None


def folds_of(store: Path, by: str) -> int:
    """How many folds the groups make; ends with a word where nothing can be scored."""
    fovs = xr.open_zarr(store, group="fovs")
    sound = fovs.error.values == ""
    if "grade" not in fovs:
        sys.exit("no image has a label")
    shown = (fovs.grade.values[sound] > 0).any(axis=0)
    if shown.sum() < 2:
        names = ", ".join(map(str, fovs.label.values[shown]))
        sys.exit(f"all images show {names or 'nothing'}: two classes or more can be told apart")
    if by != "image" and by not in fovs:
        sys.exit(f"--labels has no column {by}")
    groups = len(np.unique(groups_of(store, f"by-{by}")[sound]))
    if groups < 2:
        sys.exit(f"there is one {by}: a score is of groups that were not learned from")
    if groups < FOLDS:
        print(f"{groups} folds, since there are as many {by}s: these scores say little")
    return min(FOLDS, groups)


def train(store: Path, out: Path, objective: str, minutes: float, run: Any) -> list[str]:
    """A ViT that fits the images, with random weights and trained; names of the embeddings."""
    fovs = xr.open_zarr(store, group="fovs")
    count = int((fovs.error.values == "").sum())
    batch = min(64, max(8, count // 8), count)
    planned = out / "planned.json"
    if not planned.exists():  # a second call trains on, it does not begin another run
        side = min(SIDES, key=lambda s: abs(s - min(fovs.image.shape[2:])))
        config = settings(side, objective, batch) | {"steps": TRIAL_STEPS, "guard_epochs": 0}
        zarrloc.pretrain(store, out / "trial", zarrloc.PretrainConfig(**config))
        log = (out / "trial" / "log.jsonl").read_text().splitlines()
        images_per_s = float(np.median([json.loads(row)["images_per_s"] for row in log[1:]]))
        side, epochs = smaller(side, 60 * minutes * images_per_s / count)
        steps = max(20, round(epochs * count / batch))
        planned.write_text(json.dumps({"side": side, "steps": steps}))
    side, steps = json.loads(planned.read_text()).values()
    every = max(1, steps * batch // count // 5)
    folder = out / "trained"
    print(f"training a ViT of {side} px by {objective}: {steps} steps, about {minutes:g} minutes")
    config = settings(side, objective, batch) | {
        "steps": steps, "guard_epochs": every, "log_steps": max(1, steps // 50),
    }  # fmt: skip
    done = zarrloc.pretrain(store, folder, zarrloc.PretrainConfig(**config))
    if done.exit_code:
        sys.exit(f"training ended early; see above, or try another --objective or --out than {out}")
    names = {"random ViT": "random:0", f"{objective}, trained": None}
    for name, weights in names.items():
        embedding = zarrloc.EmbedConfig(
            backbone=str(folder), weights=weights, norm="trained", size=str(side)
        )
        zarrloc.embed(store, embedding, re.sub(r"\W+", "-", name), run=run)
    return [re.sub(r"\W+", "-", name) for name in names]


def smaller(side: int, epochs: float) -> tuple[int, float]:
    """The largest side up to `side` that leaves time for EPOCHS, and for how many it does.

    Nothing below LEAST_SIDE; the time of an image grows with its patches.
    """
    while epochs < EPOCHS and side > LEAST_SIDE:
        less = max(each for each in SIDES if each < side)
        side, epochs = less, epochs * (side / less) ** 2
    return side, epochs


def settings(side: int, objective: str, batch: int) -> dict[str, Any]:
    """Of a training with views of `side` px."""
    patch = 4 if side <= 32 else 8
    return {
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
        return score_folds(
            answers, heads.probability(features), fold, group, samples.labels, bootstrap=RESAMPLES
        )

    def knn(answers: Truth, features: np.ndarray) -> float:
        spread = features.std(0)
        unit = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
        found: Neighbours = neighbours(unit.astype(np.float32), K, [group])[1]
        return float(
            macro(
                f1_of(counts(answers, called_of(vote(found, answers, K), 0.5, alone)).sum(axis=0))
            )
        )

    def both(answers: Truth, features: np.ndarray) -> dict[str, float]:
        return {**figures(probe(answers, features)), "knn": knn(answers, features)}

    found = {"permuted labels": both(permuted(truth, 0), tables[learned][rows])}
    order = [t for t in tables if t not in names] + names
    order.append(order.pop(order.index("classic and learned")))
    for title in order:
        found[title] = both(truth, tables[title][rows])
    return found


def groups_of(store: Path, split: str) -> np.ndarray:
    """What stayed together in the split."""
    by = split.removeprefix("by-")
    fovs = xr.open_zarr(store, group="fovs")
    return np.array([str(x) for x in fovs["fov" if by == "image" else by].values])


def figures(scored: dict[str, Any]) -> dict[str, float]:
    """Macro-F1 of all folds' predictions together: a fold alone may lack a class."""
    low, high = scored["pooled"]["macro_f1_ci"]
    return {"probe": scored["pooled"]["macro_f1"], "low": low, "high": high}


def report(table: dict[str, dict[str, float]], by: str, out: Path) -> None:
    """Print the table, and write it beside the store."""
    lines = [
        f"macro-F1, folds by {by}; neighbours: {K}, of other groups",
        "",
        "| features | linear probe (95 %) | neighbours |",
        "|---|---|---|",
    ]
    for title, row in table.items():
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append(f"| {title} | {row['probe']:.3f} ({interval}) | {row['knn']:.3f} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    (out / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except ZarrlocError as error:
        sys.exit(f"learn.py: {error}")
