"""Training five folds at once against five sequential plain PyTorch trainings, in one run.

    python benchmarks/heads.py [--epochs 6] [--repeats 3] [--threads 2] [--device cpu]

The rivals train the same five folds one after the other with `nn.Sequential`, `nn.Dropout`,
`torch.optim.AdamW` and `CosineAnnealingLR`, batches of 512, features in memory:

- `plain loop` draws its balanced sample with `torch.multinomial` and indexes tensors. The fair one.
- `plain loop, bf16` is the same under autocast.
- `DataLoader` draws with `WeightedRandomSampler` over a `TensorDataset`, as tutorials do.

Ours runs twice: in the default precision (bf16 where the processor multiplies it natively) and
in fp32. The time is that of the training call, set-up included. Repeats are interleaved and the
best of each counts. `products` is the time of the layers' matrix products alone: what no training
of these five heads in float32 can go below.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zarrloc.config.train import HeadConfig
from zarrloc.scoring.heads import precision_of, rarest_label_weights, train_heads
from zarrloc.scoring.metrics import Truth

LABELS = 17
RIVALS = ("plain loop", "plain loop, bf16", "DataLoader")


def plain(x, y, weight, epochs: int, batch: int, loader: bool, bf16: bool) -> nn.Module:
    """One fold, as anyone would write it."""
    x = (x - x.mean(0)) / x.std(0, correction=0)
    model = nn.Sequential(
        nn.Linear(x.shape[1], 512), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(512, 256), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(256, LABELS),
    ).to(x.device)  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.04)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    criterion = nn.BCEWithLogitsLoss()
    if loader:
        data = torch.utils.data.TensorDataset(x, y)
        sampler = torch.utils.data.WeightedRandomSampler(weight, len(x))
        batches = torch.utils.data.DataLoader(data, batch_size=batch, sampler=sampler)
    for _ in range(epochs):
        if not loader:
            order = torch.multinomial(weight, len(x), replacement=True)
            batches = ((x[index], y[index]) for index in order.split(batch))
        for features, target in batches:
            optimiser.zero_grad()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
                logits = model(features)
            criterion(logits.float(), target).backward()
            optimiser.step()
        schedule.step()
    return model


def products(device: str, steps: int, batch: int, widths: tuple[int, ...]) -> Callable[[], None]:
    """The matrix products of `steps` steps of five heads, forward and backward."""
    layers = [
        [torch.randn(5, *s, device=device) for s in ((batch, i), (i, o), (batch, o))]
        for i, o in pairwise(widths)
    ]

    def run() -> None:
        for _ in range(steps):
            for depth, (h, w, g) in enumerate(layers):
                torch.bmm(h, w)
                torch.bmm(h.mT, g)
                if depth:
                    torch.bmm(g, w.mT)

    return run


def main() -> None:
    """Time, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=6120)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--epochs", type=int, default=6, help="the paper's are 300")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="benchmarks/results/heads.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(options.rows, options.features)).astype(np.float32)
    positive = rng.random((options.rows, LABELS)) < np.geomspace(0.01, 0.4, LABELS)
    positive[:, -1] |= ~positive.any(axis=1)
    truth = Truth(positive, np.ones_like(positive))
    fold = np.arange(options.rows) % 5
    train = np.stack([fold != f for f in range(5)])
    weight = torch.from_numpy(rarest_label_weights(truth, train)).to(options.device)
    features = torch.from_numpy(x).to(options.device)
    target = torch.from_numpy(positive).to(options.device, torch.float32)
    config = HeadConfig(epochs=options.epochs)

    def sequential(loader: bool = False, bf16: bool = False) -> None:
        for rows, w in zip(torch.from_numpy(train), weight, strict=True):
            plain(features[rows], target[rows], w[rows], options.epochs, config.batch, loader, bf16)

    in_fold = int(train[0].sum())
    steps = -(-in_fold // config.batch)
    widths = (options.features, *config.hidden, LABELS)
    runs: dict[str, Callable[[], object]] = {
        **{
            f"batched, {precision}": partial(
                train_heads,
                x,
                truth,
                train,
                config.model_copy(update={"precision": precision}),
                device=options.device,
            )
            for precision in ("auto", "fp32")
        },
        "plain loop": sequential,
        "plain loop, bf16": lambda: sequential(bf16=True),
        "DataLoader": lambda: sequential(loader=True),
        "products": products(options.device, steps * options.epochs, -(-in_fold // steps), widths),
    }
    seconds: dict[str, float] = dict.fromkeys(runs, np.inf)
    cpu_seconds = dict(seconds)
    for _ in range(options.repeats):
        for name, run in runs.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            run()
            if options.device != "cpu":
                torch.cuda.synchronize()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            cpu_seconds[name] = min(cpu_seconds[name], time.process_time() - cpu_began)
    table = {
        "rows": options.rows,
        "features": options.features,
        "epochs": options.epochs,
        "threads": options.threads,
        "device": options.device,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "auto_is": precision_of("auto", options.device),
        "times_faster_than": {
            ours: {rival: seconds[rival] / seconds[ours] for rival in RIVALS}
            for ours in ("batched, auto", "batched, fp32")
        },
        "at_most_possible_in_fp32": seconds["plain loop"] / seconds["products"],
    }
    print(json.dumps(table, indent=2))
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    Path(options.out).write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
