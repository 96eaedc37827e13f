"""Classification heads: all folds trained at once as one batched model (paper, section 2.6.1).

Every weight carries the fold as its first axis and every fold has its own random streams, so a
fold's result is what training it alone gives.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.config.train import HeadConfig
from zarrloc.errors import ConfigError
from zarrloc.groups.heads import Heads
from zarrloc.groups.pooling import gated, pooled, typical
from zarrloc.scoring.bags import EVENLY, GATE, Bags, limits
from zarrloc.scoring.metrics import Truth

Array32 = npt.NDArray[np.float32]


def device_of(name: str) -> str:
    """The torch device of a setting: `auto` is a GPU where there is one."""
    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def precision_of(name: str, device: str) -> str:
    """The arithmetic of a setting: `auto` is bf16 where the device multiplies it natively."""
    if name != "auto":
        return name
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch before 2.8 does not tell what the processor has.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"


def rarest_label_weights(truth: Truth, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Sampling weights float64 `(fold, n)`: 1 / the frequency of a row's rarest positive label.

    Frequencies are counted in the fold's own training rows, `train` bool `(fold, n)`. Rows
    outside it, and rows without any positive label, weigh 0.
    """
    frequency = train.astype(np.float64) @ truth.positive
    held = np.where(truth.positive[None], frequency[:, None], np.inf)
    return np.where(train, 1 / np.maximum(held.min(axis=2), 1), 0)


def train_heads(
    features: Array32,
    truth: Truth,
    train: npt.NDArray[np.bool_],
    config: HeadConfig,
    *,
    streams: Sequence[int] | None = None,
    draws: int | None = None,
    device: str = "cpu",
    bags: Bags | None = None,
) -> Heads:
    """Train one head per fold, all at once.

    With `bags` the rows of `features` are cells, and `truth`, `train` and `draws` are of their
    fields; a batch then holds as many cells as else rows.

    Args:
        features: float32 `(n, f)`, finite.
        truth: `(n, label)`; what is not known is left out of the loss.
        train: bool `(fold, n)`, each fold's training rows.
        config: the head and its optimisation.
        streams: number of each fold's random streams; default 0, 1, 2...
        draws: rows drawn an epoch, the same for every fold; default the folds' mean number.
        device: torch device.
        bags: the field of each row, and how a field is called by its cells.

    Raises:
        ConfigError: a fold has no labelled training row.
    """
    weight = rarest_label_weights(truth, train)
    if not (weight.sum(axis=1) > 0).all():
        empty = np.flatnonzero(weight.sum(axis=1) == 0).tolist()
        raise ConfigError(f"fold {empty} has no labelled row to train on; check split and labels")
    draws = draws or round(float((weight > 0).sum(axis=1).mean()))
    largest = config.batch if bags is None else max(2, config.batch // bags.width)
    steps = -(-draws // largest)
    batch = -(-draws // steps)
    streams = range(len(train)) if streams is None else streams
    generators = [_generator("cpu", config.seed, stream, 0) for stream in streams]
    noise = [_generator(device, config.seed, stream, 1) for stream in streams]

    x = torch.from_numpy(features).to(device)
    y = torch.from_numpy(truth.positive).to(device, torch.float32)
    known = torch.from_numpy(truth.known).to(device, torch.float32)
    mean, scale = standardisation(features, train if bags is None else train[:, bags.field])
    factor = torch.from_numpy(1 / scale).to(device)[:, None]
    shift = torch.from_numpy(-mean / scale).to(device)[:, None]

    widths = (features.shape[1], *config.hidden, truth.positive.shape[1])
    layers = [
        tuple(part.to(device).requires_grad_() for part in _linear(fan_in, fan_out, generators))
        for fan_in, fan_out in pairwise(widths)
    ]
    gates: list[Tensor] = []
    if bags is not None and bags.pool == "attention":
        v, u = (_linear(widths[-2], GATE, generators) for _ in "vu")
        w, _ = _linear(GATE, 1, generators)
        gates = [part.to(device).requires_grad_() for part in (*v, *u, w)]
    parameters = [*(part for layer in layers for part in layer), *gates]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    epochs = config.epochs_of(steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    loss_of = _class_loss if truth.exclusive else _loss
    fast = precision_of(config.precision, device) == "bf16"

    for order in _epochs(weight, steps * batch, epochs, config.resample, generators):
        drawn = None if bags is None else bags.drawn(generators)
        for index in torch.split(order, batch, dim=1):  # (fold, batch)
            cells, inside = (index, None) if drawn is None else drawn.cells(index)
            index = index.to(device)
            # (fold, batch, f); with bags (fold, batch * cell, f)
            h = torch.addcmul(shift, x[cells.flatten(1).to(device)], factor)
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast):
                for weights, bias in layers[:-1]:
                    z = torch.baddbmm(bias, h, weights)
                    h = _dropped_relu(z, config.dropout, noise)
                logits = torch.baddbmm(layers[-1][1], h, layers[-1][0])
                attention = gated(h, gates) if gates else torch.zeros_like(logits[..., :1])
            loss = torch.zeros((), device=device)
            if inside is not None:
                logits, there = logits.float().view(*inside.shape, -1), inside.to(device)
                attention = attention.float().view(*inside.shape, 1)
                if gates:
                    evenly = pooled(logits, torch.zeros_like(attention), there)
                    loss = EVENLY * loss_of(evenly, y[index], known[index])
                logits = pooled(logits, attention, there)
            loss = loss + loss_of(logits.float(), y[index], known[index])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        schedule.step()
    trained = Heads(
        mean,
        scale,
        tuple(w.detach().cpu().numpy() for w, _ in layers),
        tuple(b.detach().cpu().numpy()[:, 0] for _, b in layers),
        truth.exclusive,
        "none" if bags is None else bags.pool,
        tuple(gate.detach().cpu().numpy() for gate in gates),
    )
    if bags is None:
        return trained
    if gates:
        trained = _standing_alone(trained, features, bags, train)
    if truth.exclusive:  # classes are called by the highest, and need no limit
        return trained
    own = np.concatenate([part.numpy() for _, part in trained.own_logits(features, "cpu")], axis=1)
    return replace(trained, limit=limits(own, truth, bags.field, train))


def _standing_alone(
    trained: Heads, features: Array32, bags: Bags, train: npt.NDArray[np.bool_]
) -> Heads:
    """Heads with what their training fields are like on average, by which a cell is called."""
    v, v_bias, u, u_bias, w = trained.gates
    known = replace(trained, gates=(v, v_bias[:, 0], u, u_bias[:, 0], w[..., 0]))
    _, logits, attention = zip(*known.answers(features, "cpu"), strict=True)
    found = typical(
        torch.cat(logits, 1),
        torch.cat(attention, 1),
        torch.from_numpy(bags.field),
        torch.from_numpy(train),
    )
    return replace(known, gates=(*known.gates, *(part.numpy() for part in found)))


def standardisation(features: Array32, train: npt.NDArray[np.bool_]) -> tuple[Array32, Array32]:
    """Mean and population sd of each fold's training rows, float32 `(fold, f)`; an sd of 0 is 1."""
    mean = np.stack([features[rows].mean(axis=0, dtype=np.float64) for rows in train])
    scale = np.stack([features[rows].std(axis=0, dtype=np.float64) for rows in train])
    return mean.astype(np.float32), np.where(scale > 0, scale, 1).astype(np.float32)


def _generator(device: str, *key: int) -> torch.Generator:
    """A stream of its own for each key: neighbouring seeds, and equal ones twice, would not do."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    return torch.Generator(device).manual_seed(seed)


def _linear(
    fan_in: int, fan_out: int, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """`(fold, in, out)` and `(fold, 1, out)`, initialised as torch.nn.Linear is."""
    bound = fan_in**-0.5
    drawn = [
        torch.empty(fan_in + 1, fan_out).uniform_(-bound, bound, generator=generator)
        for generator in generators
    ]
    both = torch.stack(drawn)
    return both[:, :-1].contiguous(), both[:, -1:].contiguous()


def _epochs(
    weight: npt.NDArray[np.float64],
    draws: int,
    epochs: int,
    resample: str,
    generators: Sequence[torch.Generator],
) -> Iterator[Tensor]:
    """The rows of each epoch, int64 `(fold, draws)`: balanced, with replacement."""

    def drawn() -> Tensor:
        pairs = zip(torch.from_numpy(weight), generators, strict=True)
        return torch.stack([w.multinomial(draws, replacement=True, generator=g) for w, g in pairs])

    sample = drawn()
    for _ in range(epochs):
        if resample == "once":
            shuffle = [torch.randperm(draws, generator=g) for g in generators]
            yield sample.gather(1, torch.stack(shuffle))
        else:
            yield sample
            sample = drawn()


def _keep(shape: torch.Size, p: float, noise: Sequence[torch.Generator]) -> Tensor:
    """Which units stay, bool `shape`, one stream a fold.

    One random byte a unit, eight to a draw: drawing a float a unit cost as much as the layers'
    products. So `p` acts in steps of 1/256.
    """
    words = -(-shape[1:].numel() // 8)
    device = noise[0].device
    drawn = torch.empty(len(noise), words, dtype=torch.int64, device=device)
    for row, generator in zip(drawn, noise, strict=True):
        row.random_(-(2**63), None, generator=generator)
    return drawn.view(torch.uint8)[:, : shape[1:].numel()].view(shape) >= _dropped(p)


def _dropped(p: float) -> int:
    """Of 256 equally likely values, those that drop: never all, or nothing would be left."""
    return min(round(p * 256), 255)


class _DroppedReLU(torch.autograd.Function):
    """ReLU and inverted dropout in one, in place: 0 where negative or dropped, both ways."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, p: float, noise: Sequence[torch.Generator]) -> Tensor:
        ctx.gain = 256 / (256 - _dropped(p))
        h = z.relu_().mul_(_keep(z.shape, p, noise)).mul_(ctx.gain)
        ctx.mark_dirty(h)
        ctx.save_for_backward(h)
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (h,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grads[0], h, 0).mul_(ctx.gain), None, None


def _dropped_relu(z: Tensor, p: float, noise: Sequence[torch.Generator]) -> Tensor:
    out: Tensor = _DroppedReLU.apply(z, p, noise)  # type: ignore[no-untyped-call]
    return out


def _loss(logits: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Mean binary cross-entropy over what is known, summed over folds (they share nothing)."""
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, y, weight=known, reduction="none"
    )
    return (each.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)).sum()


def _class_loss(logits: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Mean cross-entropy of classes, one a row, summed over folds."""
    return -(y * logits.log_softmax(2)).sum((1, 2)).div(y.shape[1]).sum()
