"""Which objective learns most in equal CPU time? One small ViT on simulated cells, no label.

    python benchmarks/accuracy/objectives.py FOLDER [--minutes 10] [--seeds 3] [--test STORE]
        [--only vicreg,dino] [--window 96]

The same ViT is trained by every objective of `zarrloc pretrain` on cells of simulated proteins, as
in `pretrain.py`, each for as many steps as `--minutes` of CPU time allow by its own first steps. It
then embeds 1,000 fields of 500 proteins that no training saw (`--test`: the store of
`examples/paper/simulated.py`, which shows the same). Five folds grouped by protein, predictions
pooled, macro-F1 over 17 labels, 95 % intervals by resampling proteins.

Nothing is chosen on the rows that are scored: thresholds of head and probe, and k and thresholds
of the neighbours, are those that are best on the other folds. A protein's own fields never vote.
Beside them stand permuted labels, intensity statistics, classic features and random weights; the
head, with `zarrloc train`'s defaults, stands for the first seed (it takes minutes).

`--window` is the side of what is cut around a cell, which views of 48 px show in part or whole: the
smaller it is, the finer the detail. Fields are embedded at the detail that was trained on.

What is in FOLDER is not made again: killed, it continues.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pretrain import SETTINGS, WINDOW_PX, make_store

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.simulate import SimulateConfig
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import HeadConfig
from zarrloc.groups.embeddings import Samples, read_samples, row_folds
from zarrloc.groups.heads import Heads
from zarrloc.scoring.baseline_features import baseline_features
from zarrloc.scoring.baselines import permuted
from zarrloc.scoring.evaluation import score_folds, training_rows
from zarrloc.scoring.heads import standardisation, train_heads
from zarrloc.scoring.knn import neighbours, vote
from zarrloc.scoring.metrics import (
    Truth,
    best_thresholds,
    bootstrap_f1,
    counts,
    f1_of,
    interval,
    macro,
    truth_of,
)
from zarrloc.scoring.probe import train_probe
from zarrloc.simulate import simulate
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.pretrain import pretrain
from zarrloc.stages.split import split
from zarrloc.store.location import Location

RUN = RunConfig(cluster="serial", dashboard=":0")
PIXEL_UM = 0.2063
TEST_SEED = 2
KS = (1, 3, 5, 10, 20)
TRIAL_STEPS = 40
RESAMPLES = 1000
OWN: dict[str, dict[str, Any]] = {
    "dino": {},
    "dinov2": {},
    "mae": {"decoder_width": 64, "decoder_depth": 1, "global_scale": (0.6, 1.0)},
    "simclr": {"head_hidden": 256, "projection": 64},
    "vicreg": {"head_hidden": 512},
}
"""What differs from the settings of `pretrain.py`; none was tuned."""
TITLES = {
    "dino": "DINO",
    "dinov2": "DINOv2",
    "mae": "MAE",
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "classic": "classic features",
    "random": "that ViT, random weights",
}

Array32 = npt.NDArray[np.float32]


def test_store(folder: Path, proteins: int) -> Path:
    """Fields of proteins that no training saw."""
    store = folder / "test.zarr"
    if not (folder / "test-sim").exists():
        config = SimulateConfig(proteins=proteins, fovs_per_protein=2, size=300, seed=TEST_SEED)
        simulate(folder / "test-sim", config)
    labels = folder / "test-sim" / "labels"
    ingest(
        folder / "test-sim" / "raw", store, IngestConfig(pixel_size_um=PIXEL_UM),
        labels=labels / "opencell-localization-annotations.csv",
        cell_lines=labels / "all-public-targets.csv", run=RUN,
    )  # fmt: skip
    return store


def learned(
    store: Path, folder: Path, objective: str, seed: int, seconds: float, window: int
) -> dict[str, Any]:
    """Train for about so many CPU seconds; steps and what they took."""
    told = folder / f"{objective}-{seed}.json"
    if told.exists():
        return dict(json.loads(told.read_text()))
    config = {**SETTINGS, **OWN[objective], "objective": objective, "seed": seed, "guard_epochs": 0}
    config["crop_um"] = window * PIXEL_UM
    steps_file = folder / f"{objective}-steps.json"
    if not steps_file.exists():
        trial = folder / f"{objective}-trial"
        spent = []
        for steps in (2, TRIAL_STEPS + 2):  # what starting takes is no part of a step
            began = time.process_time()
            own = PretrainConfig.of({**config, "steps": steps})
            pretrain(store, trial, own, overwrite=True, say=lambda text: None)
            spent.append(time.process_time() - began)
        steps_file.write_text(json.dumps(max(1, round(seconds * TRIAL_STEPS / np.diff(spent)[0]))))
    steps = int(json.loads(steps_file.read_text()))
    began = time.process_time()
    out = folder / f"{objective}-{seed}"
    own = PretrainConfig.of({**config, "steps": steps})
    if pretrain(store, out, own, say=lambda text: None):
        raise SystemExit(f"{out}: not trained to its end; the same command continues")
    found = {"steps": steps, "cpu_seconds": round(time.process_time() - began, 1)}
    told.write_text(json.dumps(found))
    return found


class Judge:
    """Scores of features of one store's fields, by other proteins."""

    def __init__(self, samples: Samples, fold: npt.NDArray[np.int8]) -> None:
        truth = truth_of(samples.grade)
        self.rows = samples.finite & truth.labelled
        self.truth, self.fold = truth[self.rows], fold[self.rows]
        self.protein, self.labels = samples.protein[self.rows], samples.labels
        self.train = training_rows(self.fold, int(self.fold.max()) + 1)

    def probe(self, features: Array32, truth: Truth | None = None) -> dict[str, Any]:
        """Of a linear probe."""
        truth = truth or self.truth
        return self._heads(train_probe(features[self.rows], truth, self.train), features, truth)

    def head(self, features: Array32) -> dict[str, Any]:
        """Of the head that `zarrloc train` trains."""
        heads = train_heads(features[self.rows], self.truth, self.train, HeadConfig())
        return self._heads(heads, features, self.truth)

    def _heads(self, heads: Heads, features: Array32, truth: Truth) -> dict[str, Any]:
        scored = score_folds(
            truth, heads.probability(features[self.rows]), self.fold, self.protein, self.labels,
            tuned=True, bootstrap=RESAMPLES,
        )["pooled"]  # fmt: skip
        return {"macro_f1": scored["macro_f1"], "interval": scored["macro_f1_ci"]}

    def neighbours(self, features: Array32) -> dict[str, Any]:
        """Of nearest neighbours of other proteins; k and thresholds by the other folds."""
        features = features[self.rows]
        (mean,), (scale,) = standardisation(features, np.ones((1, len(features)), bool))
        unit = ((features - mean) / scale).astype(np.float32)
        found = neighbours(unit, max(KS), [self.protein])[1]
        votes = {k: vote(found, self.truth, k) for k in KS}
        called = np.zeros(self.truth.positive.shape, bool)
        chosen = []
        for number in np.unique(self.fold):
            own, others = self.fold == number, self.fold != number
            limits = {k: best_thresholds(self.truth[others], votes[k][others]) for k in KS}
            reached = {
                k: self._f1(self.truth[others], votes[k][others] >= limits[k])[0] for k in KS
            }
            k = max(reached, key=lambda k: reached[k])
            chosen.append(k)
            called[own] = votes[k][own] >= limits[k]
        score, tallies = self._f1(self.truth, called)
        samples = macro(bootstrap_f1(tallies, self.protein, RESAMPLES, 0))
        return {"macro_f1": score, "interval": interval(samples), "k": chosen}

    @staticmethod
    def _f1(truth: Truth, called: npt.NDArray[np.bool_]) -> tuple[float, npt.NDArray[np.int64]]:
        tallies = counts(truth, called)
        return float(macro(f1_of(tallies.sum(axis=0)))), tallies


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """The table in Markdown: a mean and the seeds' sd where there are several."""
    told = ["| features | steps | linear probe | kNN | head |", "|---|---|---|---|---|"]
    for what in dict.fromkeys(row["what"] for row in found):
        mine = [row for row in found if row["what"] == what]
        steps = f"{mine[0]['steps']:,}" if "steps" in mine[0] else ""
        cells = [
            _cell([row[key] for row in mine if key in row]) for key in ("probe", "knn", "head")
        ]
        told.append(f"| {TITLES.get(what, what)} | {steps} | {' | '.join(cells)} |")
    return told


def _cell(scored: Sequence[dict[str, Any]]) -> str:
    if not scored:
        return ""
    each = [one["macro_f1"] for one in scored]
    if len(each) > 1:
        return f"{np.mean(each):.3f} ± {np.std(each, ddof=1):.3f} ({len(each)} seeds)"
    low, high = scored[0]["interval"]
    return f"{each[0]:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Make, train, embed, score, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="data and backbones; used again if there")
    parser.add_argument("--fields", type=int, default=400, help="to train on")
    parser.add_argument("--proteins", type=int, default=500, help="to score on")
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=Path, help="a store to score on, instead of making one")
    parser.add_argument("--window", type=int, default=WINDOW_PX, help=f"px, at most {WINDOW_PX}")
    parser.add_argument("--only", default=",".join(OWN), help="objectives, comma-separated")
    parser.add_argument("--no-heads", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/objectives.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = given.folder
    (folder / "train").mkdir(parents=True, exist_ok=True)
    store = make_store(folder / "train", given.fields, 0)
    test = given.test or test_store(folder, given.proteins)
    location = Location.of(test)
    split(test, SplitConfig(), "by-protein")
    rows: list[dict[str, Any]] = []
    kept = folder / "scores"
    kept.mkdir(exist_ok=True)

    def note(what: str, seed: int | None, embedding: EmbedConfig | None, **more: Any) -> None:
        """Embed and score, or take the stored scores."""
        name = what if seed is None else f"{what}-{seed}"
        file = kept / f"{name}.json"
        if not file.exists():
            if embedding is not None:
                embed(test, embedding, name, run=RUN)
            samples = read_samples(location, name)
            judge = Judge(samples, row_folds(location, "by-protein", samples))
            row = {"what": what, **({} if seed is None else {"seed": seed}), **more}
            row["probe"] = judge.probe(samples.features)
            row["knn"] = judge.neighbours(samples.features)
            file.write_text(json.dumps(row))
        rows.append(json.loads(file.read_text()))
        save()

    def note_head(row: dict[str, Any]) -> None:
        """Train a head on features that are scored already."""
        name = f"{row['what']}-{row['seed']}" if "seed" in row else row["what"]
        file = kept / f"{name}-head.json"
        if not file.exists():
            samples = read_samples(location, name)
            judge = Judge(samples, row_folds(location, "by-protein", samples))
            file.write_text(json.dumps(judge.head(samples.features)))
        row["head"] = json.loads(file.read_text())
        save()

    def save() -> None:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")
        print("\n".join(lines(rows)), end="\n\n", flush=True)

    def note_baselines() -> None:
        samples = read_samples(location, "classic")
        judge = Judge(samples, row_folds(location, "by-protein", samples))
        shuffled = judge.probe(samples.features, permuted(judge.truth, 0))
        rows.append({"what": "permuted labels", "probe": shuffled})
        table = baseline_features(location, samples)["intensity statistics"]
        row = {"probe": judge.probe(table), "knn": judge.neighbours(table)}
        rows.append({"what": "intensity statistics", **row})

    embed(test, EmbedConfig(backbone="classic"), "classic", run=RUN)
    note_baselines()
    note("classic", None, None)
    size = f"um:{given.window * PIXEL_UM / SETTINGS['size']:.4f}"
    for seed in range(given.seeds):
        for number, objective in enumerate(given.only.split(",")):
            got = learned(store, folder, objective, seed, 60 * given.minutes, given.window)
            backbone = str(folder / f"{objective}-{seed}")
            if number == 0:
                config = EmbedConfig(backbone=backbone, weights=f"random:{seed}", size=size)
                note("random", seed, config)
            note(objective, seed, EmbedConfig(backbone=backbone, size=size), **got)
    for row in rows:
        if not given.no_heads and row.get("seed", 0) == 0 and row["what"] in TITLES:
            note_head(row)


if __name__ == "__main__":
    main()
