"""Which objective learns most in equal time? One small ViT, one CPU, simulated cells, no label.

    python benchmarks/accuracy/objectives.py [--minutes 10] [--fields 400] [--seeds 3]
    python benchmarks/accuracy/objectives.py --plain --minutes 0.5 --seeds 2

The same ViT is trained by every objective of `zarrloc pretrain` on cells of simulated proteins,
each for as many steps as `--minutes` of CPU time allow by its own first steps. Scores are of cells
of other proteins: a linear probe over five folds grouped by protein, and nearest neighbours (k = 5,
fixed beforehand) of other proteins. Beside them stand intensity, classic features, and random
weights. `--plain` takes the eight plain patterns at 32 px of `benchmarks/guard.py`: an order of
objectives in minutes.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from guard import SETTINGS as PLAIN
from guard import cells
from pretrain import SETTINGS, intensity, make_store

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.pixels.classic import classic_features
from zarrloc.pretraining.data import Arrays, decode_all
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.guard import whole_images
from zarrloc.pretraining.inputs import Inputs, affine_of
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.loop import State, train
from zarrloc.pretraining.samples import open_data
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec
from zarrloc.scoring.evaluation import out_of_fold, training_rows
from zarrloc.scoring.knn import neighbours, vote
from zarrloc.scoring.metrics import counts, f1_of, macro, truth_of
from zarrloc.scoring.probe import train_probe
from zarrloc.store.location import Location

K, FOLDS, TRIAL = 5, 5, 12
OWN: dict[str, dict[str, Any]] = {
    "dino": {},
    "dinov2": {},
    "mae": {"decoder_width": 64, "decoder_depth": 1, "global_scale": (0.6, 1.0)},
    "simclr": {"head_hidden": 256, "projection": 64},
    "vicreg": {"head_hidden": 512},
}
"""What differs from the settings of `pretrain.py` or `guard.py`; none was tuned."""

Array32 = npt.NDArray[np.float32]


def scores(
    features: Array32, grade: npt.NDArray[np.uint8], protein: npt.NDArray[Any]
) -> dict[str, float]:
    """Macro-F1 of a probe, out of fold, and of neighbours, both by other proteins."""
    truth = truth_of(grade)
    names = np.random.default_rng(0).permutation(np.unique(protein))
    fold = np.argsort(np.argsort(names))[np.searchsorted(np.sort(names), protein)] % FOLDS
    fold = fold.astype(np.int8)
    heads = train_probe(features, truth, training_rows(fold, FOLDS))
    called = out_of_fold(heads.probability(features), fold) >= 0.5
    spread = np.where(features.std(0) > 0, features.std(0), 1)
    unit = ((features - features.mean(0)) / spread).astype(np.float32)
    voted = vote(neighbours(unit, K, [protein])[1], truth, K) >= 0.5
    return {
        "probe": float(macro(f1_of(counts(truth, called).sum(axis=0)))),
        "knn": float(macro(f1_of(counts(truth, voted).sum(axis=0)))),
    }


def learn(config: PretrainConfig, source: Arrays, seconds: float, test: Arrays) -> dict[str, Any]:
    """Train for so many CPU seconds; the features of `test`, before and after, and the steps."""
    spec = start_spec(config, source.roles)
    channels = start_channels(config, spec, source.roles)
    rows = np.arange(min(500, len(source.shard)))
    seen = whole_images(source, rows, config.size).float()
    inputs = Inputs(channels, *affine_of(channels, seen))

    def begin() -> State:
        student, teacher, _ = start_backbones(config, spec)
        return State.begin(config, spec, student, teacher, torch.device("cpu"))

    def run(state: State, steps: int) -> float:
        own = config.model_copy(update={"steps": steps})
        began = time.process_time()
        train(
            own, Plan.of(own, len(source.shard), 1, "cpu"), state, source, None, inputs, World(),
            lambda row: None, lambda: True,
        )  # fmt: skip
        return time.process_time() - began

    def features(state: State) -> Array32:
        images = whole_images(test, np.arange(len(test.shard)), config.size)
        with torch.inference_mode():
            found = [
                state.teacher.backbone(inputs.passes(part.float())[0])
                for part in torch.split(images, 64)
            ]
        return torch.cat(found).numpy()

    run(begin(), 2)
    each = run(begin(), TRIAL) / TRIAL
    state, steps = begin(), max(1, round(seconds / each))
    before = features(state)
    spent = run(state, steps)
    return {"steps": steps, "seconds": spent, "before": before, "after": features(state)}


def simulated(
    folder: Path, fields: int, settings: dict[str, Any]
) -> tuple[Arrays, Arrays, list[Any]]:
    """Cells to train on, cells of other proteins, and the latter's grades and proteins."""
    data = []
    for part, seed in (("train", 0), ("test", 1)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        store = make_store(folder / part, fields, seed)
        data.append(open_data(Location.of(store), PretrainConfig.of(settings)))
    source, test = (decode_all(one.source) for one in data)
    return source, test, [data[1].grade, data[1].protein]


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fields", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="plain patterns at 32 px")
    parser.add_argument("--folder", type=Path, help="keep data here, and use them again")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/objectives.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> None:
        found.append(row)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(row, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        common: dict[str, Any] = {k: v for k, v in SETTINGS.items() if k != "steps"}
        if given.plain:
            common = dict(PLAIN)
            (source, *_), (test, *known) = cells(0), cells(1)
        else:
            source, test, known = simulated(folder, given.fields, common)
        about = {"plain": given.plain, "cells": len(source.shard), "test_cells": len(test.shard)}
        note({"what": "intensity", **about, **scores(intensity(test.images), *known)})
        classic = np.stack([classic_features(image, image.any(0)) for image in test.images])
        note({"what": "classic features", **scores(classic, *known)})
        for seed in range(given.seeds):
            for objective, own in OWN.items():
                own = {**common, **own, "objective": objective, "seed": seed}
                got = learn(PretrainConfig.of(own), source, 60 * given.minutes, test)
                if objective == "dino":
                    random = scores(got["before"], *known)
                    note({"what": "random weights", "seed": seed, **random})
                cost = {"steps": got["steps"], "cpu_seconds": round(got["seconds"], 1)}
                row = {"what": objective, "seed": seed, **cost}
                note({**row, **scores(got["after"], *known)})


if __name__ == "__main__":
    main()
