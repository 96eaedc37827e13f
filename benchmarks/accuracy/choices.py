"""Which choices help? Augmentations, views by protein, channels as tokens; simulated truth.

    python benchmarks/accuracy/choices.py [--only channels] [--objective simclr] [--steps 200]

Each line of `choices.yaml` is a training of the same small ViT on cells of 48 simulated proteins
with nucleus, protein and er, by the same number of steps. Figures are macro-F1 on cells of 48 other
proteins, eight plain patterns. `probe`: a linear probe, out of fold, folds by protein. `kNN`: five
neighbours of other proteins. The other columns keep that probe, which saw good images with all
channels, and show it the held-out fold otherwise: `another microscope` is out of focus and has a
fifth of the light; `without er` and `without nucleus` lack a channel, which is black for patches of
all channels and absent for channel tokens.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from guard import CELLS, KINDS, PROTEINS, SETTINGS, SIDE, cell

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.pretraining.data import Arrays, Beside, Siblings
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.guard import whole_images
from zarrloc.pretraining.inputs import Inputs, affine_of
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.loop import State, train
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec
from zarrloc.scoring.evaluation import out_of_fold, training_rows
from zarrloc.scoring.knn import neighbours, vote
from zarrloc.scoring.metrics import counts, f1_of, macro, truth_of
from zarrloc.scoring.probe import train_probe

ROLES = ("nucleus", "protein", "er")
FOLDS, K = 3, 5

Array32 = npt.NDArray[np.float32]
PROTEIN = np.repeat(np.arange(PROTEINS), CELLS)


def cells(seed: int, *, other_microscope: bool = False) -> Arrays:
    """The cells of `guard.py`, of one brightness a protein, and their er."""
    random = np.random.default_rng(seed)
    bright = np.exp(random.normal(np.log(400), 0.5, PROTEINS))
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    images = []
    for one in PROTEIN:
        image = cell(one % KINDS, bright[one], random)
        er = 300 * (np.hypot(y, x) < 14) * (image[0] == 0)
        images.append(np.concatenate([image, er[None]]))
    expected = np.stack(images)
    if other_microscope:
        expected = ndimage.gaussian_filter(expected, (0, 0, 1, 1)) / 5
    found = random.poisson(expected + 200).astype(np.uint16)
    return Arrays(found, ROLES, PROTEIN // 4, np.full((len(found), 2), SIDE))


def learn(config: PretrainConfig, source: Arrays) -> tuple[State, Inputs]:
    """Train, and give what embeds."""
    spec = start_spec(config, source.roles)
    channels = start_channels(config, spec, source.roles)
    seen = whole_images(source, np.arange(len(source.shard)), config.size).float()
    absent = torch.nan if spec.tokens == "channel" else 0.0
    inputs = Inputs(channels, *affine_of(channels, seen), absent)
    student, teacher, _ = start_backbones(config, spec)
    state = State.begin(config, spec, student, teacher, torch.device("cpu"))
    names = Siblings(PROTEIN.astype(str), np.arange(len(PROTEIN)))
    beside = Beside(siblings=names if config.views == "protein" else None)
    train(
        config, Plan.of(config, len(source.shard), 1, "cpu"), state, source, None, inputs, World(),
        lambda row: None, lambda: True, beside,
    )  # fmt: skip
    return state, inputs


@torch.no_grad()
def features(state: State, inputs: Inputs, test: Arrays, missing: int | None = None) -> Array32:
    """Of whole images `(n, f)`, without channel `missing`."""
    images = whole_images(test, np.arange(len(test.shard)), SIDE).float()
    mapped = inputs.passes(images)[0]
    if missing is not None:
        mapped[:, missing] = inputs.absent
    found = [state.teacher.backbone(part) for part in mapped.split(64)]
    return torch.cat(found).numpy()


def scores(state: State, inputs: Inputs, seed: int) -> dict[str, float]:
    """All columns of a row."""
    good, other = cells(seed), cells(seed, other_microscope=True)
    truth = truth_of(3 * np.eye(KINDS, dtype=np.uint8)[PROTEIN % KINDS])
    fold = (PROTEIN // KINDS % FOLDS).astype(np.int8)
    own = features(state, inputs, good)
    heads = train_probe(own, truth, training_rows(fold, FOLDS))

    def f1(called: npt.NDArray[np.bool_]) -> float:
        return round(float(macro(f1_of(counts(truth, called).sum(0)))), 4)

    def probed(shown: Array32) -> float:
        return f1(out_of_fold(heads.probability(shown), fold) >= 0.5)

    near = neighbours(own, K, [PROTEIN])[1]
    return {
        "probe": probed(own),
        "kNN": f1(vote(near, truth, K) >= 0.5),
        "another microscope": probed(features(state, inputs, other)),
        "without er": probed(features(state, inputs, good, ROLES.index("er"))),
        "without nucleus": probed(features(state, inputs, good, ROLES.index("nucleus"))),
    }


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="one question of choices.yaml")
    parser.add_argument("--objective", default="simclr")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/choices.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    asked = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    found: list[dict[str, Any]] = []
    own = {"objective": given.objective, "steps": given.steps, "projection": 64}
    for question, choices in asked.items():
        for name, changes in choices.items() if given.only in (None, question) else ():
            for seed in range(given.seeds):
                config = PretrainConfig.of({**SETTINGS, **own, **changes, "seed": seed})
                began = time.process_time()
                state, inputs = learn(config, cells(seed))
                row = {"question": question, "choice": name, "objective": given.objective}
                row |= {"steps": given.steps, "seed": seed}
                row |= {"cpu_seconds": round(time.process_time() - began, 1)}
                found.append(row | scores(state, inputs, 100 + seed))
                given.out.write_text(json.dumps(found, indent=1) + "\n")
                print(found[-1], flush=True)


if __name__ == "__main__":
    main()
