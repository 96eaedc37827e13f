"""Does the guard of `zarrloc pretrain` see a collapse, and does it leave learning runs alone?

    python benchmarks/guard.py [--seeds 2] [--steps 200] [--threads 1]

A tiny ViT is trained on simulated cells of eight plainly different patterns, with settings that
learn, that learn nothing, and that undo what random weights knew. `probe` and `kNN` are macro-F1
of the teacher's embedding on proteins that were not trained on; the guard sees no label for its
verdict.

| what | expected |
|---|---|
| checks of runs that do not collapse, called a collapse | 0 |
| collapsed runs that are called so by their end | all |
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.pretraining.data import Arrays
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.guard import Guard, Health, collapse, whole_images
from zarrloc.pretraining.inputs import Inputs, affine_of
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.loop import State, train
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec
from zarrloc.scoring.evaluation import out_of_fold, training_rows
from zarrloc.scoring.metrics import counts, f1_of, macro, truth_of
from zarrloc.scoring.probe import train_probe

SIDE, KINDS, PROTEINS, CELLS = 32, 8, 48, 12
SETTINGS: dict[str, Any] = {
    "arch": "vit_tiny_patch16",
    "arch_options": ("patch_size=8", "embed_dim=64", "depth=2", "num_heads=2"),
    "batch": 32,
    "learning_rate": 6e-3,
    "momentum": 0.98,
    "final_weight_decay": 0.1,
    "drop_path": 0.0,
    "prototypes": 256,
    "head_hidden": 192,
    "bottleneck": 64,
    "size": SIDE,
    "local_size": 16,
    "local_views": 2,
    "local_scale": (0.2, 0.5),
    "jitter": 0.3,
    "device": "cpu",
}
PAPER_HEAD = {"prototypes": 8192, "head_hidden": 2048, "bottleneck": 256}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "as the benchmark of accuracy": ("learns", {}),
    "as the demo": ("learns", {"learning_rate": 1.6e-2, "momentum": 0.96}),
    "the paper's rates": ("learns", {"learning_rate": 5e-4, "momentum": 0.996}),
    "the paper's head, an eighth": ("learns", PAPER_HEAD),
    "DINOv2": ("learns", {"objective": "dinov2", "koleo_weight": 0.1}),
    "MAE": ("learns", {"objective": "mae", "decoder_width": 64, "decoder_depth": 1}),
    "SimCLR": ("learns", {"objective": "simclr", "projection": 64}),
    "VICReg": ("learns", {"objective": "vicreg", "head_hidden": 256}),
    "no centring": ("stalls", {"center_momentum": 1.0}),
    "no centring, sharper": ("stalls", {"center_momentum": 1.0, "teacher_temperature": 0.01}),
    "soft teacher": ("stalls", {"teacher_temperature": 1.0}),
    "learning rate x 100": ("collapses", {"learning_rate": 0.6}),
    "learning rate x 1000": ("collapses", {"learning_rate": 6.0}),
    "MAE, learning rate x 1000": (
        "collapses",
        {"objective": "mae", "decoder_width": 64, "decoder_depth": 1, "learning_rate": 6.0},
    ),
    "SimCLR, learning rate x 1000": ("collapses", {"objective": "simclr", "learning_rate": 6.0}),
    "teacher is the student": ("collapses", {"momentum": 0.0, "learning_rate": 3e-2}),
}


def cell(kind: int, bright: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Nucleus and protein of one cell `(2, y, x)`, expected counts above the background."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    centre = rng.uniform(-4, 4, 2)
    from_nucleus = np.hypot(y - centre[0], x - centre[1])
    nucleus, body = from_nucleus < 6, np.hypot(y, x) < 14
    rim = np.abs(from_nucleus - 6.5) < 1
    edge = body & (np.hypot(y, x) > 12)
    cytoplasm = body & ~nucleus
    spots = np.zeros((SIDE, SIDE))
    inside = np.argwhere(cytoplasm)
    for at in inside[rng.choice(len(inside), {3: 4, 4: 40, 7: 1}.get(kind, 1), replace=False)]:
        spots[tuple(at)] = 1
    angle = rng.uniform(0, np.pi)
    fibres = np.sin(1.6 * (y * np.cos(angle) + x * np.sin(angle))) > 0.6
    protein = (
        nucleus.astype(float),
        rim.astype(float),
        cytoplasm.astype(float),
        8 * ndimage.gaussian_filter(spots, 1.5),
        4 * ndimage.gaussian_filter(spots, 0.6),
        (fibres & cytoplasm).astype(float),
        edge.astype(float),
        20 * ndimage.gaussian_filter(spots, 2.5),
    )[kind]
    return np.stack([600 * nucleus, bright * (protein + 0.15 * body)])


def cells(seed: int) -> tuple[Arrays, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Samples, their grades `(cell, kind)` and proteins `(cell,)`; brightness is the protein's."""
    rng = np.random.default_rng(seed)
    protein = np.repeat(np.arange(PROTEINS), CELLS)
    bright = np.exp(rng.normal(np.log(400), 0.5, PROTEINS))
    expected = np.stack([cell(one % KINDS, bright[one], rng) for one in protein])
    images = rng.poisson(expected + 200).astype(np.uint16)
    grade = 3 * np.eye(KINDS, dtype=np.uint8)[protein % KINDS]
    extents = np.full((len(images), 2), SIDE)
    return Arrays(images, ("nucleus", "protein"), protein // 4, extents), grade, protein


def probe_f1(
    features: npt.NDArray[np.float32], grade: npt.NDArray[np.uint8], protein: npt.NDArray[np.int64]
) -> float:
    """Macro-F1 of a linear probe, three folds of proteins."""
    fold = (protein // KINDS % 3).astype(np.int8)
    truth = truth_of(grade)
    heads = train_probe(features, truth, training_rows(fold, 3))
    called = out_of_fold(heads.probability(features), fold) >= 0.5
    return float(macro(f1_of(counts(truth, called).sum(axis=0))))


def follow(changes: dict[str, Any], steps: int, seed: int) -> list[dict[str, Any]]:
    """Train, and give a row for each check: health, probe, and what the guard says."""
    config = PretrainConfig.of({**SETTINGS, **changes, "steps": steps, "seed": seed})
    source, grade, protein = cells(seed)
    spec = start_spec(config, source.roles)
    channels = start_channels(config, spec, source.roles)
    student, teacher, _ = start_backbones(config, spec)
    state = State.begin(config, spec, student, teacher, torch.device("cpu"))
    images = whole_images(source, np.arange(len(protein)), config.size)
    inputs = Inputs(channels, *affine_of(channels, images.float()))
    guard = Guard(images, grade, protein, inputs)
    rows: list[dict[str, Any]] = []

    def check() -> bool:
        now = guard.check(state.teacher, state.objective, state.step)
        with torch.no_grad():
            features = state.teacher.backbone(inputs.passes(images.float())[0]).numpy()
        start = Health(**{key: rows[0][key] for key in now.as_dict()}) if rows else now
        found = collapse(start, now) is not None
        row = {**now.as_dict(), "probe": probe_f1(features, grade, protein), "collapse": found}
        rows.append(row)
        return True

    check()
    marks = {round(share * steps) for share in (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1)}
    plan = Plan.of(config, len(protein), 1, "cpu")
    train(
        config, plan, state, source, None, inputs, World(), lambda row: None,
        lambda: check() if state.step in marks else True,
    )  # fmt: skip
    return rows


def main() -> None:
    """Run, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="one run, by its name")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/guard.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = []
    print("| run | expected | probe | kNN | spread / start | least information | called so |")
    print("|---|---|---|---|---|---|---|")
    for name, (expected, changes) in RUNS.items():
        if given.only not in (None, name):
            continue
        for seed in range(given.seeds):
            rows = follow(changes, given.steps, seed)
            found.append({"run": name, "expected": expected, "seed": seed, "checks": rows})
            first, last = rows[0], rows[-1]
            spread = [row["spread"] / first["spread"] for row in rows[1:]]
            called = [row["step"] for row in rows if row["collapse"]]
            print(
                f"| {name} | {expected} | {first['probe']:.2f} -> {last['probe']:.2f} | "
                f"{first['knn_macro_f1']:.2f} -> {last['knn_macro_f1']:.2f} | "
                f"{min(spread):.2g}, at the end {spread[-1]:.2g} | "
                f"{min((row['information'] or 0.0) for row in rows):.4f} | "
                f"{f'from step {called[0]}' if called else 'never'} |",
                flush=True,
            )
    if not given.only:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
