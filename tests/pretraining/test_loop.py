"""The step against plain computations, and the ways to take the same steps."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.models.channels import resolve
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.augment import draw, multi_crop
from zarrloc.pretraining.data import Arrays, Beside, Siblings, decode_all, pixels
from zarrloc.pretraining.dino import Dino
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.inputs import Inputs
from zarrloc.pretraining.launch import World, launch
from zarrloc.pretraining.loop import (
    State,
    batches,
    decoders,
    parts_that_fit,
    seed_of,
    train,
    train_step,
)
from zarrloc.pretraining.objective import multi_crop_views
from zarrloc.pretraining.simclr import SimClr

ROLES = ("nucleus", "protein")
SPEC = BackboneSpec("toy", "none", ROLES, 4, 6, "")
CPU = torch.device("cpu")
ALONE = World()
SMALL = {
    "arch": "none",
    "batch": 8,
    "steps": 6,
    "size": 8,
    "local_size": 4,
    "local_views": 2,
    "prototypes": 12,
    "head_hidden": 10,
    "bottleneck": 5,
    "learning_rate": 0.1,
    "warmup": 0.0,
    "log_steps": 2,
    "device": "cpu",
    "freeze_last": 0.0,
}


class Toy(nn.Module):
    """Images of any size -> 6 features, with something random in training."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 6), nn.GELU(), nn.LayerNorm(6)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.inner(images))


def config_of(**changes: object) -> PretrainConfig:
    return PretrainConfig.of({**SMALL, **changes})


def source() -> Arrays:
    images = np.random.default_rng(0).integers(400, 9000, (40, 2, 20, 20), np.uint16)
    return Arrays(images, ROLES, np.repeat(np.arange(5), 8), np.full((40, 2), 20))


def inputs(kind: str = "natural") -> Inputs:
    return Inputs(resolve(kind, ROLES, ROLES, "natural"), (0.3, 0.4), (0.2, 0.25))


def begin(config: PretrainConfig, dropout: float = 0.0) -> State:
    torch.manual_seed(5)
    backbone = Toy(dropout)
    state = State.begin(config, SPEC, backbone, copy.deepcopy(backbone), CPU)
    # Logits far apart, so that a wrong temperature, centre or sign shows in every number.
    for network in (state.student, state.teacher):
        torch.manual_seed(6)
        for layer in network.head.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.7)
    return state


def run(
    config: PretrainConfig,
    state: State,
    stop: int | None = None,
    kind: str = "natural",
    resident: bool = False,
    world: World = ALONE,
) -> list[float]:
    """Losses of the log's rows until step `stop`."""
    plan = Plan.of(config, 40, world.size, "cpu")
    rows: list[dict[str, float]] = []
    held = pixels(source().images, source().extents) if resident else None
    train(
        config,
        plan,
        state,
        source(),
        held,
        inputs(kind),
        world,
        rows.append,
        lambda: state.step != stop,
    )
    return [row["loss"] for row in rows]


def test_a_step_is_what_the_formulas_say() -> None:
    """Three steps against float64: loops for the loss, AdamW and EMA written out."""
    config = config_of(momentum=0.9, clip=0.5, weight_decay=0.1)
    plan, state = Plan.of(config, 40, 1, "cpu"), begin(config)
    student = {k: v.detach().double().clone() for k, v in state.student.named_parameters()}
    teacher = {k: v.clone() for k, v in student.items()}
    model = copy.deepcopy(state.student).double()
    first = {k: torch.zeros_like(v) for k, v in student.items()}
    second = {k: torch.zeros_like(v) for k, v in student.items()}
    center = torch.zeros(12).double()

    def logits(weights: dict[str, torch.Tensor], view: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, weights, ([view],))[0]

    for t, batch in enumerate(
        batches(config, Dino(config, SPEC), source(), None, inputs(), range(3), ALONE, CPU), 1
    ):
        views = multi_crop(
            batch.pixels.unit(),
            batch.pixels.extents,
            batch.protein,
            multi_crop_views(config),
            batch.draws,
        )
        views = [inputs()(view).double() for view in views]
        weights = {k: v.clone().requires_grad_() for k, v in student.items()}
        seen = [logits(teacher, view) for view in views[:2]]
        terms = []
        for g in range(2):
            target = F.softmax((seen[g] - center) / 0.04, dim=1)
            for v, view in enumerate(views):
                if v != g:
                    guess = F.log_softmax(logits(weights, view) / 0.1, dim=1)
                    terms.append(-(target * guess).sum(1))
        expected = torch.cat(terms).mean()
        gradients = torch.autograd.grad(expected, list(weights.values()))

        cosine = (1 + np.cos(np.pi * (t - 1) / 5)) / 2
        rate = 1e-6 + (0.1 * 8 / 256 - 1e-6) * cosine
        decay = 0.4 + (0.1 - 0.4) * cosine
        keep = 1 + (0.9 - 1) * cosine
        for (name, weight), gradient in zip(student.items(), gradients, strict=True):
            gradient = gradient * min(1.0, 0.5 / (float(gradient.norm()) + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            move = first[name] / (1 - 0.9**t)
            move = move / ((second[name] / (1 - 0.999**t)).sqrt() + 1e-8)
            shrink = 1 - rate * decay if weight.ndim > 1 else 1.0
            student[name] = weight * shrink - rate * move
            teacher[name] = keep * teacher[name] + (1 - keep) * student[name]
        center = 0.9 * center + 0.1 * torch.cat(seen).mean(0)

        loss = train_step(config, plan, state, state.student, batch, inputs(), ALONE)
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-4)
    for network, truth in ((state.student, student), (state.teacher, teacher)):
        for name, value in network.named_parameters():
            torch.testing.assert_close(
                value.detach().double(), truth[name], rtol=1e-3, atol=1e-4, msg=name
            )
    found = state.objective.state_dict()["center"]
    torch.testing.assert_close(found.double(), center, rtol=1e-4, atol=1e-5)


def test_a_run_begins_with_one_head_of_its_seed() -> None:
    """Student and teacher have the same; another seed has another."""
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(99 + len(states))  # what went before has no part in it
        backbone = Toy()
        state = State.begin(config_of(seed=seed), SPEC, backbone, copy.deepcopy(backbone), CPU)
        states.append(state)
        for own, other in zip(
            state.student.head.parameters(), state.teacher.head.parameters(), strict=True
        ):
            assert torch.equal(own, other)
            assert own.requires_grad
            assert not other.requires_grad
    first, again, third = (s.student.head.prototypes.weight for s in states)
    assert torch.equal(first, again)
    assert not torch.equal(first, third)


def test_biases_and_norms_do_not_decay() -> None:
    """One step at a decay that would halve them: the same as without, to the last bit."""
    moved = {}
    for decay in (0.0, 150.0):
        config = config_of(weight_decay=decay, final_weight_decay=decay)
        state = begin(config)
        with torch.no_grad():
            for parameter in state.student.parameters():
                if parameter.ndim == 1:
                    parameter.fill_(1.5)
        run(config, state, stop=1)
        moved[decay] = {k: v.detach().clone() for k, v in state.student.named_parameters()}
    assert {v.ndim for v in moved[0.0].values()} == {1, 2}
    for name, value in moved[0.0].items():
        same = torch.equal(value, moved[150.0][name])
        assert same == (value.ndim == 1), name


def test_the_frozen_last_layer_stays() -> None:
    """For the first half of the steps the prototypes do not move, and then they do."""
    config = config_of(freeze_last=0.5)
    state = begin(config)
    before = state.student.head.prototypes.weight.detach().clone()
    run(config, state, stop=3)
    assert torch.equal(state.student.head.prototypes.weight, before)
    run(config, state)
    assert not torch.equal(state.student.head.prototypes.weight, before)


def test_training_lowers_the_loss() -> None:
    """On six steps of noise the student still learns to agree with its teacher."""
    config = config_of(steps=60, learning_rate=0.3, freeze_last=0.0)
    losses = run(config, begin(config))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1


def test_a_row_of_the_log_says_how_fast_and_from_where(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving and checking are no part of the time; each row begins anew."""
    now, decoded = iter(range(1000)), iter(range(0, 1000, 6))
    monkeypatch.setattr("zarrloc.pretraining.loop.time.perf_counter", lambda: float(next(now)))
    ticking = property(lambda self: next(decoded), lambda self, given: None)
    monkeypatch.setattr(Arrays, "decodes", ticking, raising=False)
    config = config_of(log_steps=3)
    state = begin(config)
    rows: list[dict[str, float]] = []

    def saved() -> bool:
        next(now), next(now)  # a save of two more seconds
        return True

    plan = Plan.of(config, 40, 1, "cpu")
    train(config, plan, state, source(), None, inputs(), ALONE, rows.append, saved)
    # The clock ticks when it is asked: once a step, and once more where a row ended.
    assert [row["images_per_s"] for row in rows] == [3 * 8 / 3, 3 * 8 / 4]
    assert [row["step"] for row in rows] == [3, 6]
    assert [row["epoch"] for row in rows] == [0.6, 1.2]
    assert [row["decodes_per_sample"] for row in rows] == [6 / 24, 6 / 24]


def test_a_row_holds_the_mean_loss_since_the_last() -> None:
    """And the rate of its own step; the last row is of the last step, whenever the next was due."""
    found = {}
    for log_steps in (1, 3):
        config, rows = config_of(log_steps=log_steps, steps=5), list[dict[str, float]]()
        plan, state = Plan.of(config, 40, 1, "cpu"), begin(config)
        arguments = (source(), None, inputs(), ALONE, rows.append)
        assert train(config, plan, state, *arguments, lambda: True)
        found[log_steps] = rows
    each = [row["loss"] for row in found[1]]
    assert [row["step"] for row in found[3]] == [3, 5]
    means = [np.mean(each[:3]), np.mean(each[3:])]
    assert [row["loss"] for row in found[3]] == pytest.approx(means, rel=1e-5)
    rates = [1e-6 + (0.1 * 8 / 256 - 1e-6) * (1 + np.cos(np.pi * t / 4)) / 2 for t in range(5)]
    assert [row["learning_rate"] for row in found[1]] == pytest.approx(rates)
    stopped = begin(config)
    assert not train(config, plan, stopped, *arguments, lambda: False)
    assert stopped.step == 1


def test_what_is_random_is_apart_for_each_step_process_and_purpose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stochastic depth of two processes, and the views, which are the same on all."""
    config, seen = config_of(), list[int]()
    plan, state = Plan.of(config, 40, 1, "cpu"), begin(config)
    given = (config, state.objective, source(), None, inputs(), range(2), ALONE, CPU)
    (batch, *_) = batches(*given)
    monkeypatch.setattr("zarrloc.pretraining.loop.torch.manual_seed", seen.append)
    for step in range(3):
        for rank in range(4):
            state.step = step
            world = World(rank)
            train_step(config, plan, state, state.student, batch, inputs(), world)
    views = [seed_of(config.seed, step, 0) for step in range(3)]
    assert len({*seen, *views}) == 12 + 3
    assert all(0 <= seed < 2**63 for seed in seen)
    assert seed_of(config.seed + 1, 0, 0) not in views


@pytest.mark.parametrize("kind", ["natural", "replicate"])
def test_resumed_is_undisturbed_to_the_last_digit(kind: str) -> None:
    """Stopped between two rows of the log, packed, unpacked elsewhere, and continued."""
    config = config_of(steps=9)
    undisturbed = run(config, begin(config, dropout=0.3), kind=kind)
    stopped = begin(config, dropout=0.3)
    losses = run(config, stopped, stop=5, kind=kind)
    resumed = begin(config_of(seed=9), dropout=0.3)
    resumed.unpack(copy.deepcopy(stopped.pack()))
    torch.manual_seed(1234)
    assert losses + run(config, resumed, kind=kind) == undisturbed


def test_data_on_the_device_trains_the_same() -> None:
    """A cache changes where pixels come from, and nothing else."""
    config = config_of()
    assert run(config, begin(config), resident=True) == run(config, begin(config))
    cached = decode_all(source())
    assert cached.images.tobytes() == source().images.tobytes()


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulating_is_the_same_step(parts: int) -> None:
    """A step in equal or unequal parts, up to rounding."""
    config = config_of(accumulate=parts)
    got = run(config, begin(config))
    assert got == pytest.approx(run(config_of(), begin(config_of())), rel=1e-4)


def _member(world: World, config: PretrainConfig, folder: str) -> int:
    torch.set_num_threads(1)
    losses = run(config, begin(config), world=world)
    np.save(f"{folder}/losses-{world.rank}.npy", losses)
    return 0


def test_two_processes_train_as_one(tmp_path) -> None:
    """The same batch in two halves: same loss on both ranks and as one process has it."""
    config = config_of()
    assert launch(_member, (config, str(tmp_path)), 2, "cpu") == 0
    first, second = (np.load(tmp_path / f"losses-{rank}.npy") for rank in range(2))
    assert first.tolist() == second.tolist()
    assert first == pytest.approx(run(config, begin(config)), rel=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_are_shared_where_there_is_another_process(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By PyTorch's wrapper around the student; each has its share of the batch."""
    wrapped: list[nn.Module] = []

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module, device_ids: object) -> None:
            super().__init__()
            self.module = module
            assert device_ids is None
            wrapped.append(module)

        def forward(self, views: list[torch.Tensor], drawn: torch.Tensor) -> torch.Tensor:
            assert len(views[0]) == 8 // size
            return self.module(views, drawn)

    monkeypatch.setattr("zarrloc.pretraining.loop.DistributedDataParallel", Wrapper)
    monkeypatch.setattr(World, "mean", lambda self, value: value)
    state = begin(config_of())
    run(config_of(), state, world=World(size - 1, size))
    assert wrapped == [state.student] * (size - 1)


def test_brightness_reaches_the_network() -> None:
    """A brighter draw is a brighter input: the affine is fixed. A z-score would hide it."""
    config = config_of(flip=0, remove_channel=0, rescale_protein=0)
    (batch, *_) = batches(
        config, Dino(config, SPEC), source(), None, inputs(), range(1), ALONE, CPU
    )
    dark = [
        dataclasses.replace(
            d, brightness=torch.full_like(d.brightness, 0.5), contrast=torch.ones_like(d.contrast)
        )
        for d in batch.draws
    ]
    bright = [dataclasses.replace(d, brightness=2 * d.brightness) for d in dark]
    means = []
    for draws in (dark, bright):
        views = multi_crop(
            batch.pixels.unit(),
            batch.pixels.extents,
            batch.protein,
            multi_crop_views(config),
            draws,
        )
        seen = torch.cat([inputs()(view).mean((2, 3)) for view in views])
        means.append(seen * torch.tensor([0.2, 0.25]) + torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(means[1], 2 * means[0], rtol=1e-4, atol=1e-4)


def test_replicate_shows_one_channel_in_all_inputs_of_all_views() -> None:
    """Half of the samples show the nucleus, half the protein; nothing else is mixed in."""
    marked = source()
    marked.images[:, 0] = np.arange(20) * 100  # nucleus: a ramp along x
    marked.images[:, 1] = np.arange(20)[:, None] * 100  # protein: along y
    config = config_of(
        batch=40,
        warp=0,
        flip=0,
        rescale_protein=0,
        remove_channel=0.9,
        jitter=0,
        local_scale=(0.3, 0.4),
    )
    (batch, *_) = batches(
        config, Dino(config, SPEC), marked, None, inputs("replicate"), range(1), ALONE, CPU
    )
    kinds = []
    for view in multi_crop(
        batch.pixels.unit(),
        batch.pixels.extents,
        batch.protein,
        multi_crop_views(config),
        batch.draws,
    ):
        seen = Inputs(inputs("replicate").channels, (0.0, 0.0), (1.0, 1.0))(view)
        assert torch.equal(seen[:, 0], seen[:, 1])
        kinds.append(seen[:, 0].std(2).mean(1) < seen[:, 0].std(1).mean(1))  # along y?
    for kind in kinds:
        assert torch.equal(kind, batch.protein[:, 0])
    assert 8 < int(kinds[0].sum()) < 32


def test_out_of_memory_halves_and_says_so() -> None:
    """Parts double until a trial passes; one sample too large is refused."""
    tried, said = [], []

    def trial(parts: int) -> None:
        tried.append(parts)
        if parts < 3:
            raise torch.OutOfMemoryError

    plan = Plan.of(config_of(), 40, 1, "cpu")
    assert parts_that_fit(trial, plan, said.append) == 4
    assert tried == [1, 2, 4]
    assert "accumulating over 4 parts" in said[-1]
    with pytest.raises(ConfigError, match="one sample's views do not fit"):
        parts_that_fit(lambda parts: trial(0), plan, said.append)


@pytest.mark.parametrize(("share", "expected"), [(8, [1, 2, 4]), (7, [1, 2, 3]), (2, [1])])
def test_samples_that_are_compared_are_never_alone_in_a_part(
    share: int, expected: list[int]
) -> None:
    """Two of a kind that do not fit are refused; one alone would teach nothing, or NaN."""
    plan, tried = Plan.of(config_of(objective="simclr", batch=share), 40, 1, "cpu"), list[int]()

    def trial(parts: int) -> None:
        tried.append(parts)
        raise torch.OutOfMemoryError

    with pytest.raises(ConfigError, match="the views of two samples, which are compared"):
        parts_that_fit(trial, plan, [].append)
    assert tried == expected
    assert share // tried[-1] >= 2


def test_processes_share_the_cores_among_their_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this node; with a GPU each, there are no more of them than GPUs."""
    monkeypatch.setattr("zarrloc.pretraining.loop.cores", lambda: 64)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    gpu = torch.device("cuda", 0)
    assert [decoders(World(size=n), CPU) for n in (1, 4, 8, 32)] == [8, 4, 2, 1]
    assert [decoders(World(size=n), gpu) for n in (1, 4, 8, 32)] == [8, 4, 4, 4]


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    """It names the step and what to change."""
    config = config_of()
    state = begin(config)
    state.objective.state_dict()["center"][0] = torch.nan
    with pytest.raises(ConfigError, match="the loss became nan near step 2"):
        run(config, state)


def test_plan_refuses_what_cannot_be_shared_out() -> None:
    """A batch larger than the data, or not divisible among processes."""
    with pytest.raises(ConfigError, match="--batch 8 is more than the 7 samples"):
        Plan.of(config_of(), 7, 1, "cpu")
    with pytest.raises(ConfigError, match="does not divide among 3 processes; use 6"):
        Plan.of(config_of(), 40, 3, "cpu")


def test_fine_tuning_takes_a_tenth_of_the_rate() -> None:
    """And both scale with the batch, as do the steps with the epochs."""
    scratch = Plan.of(PretrainConfig.of({"arch": "x", "batch": 64}), 1000, 1, "cpu")
    tuned = Plan.of(PretrainConfig.of({"from": "dino-vits8", "batch": 64}), 1000, 1, "cuda")
    assert scratch.learning_rate.start == pytest.approx(5e-4 / 4)
    assert tuned.learning_rate.start == pytest.approx(5e-5 / 4)
    assert scratch.steps == 100 * 15
    assert (scratch.bfloat16, tuned.bfloat16) == (False, True)


def test_the_second_view_is_of_a_sibling() -> None:
    """Resampled from its pixels and its shape; the first is of the sample itself."""
    config = config_of(objective="simclr", views="protein", cache="device")
    data = source()
    data.extents[20:] = (20, 10)  # half as wide
    protein, fov = np.repeat(np.arange(20), 2).astype(str), np.arange(40)
    objective = SimClr(config, SPEC)
    beside = Beside(siblings=Siblings(protein, fov))
    for held, resident in ((data, None), (data, pixels(data.images, data.extents))):
        (batch,) = batches(
            config, objective, held, resident, inputs(), range(1), ALONE, CPU, beside
        )
        rows = [int((data.images == p.numpy().view(np.uint16)).all((1, 2, 3)).argmax())
                for p in batch.pixels.images]  # fmt: skip
        assert batch.sibling is not None
        expected = pixels(data.images[np.array(rows) ^ 1], data.extents[np.array(rows) ^ 1])
        torch.testing.assert_close(batch.sibling.unit(), expected.unit())
        views = batch.views(objective.views())
        first, second = objective.views()
        own = pixels(data.images[rows], data.extents[rows])
        for found, of, view, drawn in (
            (views[0], own, first, batch.draws[0]), (views[1], expected, second, batch.draws[1]),
        ):  # fmt: skip
            torch.testing.assert_close(
                found, multi_crop(of.unit(), of.extents, batch.protein, [view], [drawn])[0]
            )
        half = batch.part(slice(2, 6))
        torch.testing.assert_close(half.views(objective.views())[1], views[1][2:6])


def test_crops_are_drawn_for_the_shape_of_the_image() -> None:
    """Half as wide as high."""
    config = config_of(objective="simclr")
    data = source()
    data.extents[:] = (20, 10)
    objective = SimClr(config, SPEC)
    (batch,) = batches(config, objective, data, None, inputs(), range(1), ALONE, CPU)
    assert batch.least == batch.part(slice(2)).least == 10, "which says how far pixels are averaged"
    random = torch.Generator().manual_seed(seed_of(config.seed, 0, 0))
    for view, found in zip(objective.views(), batch.draws, strict=True):
        expected = draw(view, batch.protein, torch.full((8,), 0.5), random)
        torch.testing.assert_close(found.matrix, expected.matrix)


def test_channels_that_are_not_shown_are_nan_in_all_views() -> None:
    """Only for a backbone of channel tokens; sampled, or as the stores have them."""
    spec = dataclasses.replace(SPEC, tokens="channel")
    present = np.ones((40, 2), bool)
    present[::2, 0] = False
    for sampled in (True, False):
        config = config_of(channel_sampling=sampled)
        objective, held = Dino(config, spec), source()
        counts = []
        for batch in batches(
            config, objective, held, None, inputs(), range(20), ALONE, CPU, Beside(present)
        ):
            assert batch.channels is not None
            views = batch.views(objective.views())
            for view, shown in zip(views, batch.channels, strict=True):
                assert torch.equal(shown, batch.channels[0])
                torch.testing.assert_close(view.isnan().all((2, 3)), ~shown)
                torch.testing.assert_close(view.isnan().any((2, 3)), ~shown)
            counts.append(batch.channels[0].sum().item())
            part = batch.part(slice(1, 3)).channels
            assert part is not None
            assert torch.equal(torch.stack(part), torch.stack(batch.channels)[:, 1:3])
        assert (min(counts) == 8) == sampled
    (plain,) = batches(config_of(), Dino(config_of(), SPEC), source(), None, inputs(), range(1),
                       ALONE, CPU)  # fmt: skip
    assert plain.channels is None


def test_every_step_shows_a_channel_that_the_network_is_given() -> None:
    """Also where the channel map leaves out a channel of the store."""
    spec, config = dataclasses.replace(SPEC, tokens="channel"), config_of()
    one = Inputs(resolve("protein=protein", ROLES, ROLES, "natural"), (0.3,) * 2, (0.2,) * 2)
    objective = Dino(config, spec)
    for batch in batches(config, objective, source(), None, one, range(20), ALONE, CPU):
        for view in batch.views(objective.views()):
            assert not one(view)[:, 1].isnan().any()


@pytest.mark.parametrize("sampled", [True, False])
def test_each_of_two_views_shows_the_channels_of_its_own_store(sampled: bool) -> None:
    """A sibling's missing channel is hidden, and one that only the sibling has is shown."""
    spec = dataclasses.replace(SPEC, tokens="channel")
    config = config_of(objective="simclr", views="protein", cache="ram", channel_sampling=sampled)
    present = np.ones((40, 2), bool)
    present[::2, 0] = present[1::4, 1] = False
    siblings = Siblings(np.repeat(np.arange(20), 2).astype(str), np.arange(40))
    data, objective = source(), SimClr(config, spec)
    twice = 0
    for batch in batches(
        config, objective, data, None, inputs(), range(20), ALONE, CPU, Beside(present, siblings)
    ):
        rows = np.array([
            (data.images == p.numpy().view(np.uint16)).all((1, 2, 3)).argmax()
            for p in batch.pixels.images
        ])  # fmt: skip
        for view, of in zip(batch.views(objective.views()), (rows, rows ^ 1), strict=True):
            seen = ~view.isnan().any((2, 3))
            there = torch.from_numpy(present[of])
            assert seen.any(1).all()
            assert not (seen & ~there).any()
            assert sampled or torch.equal(seen, there)
            twice += int(seen.all(1).sum())
    assert twice > 0
