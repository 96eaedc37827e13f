"""Each objective against its paper: losses on fixed tensors, then whole runs by each.

`LIGHTLY` are the values of lightly 1.6.0 (`NTXentLoss`, `VICRegLoss`, `KoLeoLoss`, `DINOLoss`,
`IBOTPatchLoss`) on the same tensors; it is not installed with zarrloc, which it would bring
pytorch-lightning, hydra and omegaconf. Beside them stand loops over the papers' formulas.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.pretraining.test_loop import ALONE, CPU, ROLES, inputs, source
from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError
from zarrloc.models.specs import BackboneSpec
from zarrloc.models.vit import Backbone
from zarrloc.pretraining import dinov2, mae, simclr, vicreg
from zarrloc.pretraining.dino import dino_loss
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.guard import Guard, whole_images
from zarrloc.pretraining.launch import World, launch
from zarrloc.pretraining.loop import State, batches, gradients, train
from zarrloc.pretraining.objectives import OBJECTIVES, objective_of
from zarrloc.pretraining.start import start_spec

LIGHTLY = {
    "simclr": 3.8363253520191503,
    "vicreg": 20.276653891297695,
    "koleo": 0.48107803253967907,
    "dino": 8.67525184933197,
    "ibot": 1.2334281709187942,
}
TINY = {
    "arch": "vit_tiny_patch16",
    "arch_options": ("patch_size=4", "depth=1", "embed_dim=24", "num_heads=3"),
    "batch": 8,
    "steps": 6,
    "size": 16,
    "local_size": 8,
    "local_views": 1,
    "prototypes": 16,
    "head_hidden": 12,
    "bottleneck": 6,
    "projection": 6,
    "decoder_width": 32,
    "decoder_depth": 1,
    "learning_rate": 0.05,
    "warmup": 0.0,
    "log_steps": 1,
    "device": "cpu",
    "freeze_last": 0.0,
}


def fixed(*shape: int, shift: float = 0.0) -> Tensor:
    """Numbers that every version of torch makes alike."""
    i = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(0.7 * i + shift + 0.013 * i**2).view(*shape)


# --- the losses ---------------------------------------------------------------------------------


def test_simclr_is_equation_1() -> None:
    a, b = fixed(6, 5), fixed(6, 5, shift=1.0)
    found = float(simclr.nt_xent(a, b, 0.1))
    z = np.concatenate([a.numpy(), b.numpy()])
    cosine = z @ z.T / np.outer(np.linalg.norm(z, axis=1), np.linalg.norm(z, axis=1))
    weight = np.exp(cosine / 0.1)
    each = [
        -np.log(weight[i, (i + 6) % 12] / sum(weight[i, k] for k in range(12) if k != i))
        for i in range(12)
    ]
    assert found == pytest.approx(np.mean(each), rel=1e-10)
    assert found == pytest.approx(LIGHTLY["simclr"], rel=1e-10)


def test_vicreg_is_equation_6() -> None:
    a, b = fixed(6, 5), fixed(6, 5, shift=1.0)
    found = float(vicreg.vicreg_loss(a, b))
    variance = [
        np.mean([max(0, 1 - np.sqrt(z[:, j].var(ddof=1) + 1e-4)) for j in range(5)])
        for z in (a.numpy(), b.numpy())
    ]
    covariance = [
        sum(c[i, j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
        for c in (np.cov(z.numpy(), rowvar=False) for z in (a, b))
    ]
    apart = np.square(a.numpy() - b.numpy()).mean()
    expected = 25 * apart + 25 * np.mean(variance) + sum(covariance)
    assert found == pytest.approx(expected, rel=1e-10)
    assert found == pytest.approx(LIGHTLY["vicreg"], rel=1e-10)


def test_dino_is_lightlys() -> None:
    targets = (fixed(2, 3, 7, shift=2.0) / 0.04).softmax(-1)
    assert float(dino_loss(fixed(5, 3, 7), targets, 0.1)) == pytest.approx(
        LIGHTLY["dino"], rel=1e-6
    )


def hidden_patches() -> Tensor:
    hidden = torch.zeros(4, 9, dtype=torch.bool)
    hidden[0, [1, 4, 5]] = hidden[2, 0] = hidden[3, 2:8] = True
    return hidden


def test_ibot_is_a_mean_over_each_views_hidden_patches() -> None:
    hidden = hidden_patches()
    student, teacher = fixed(10, 7), fixed(10, 7, shift=0.5)
    targets = (teacher / 0.04).softmax(-1)
    found = float(dinov2.ibot_loss(student, targets, hidden, 0.1))
    total, at = 0.0, 0
    for view in hidden:
        count = int(view.sum())
        for row in range(at, at + count):
            guess = np.exp(student[row].numpy() / 0.1)
            total -= (targets[row].numpy() @ np.log(guess / guess.sum())) / count
        at += count
    assert found == pytest.approx(total / 4, rel=1e-6)
    assert found == pytest.approx(LIGHTLY["ibot"], rel=1e-6)


def test_koleo_is_the_log_of_the_nearest_distance() -> None:
    x = fixed(6, 5)
    found = float(dinov2.koleo_loss(x))
    unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(unit[i] - unit[j]) for j in range(6) if j != i) for i in range(6)]
    assert found == pytest.approx(-np.mean(np.log(nearest)), rel=1e-6)
    assert found == pytest.approx(LIGHTLY["koleo"], rel=1e-6)
    # Of two that are opposite, neither is nearest to itself.
    assert float(dinov2.koleo_loss(torch.tensor([[3.0, 0], [-2, 0]]))) == pytest.approx(-np.log(2))


def test_sinkhorn_is_the_reference_implementations() -> None:
    """facebookresearch/dinov2, `sinkhorn_knopp_teacher`, on one process."""
    logits = fixed(12, 7)
    q = torch.exp(logits / 0.06).t()
    samples, prototypes = q.shape[1], q.shape[0]
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True)
        q /= prototypes
        q /= q.sum(dim=0, keepdim=True)
        q /= samples
    q *= samples
    found = dinov2.sinkhorn(logits, 0.06)
    torch.testing.assert_close(found.double(), q.t(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(12))
    even = dinov2.sinkhorn(logits, 0.06, iterations=200).sum(0)
    torch.testing.assert_close(even, torch.full((7,), 12 / 7), rtol=1e-3, atol=1e-3)
    assert dinov2.sinkhorn(torch.zeros(0, 7), 0.06).shape == (0, 7)
    # Sharper than float32 can hold.
    assert dinov2.sinkhorn(50 * logits, 0.01).isfinite().all()


def test_rectangles_hide_as_many_patches_as_asked() -> None:
    random = torch.Generator().manual_seed(0)
    for count in (0, 1, 5, 20, 48, 49):
        assert int(dinov2.rectangles(7, count, random).sum()) == count
    many = torch.stack([dinov2.rectangles(7, 12, random) for _ in range(300)]).float().mean(0)
    assert float(many.min()) > 0.05
    assert float(many.max()) < 0.6
    # No side is hidden more often than the one across.
    other = torch.Generator().manual_seed(1)
    many = torch.stack([dinov2.rectangles(7, 12, other) for _ in range(2000)]).float()
    rows, columns = many.view(-1, 7, 7).mean((0, 2)), many.view(-1, 7, 7).mean((0, 1))
    for share in (rows, columns):
        torch.testing.assert_close(share, share.flip(0), atol=0.02, rtol=0)
    # One patch alone is one rectangle: it lies anywhere, the last row and column too.
    alone = torch.stack([dinov2.rectangles(4, 1, random) for _ in range(400)]).float().mean(0)
    assert 0.5 / 16 < float(alone.min()) <= float(alone.max()) < 2 / 16
    # Neighbours are hidden together.
    masks = torch.stack([dinov2.rectangles(7, 12, random) for _ in range(100)]).view(100, 7, 7)
    beside = (masks[:, 1:] & masks[:, :-1]).float().mean() / masks.float().mean()
    assert float(beside) > 2 * 12 / 49


@pytest.mark.parametrize(("aspect", "height", "width"), [(0.0, 6, 20), (0.5, 11, 11), (1.0, 20, 6)])
@pytest.mark.parametrize(("top", "left"), [(0.0, 0.999), (0.999, 0.0), (0.5, 0.25)])
def test_one_rectangle_is_as_drawn(
    aspect: float, height: int, width: int, top: float, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 0.3 to 1 / 0.3 as high as wide, anywhere in the grid; what is too much is cut off."""
    monkeypatch.setattr(
        dinov2.torch, "rand", lambda *_, **__: torch.tensor([1.0, aspect, top, left])
    )
    random = torch.Generator()
    hidden = dinov2.rectangles(40, 120, random).view(40, 40)
    y, x = int(top * (41 - height)), int(left * (41 - width))
    expected = torch.zeros(40, 40, dtype=torch.bool)
    expected[y : y + height, x : x + width] = True
    expected[y + height - 1, x + width - 1] = height * width == 120
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize(("aspect", "patch"), [(0.0, (39, 38)), (1.0, (38, 39))])
def test_a_rectangle_has_the_area_of_a_patch_at_least(
    aspect: float, patch: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a narrow one, which lies in the last corner, the first is kept."""
    monkeypatch.setattr(
        dinov2.torch, "rand", lambda *_, **__: torch.tensor([0.0, aspect, 0.999, 0.999])
    )
    hidden = dinov2.rectangles(40, 1, torch.Generator()).view(40, 40)
    assert hidden.nonzero().tolist() == [[*patch]]


def test_mae_is_the_reference_implementations() -> None:
    """facebookresearch/mae: `patchify`, `forward_loss` with norm_pix_loss."""
    images, patch = fixed(2, 3, 8, 12), 4
    x = images.reshape(2, 3, 2, patch, 3, patch)
    x = torch.einsum("nchpwq->nhwpqc", x).reshape(2, 6, patch**2 * 3)
    patches = mae.patchify(images, patch)
    torch.testing.assert_close(patches, x)
    painted = fixed(2, 6, 48, shift=3.0)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 1, 0]], dtype=torch.float64)
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True)
    loss = ((painted - (x - mean) / (var + 1.0e-6) ** 0.5) ** 2).mean(-1)
    expected = (loss * mask).sum() / mask.sum()
    found = mae.mae_loss(painted, patches, mask.bool())
    assert float(found) == pytest.approx(float(expected), rel=1e-12)


def test_maes_positions_are_the_reference_implementations() -> None:
    """`get_2d_sincos_pos_embed(width, side, cls_token=True)`, as a loop."""
    width, side = 16, 14
    omega = 1 / 10000 ** (np.arange(4) / 4)
    rows = [
        np.concatenate([np.sin(x * omega), np.cos(x * omega), np.sin(y * omega), np.cos(y * omega)])
        for y in range(side)
        for x in range(side)
    ]
    rows.insert(0, np.zeros(width))
    np.testing.assert_allclose(mae.sine_cosine(side, width)[0], np.stack(rows), atol=1e-6)


def test_a_patch_is_judged_only_where_it_was_hidden() -> None:
    """What the decoder paints over shown patches costs nothing."""
    objective = objective_of(config_of("mae"), backbone().spec)
    view, drawn = torch.rand(3, 2, 16, 16), torch.rand(3, 16).argsort(1)[:, :5]
    patches = objective.targets(None, [view], drawn)
    torch.testing.assert_close(patches[1, 4 * 2 + 3, ::2], view[1, 0, 8:12, 12:16].flatten())
    right = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True)
    for changed in (drawn, torch.ones(3, 16).scatter(1, drawn, 0).nonzero()[:, 1].view(3, 11)):
        painted = right.clone()
        painted[torch.arange(3)[:, None], changed] += 2
        expected = 0 if changed is drawn else 4
        assert float(objective.loss(painted, patches, drawn)) == pytest.approx(expected, abs=1e-3)


# --- the networks -------------------------------------------------------------------------------


def backbone(**options: Any) -> Backbone:
    spec = start_spec(config_of("dino"), ROLES)
    torch.manual_seed(0)
    made = Backbone(
        BackboneSpec("t", spec.timm_model, ROLES, 4, 24, "", options={**spec.options, **options})
    )
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}], ids=["plain", "registers"])
def test_tokens_are_timms(options: dict[str, int]) -> None:
    made, images = backbone(**options), torch.randn(3, 2, 16, 16)
    with torch.no_grad():
        expected = made.vit.forward_features(images)
        torch.testing.assert_close(made.tokens(images), expected)
        torch.testing.assert_close(made(images), expected[:, 0])
        assert made(torch.randn(1, 2, 8, 24)).shape == (1, 24)


def test_kept_patches_are_all_that_a_network_sees() -> None:
    made, images = backbone(reg_tokens=2), torch.randn(2, 2, 16, 16)
    order = torch.rand(2, 16).argsort(1)
    with torch.no_grad():
        whole = made.tokens(images)
        shuffled = made.tokens(images, kept=order)
        # Attention has no order of its own: all patches, shuffled, are the whole.
        torch.testing.assert_close(shuffled[:, :3], whole[:, :3], rtol=1e-4, atol=1e-4)
        some = order[:, :5]
        before = made.tokens(images, kept=some)
        assert before.shape == (2, 3 + 5, 24)
        changed = mae.patchify(images, 4).clone()
        hidden = torch.ones(2, 16, dtype=torch.bool).scatter(1, some, False)
        changed[hidden] = 9.0
        grid = changed.view(2, 4, 4, 4, 4, 2).permute(0, 5, 1, 3, 2, 4).reshape(2, 2, 16, 16)
        torch.testing.assert_close(made.tokens(grid, kept=some), before)
        assert not torch.allclose(made.tokens(grid), whole)


def test_hidden_patches_show_the_token_instead() -> None:
    made, images = backbone(), torch.randn(2, 2, 16, 16)
    hidden, token = torch.zeros(2, 16, dtype=torch.bool), torch.randn(1, 1, 24)
    hidden[0, 3] = True
    other = images.clone()
    other[0, :, 0:4, 12:16] += 5
    with torch.no_grad():
        a, b = (made.tokens(x, hidden=hidden, token=token) for x in (images, other))
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a[1], made.tokens(images)[1])
        assert not torch.allclose(a[0], made.tokens(images)[0])


def test_dinov2_asks_for_the_hidden_patches_of_the_right_views() -> None:
    config = config_of("dinov2")
    objective = objective_of(config, backbone().spec)
    network = objective.network(backbone(), objective.head()).eval()
    views = [torch.randn(2, 2, 16, 16) for _ in range(2)]
    drawn = torch.zeros(2, 2, 16, dtype=torch.bool)
    drawn[1, 0, 5] = drawn[0, 1, 7] = True  # sample 1 in view 0, sample 0 in view 1
    with torch.no_grad():
        patches = network(views, drawn).patches
        for row, (view, sample, patch) in enumerate(((0, 1, 5), (1, 0, 7))):
            token = network.backbone.tokens(views[view])[sample, 1 + patch]
            torch.testing.assert_close(patches[row], network.head.patch(token[None])[0])


def test_dinov2s_loss_is_a_weighted_sum() -> None:
    """Of images, hidden patches, and the spread of either global view by itself."""
    config = config_of("dinov2", ibot_weight=0.7, koleo_weight=0.3, student_temperature=0.2)
    objective = objective_of(config, backbone().spec)
    views, features, patches = fixed(3, 4, 7), fixed(2, 4, 5, shift=1.0), fixed(6, 7, shift=2.0)
    images, wanted = (fixed(2, 4, 7, shift=3.0)).softmax(-1), fixed(6, 7, shift=4.0).softmax(-1)
    drawn = torch.zeros(4, 2, 16, dtype=torch.bool)
    drawn[1, 0, 5] = drawn[0, 1, 3:6] = drawn[3, 1, 7:9] = True
    answer = dinov2.Answer(views.float(), patches.float(), features.float())
    found = objective.loss(answer, (images.float(), wanted.float()), drawn)
    hidden = torch.cat([drawn[:, 0], drawn[:, 1]])  # view by view
    expected = (
        dino_loss(views, images, 0.2)
        + 0.7 * dinov2.ibot_loss(patches, wanted, hidden, 0.2)
        + 0.3 * (dinov2.koleo_loss(features[0]) + dinov2.koleo_loss(features[1]))
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_dinov2s_teacher_sees_whole_images_and_is_evened_out() -> None:
    """Both global views together, and the hidden patches by themselves."""
    config = config_of("dinov2", teacher_temperature=0.5)
    objective = objective_of(config, backbone().spec)
    teacher = objective.network(backbone(), objective.head()).eval()
    views = [torch.randn(3, 2, side, side) for side in (16, 16, 8)]
    drawn = torch.rand(3, 2, 16) < 0.3
    with torch.no_grad():
        images, patches = objective.targets(teacher, views, drawn)
        tokens = [teacher.backbone.tokens(view) for view in views[:2]]
        whole = torch.cat([teacher.head.image(each[:, 0]) for each in tokens])
        asked = torch.cat([each[:, 1:][drawn[:, i]] for i, each in enumerate(tokens)])
        torch.testing.assert_close(images.flatten(0, 1), dinov2.sinkhorn(whole, 0.5))
        torch.testing.assert_close(patches, dinov2.sinkhorn(teacher.head.patch(asked), 0.5))
        # For the guard there is no evening out.
        seen = objective.probabilities(teacher, tokens[0][:, 0])
        sharp = (teacher.head.image(tokens[0][:, 0]).double() / 0.5).exp()
        torch.testing.assert_close(seen, sharp / sharp.sum(1, keepdim=True))
        prototypes = {
            id(each.prototypes.weight) for each in (teacher.head.image, teacher.head.patch)
        }
        assert {id(one) for one in objective.frozen(teacher)} == prototypes


def test_masks_hide_what_the_settings_say() -> None:
    config = config_of("dinov2", mask_range=(0.25, 0.5), mask_probability=0.5)
    random = torch.Generator().manual_seed(0)
    drawn = objective_of(config, backbone().spec).draw(400, random)
    count = drawn.sum(-1).flatten()
    assert drawn.shape == (400, 2, 16)
    assert 0.4 < float((count > 0).float().mean()) < 0.6
    assert set(count[count > 0].tolist()) == {4, 5, 6, 7, 8}
    # However large or small the share, one patch is shown and one is hidden.
    for ratio, count in ((0.75, 4), (0.5, 8), (0.99, 1), (0.01, 15)):
        kept = objective_of(config_of("mae", mask_ratio=ratio), backbone().spec).draw(400, random)
        assert kept.shape == (400, count)
        assert all(len(set(row)) == count for row in kept.tolist())
        shares = kept.flatten().bincount(minlength=16) / 400
        assert (shares - count / 16).abs().max() < 0.1


def test_mae_shows_a_crop_in_its_own_colours() -> None:
    """Turned and flipped at most (table 1e)."""
    given = {"global_scale": (0.3, 0.9), "flip": 0.25, "turn": 0.75}
    (view,) = objective_of(config_of("mae", **given), backbone().spec).views()
    shown = {name: value for name, value in dataclasses.asdict(view).items() if value != 0}
    assert shown == {"size": 16, "scale": (0.3, 0.9), "flip": 0.25, "turn": 0.75}


def test_a_fresh_decoder_is_the_reference_implementations() -> None:
    """Xavier's uniform weights, biases of 0 (queries have one too), a mask token of sd 0.02."""
    torch.manual_seed(0)
    decoder = mae.Decoder(96, 128, 2, 4, 48)
    linear = [layer for layer in decoder.modules() if isinstance(layer, nn.Linear)]
    assert len(linear) == 2 + 2 * 4
    for layer in linear:
        largest = (6 / (layer.in_features + layer.out_features)) ** 0.5
        weight = layer.weight.detach()
        assert 0.99 * largest < float(weight.abs().max()) <= largest
        assert float(weight.std()) == pytest.approx(largest / 3**0.5, rel=0.03)
        assert not layer.bias.detach().any()
    assert float(decoder.mask_token.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert {block.attn.num_heads for block in decoder.blocks} == {4}
    names = dict(decoder.named_parameters())
    assert "blocks.1.attn.qkv.bias" in names
    assert "position" not in names, "it is fixed"


def test_the_decoder_sees_each_shown_patch_at_its_place() -> None:
    """In whatever order they come, and the mask token at all others; registers stay behind."""
    torch.manual_seed(0)
    decoder = mae.Decoder(8, 32, 2, 4, 6).eval()
    tokens, kept = torch.randn(3, 1 + 2 + 5, 8), torch.rand(3, 16).argsort(1)[:, :5]
    with torch.no_grad():
        found = decoder(tokens, kept)
        entered = decoder.enter(tokens)
        whole = decoder.mask_token.repeat(3, 17, 1)
        for i in range(3):
            whole[i, 0] = entered[i, 0]
            for k, place in enumerate(kept[i].tolist()):
                whole[i, 1 + place] = entered[i, 3 + k]
        whole = decoder.blocks(whole + mae.sine_cosine(4, 32))[:, 1:]
        torch.testing.assert_close(found, decoder.leave(decoder.norm(whole)))
        order = torch.tensor([0, 1, 2, 7, 5, 3, 4, 6])
        torch.testing.assert_close(decoder(tokens[:, order], kept[:, order[3:] - 3]), found)


def test_a_decoder_is_as_wide_and_deep_as_the_settings_say() -> None:
    """And paints all channels of a patch."""
    config = config_of("mae", decoder_width=64, decoder_depth=3)
    head = objective_of(config, backbone().spec).head()
    assert head.leave.weight.shape == (4 * 4 * 2, 64)
    assert head.enter.weight.shape == (64, 24)
    assert len(head.blocks) == 3
    assert head.position.shape == (1, 1 + 16, 64)


# --- whole runs ---------------------------------------------------------------------------------


def config_of(objective: str, **changes: object) -> PretrainConfig:
    return PretrainConfig.of({**TINY, "objective": objective, **changes})


def begin(config: PretrainConfig) -> State:
    from zarrloc.pretraining.start import start_backbones

    spec = start_spec(config, ROLES)
    student, teacher, _ = start_backbones(config, spec)
    return State.begin(config, spec, student, teacher, CPU)


def run(
    config: PretrainConfig, state: State, stop: int | None = None, world: World = ALONE
) -> list[float]:
    rows: list[dict[str, float]] = []
    train(
        config, Plan.of(config, 40, world.size, "cpu"), state, source(), None, inputs(), world,
        rows.append, lambda: state.step != stop,
    )  # fmt: skip
    return [row["loss"] for row in rows]


def _together(world: World, folder: str) -> int:
    torch.set_num_threads(1)
    for objective in ("simclr", "vicreg", "dinov2"):
        config = config_of(objective, steps=3)
        state = begin(config)
        losses = run(config, state, world=world)
        weights = torch.cat([p.detach().flatten() for p in state.student.parameters()])
        np.savez(f"{folder}/{objective}-{world.rank}.npz", losses=losses, weights=weights)
    return 0


def test_what_compares_samples_compares_those_of_all_processes(tmp_path: Path) -> None:
    """Two processes lose and learn as one: negatives, variances, batch norms, nearest, evenness."""
    assert launch(_together, (str(tmp_path),), 2, "cpu") == 0
    for objective in ("simclr", "vicreg", "dinov2"):
        config = config_of(objective, steps=3)
        state = begin(config)
        fresh = torch.cat([p.detach().flatten() for p in state.student.parameters()])
        losses = run(config, state)
        weights = torch.cat([p.detach().flatten() for p in state.student.parameters()])
        assert (weights - fresh).abs().max() > 1e-3
        for rank in range(2):
            found = np.load(tmp_path / f"{objective}-{rank}.npz")
            assert found["losses"] == pytest.approx(losses, rel=1e-4)
            moved = np.abs(found["weights"] - weights.numpy()).mean()
            assert moved < 0.02 * (weights - fresh).abs().mean(), objective


def test_rows_of_all_processes_send_their_gradients_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process's own, summed over what all made of them."""
    rows, other = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3)
    sent = torch.randn(4, 3)

    def all_gather(parts: list[Tensor], value: Tensor) -> None:
        parts[0].copy_(other)
        parts[1].copy_(value)

    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "all_reduce", lambda value, *_: value.add_(sent))
    found = World(1, 2).gathered(rows)
    assert torch.equal(found, torch.cat([other, rows]))
    (found * 3).sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, 3 + sent[2:])


EVERY = pytest.mark.parametrize("objective", sorted(OBJECTIVES))


@pytest.mark.parametrize("objective", sorted(OBJECTIVES.keys() - {"dino"}))
def test_the_loss_falls(objective: str) -> None:
    """DINO's is no measure of progress while its centre still moves; test_loop has its test."""
    config = config_of(objective, steps=40, learning_rate=0.3, momentum=0.9)
    losses = run(config, begin(config))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@EVERY
def test_resumed_is_undisturbed_to_the_last_digit(objective: str) -> None:
    config = config_of(objective, drop_path=0.2)
    undisturbed = run(config, begin(config))
    stopped = begin(config)
    losses = run(config, stopped, stop=3)
    resumed = begin(config_of(objective, drop_path=0.2, seed=9))
    resumed.unpack(copy.deepcopy(stopped.pack()))
    torch.manual_seed(1234)
    assert losses + run(config, resumed) == undisturbed


@EVERY
def test_everything_that_is_trained_gets_a_gradient(objective: str) -> None:
    """Or a run over several processes would wait for it for ever."""
    config = config_of(objective)
    state = begin(config)
    (batch, *_) = batches(config, state.objective, source(), None, inputs(), range(1), ALONE, CPU)
    gradients(Plan.of(config, 40, 1, "cpu"), state, state.student, batch, inputs())
    without = [name for name, p in state.student.named_parameters() if p.grad is None]
    assert without == []


@EVERY
def test_the_guard_looks_at_all_alike(objective: str) -> None:
    config = config_of(objective)
    state = begin(config)
    images = whole_images(source(), np.arange(40), 16)
    guard = Guard(images, np.zeros((40, 0), np.uint8), np.arange(40), inputs())
    health = guard.check(state.teacher, state.objective, 0)
    assert health.spread > 0
    assert health.effective_rank > 2
    assert (health.teacher_entropy is None) == (objective in ("mae", "simclr", "vicreg"))
    assert "effective rank" in str(health)


@pytest.mark.parametrize("objective", ["mae", "simclr", "vicreg"])
def test_without_a_teacher_the_student_itself_is_exported(objective: str) -> None:
    config = config_of(objective)
    state = begin(config)
    run(config, state)
    for name, value in state.student.backbone.state_dict().items():
        torch.testing.assert_close(state.teacher.backbone.state_dict()[name], value)


@pytest.mark.parametrize("objective", ["dino", "dinov2"])
def test_the_plan_counts_the_answers_to_a_sample(objective: str) -> None:
    """Logits of student and teacher, of views and of as many patches as are hidden on average."""
    for hides, probability, n, rel in (((0.2, 0.6), 0.7, 300, 0.05), ((0.5, 0.5), 1.0, 3, 1e-9)):
        config = config_of(objective, mask_range=hides, mask_probability=probability)
        state = begin(config)
        views = [torch.randn(n, 2, view.size, view.size) for view in state.objective.views()]
        drawn = state.objective.draw(n, torch.Generator().manual_seed(0))
        with torch.no_grad():
            answer = state.student(views, drawn)
            targets = state.objective.targets(state.teacher, views, drawn)
        given = [*answer[:2], *targets] if objective == "dinov2" else [answer, targets]
        found = sum(each.numel() for each in given) / n
        assert state.objective.outputs() == pytest.approx(found, rel=rel)
    assert objective_of(config_of("simclr"), state.objective.spec).outputs() == 0


WHOSE = {"DINO, DINOv2": {"dino", "dinov2"}, "Not MAE": OBJECTIVES.keys() - {"mae"}}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("size", 24), ("global_scale", (0.5, 0.6)), ("flip", 0.1), ("turn", 0.1)),
        *(("local_size", 12), ("local_views", 2), ("local_scale", (0.1, 0.2)), ("warp", 0.1)),
        *(("jitter", 0.1), ("remove_channel", 0.1), ("rescale_protein", 0.1)),
        *(("noise", 0.1), ("blur", 0.1), ("momentum", 0.5), ("freeze_last", 0.5)),
    ],
)
def test_a_setting_says_which_objectives_use_it(setting: str, value: object) -> None:
    """By the first words of its description: all do where it names none."""
    spec = start_spec(config_of("dino"), ROLES)

    def shows(objective: str, **changes: object) -> tuple[object, ...]:
        made = objective_of(config_of(objective, **changes), spec)
        plan = Plan.of(made.config, 40, 1, "cpu")
        frozen = [*made.frozen(made.network(nn.Identity(), made.head()))]
        return made.views(), plan.momentum, plan.frozen_steps * bool(frozen)

    said = str(PretrainConfig.model_fields[setting].description).partition(":")[0]
    found = {name for name in OBJECTIVES if shows(name) != shows(name, **{setting: value})}
    assert found == WHOSE.get(said, OBJECTIVES.keys())


@pytest.mark.parametrize("objective", ["dinov2", "simclr", "vicreg"])
def test_what_compares_samples_needs_two(objective: str) -> None:
    with pytest.raises(ConfigError, match=f"--objective {objective} compares samples"):
        Plan.of(config_of(objective, batch=8, accumulate=8), 40, 1, "cpu")
    with pytest.raises(ConfigError, match=f"--objective {objective} compares samples"):
        Plan.of(config_of(objective, batch=1), 40, 1, "cpu")


def test_patches_are_hidden_only_where_zarrloc_makes_the_tokens() -> None:
    config = config_of(
        "mae", **{"from": "timm:test_vit", "arch": None, "arch_options": (), "local_size": 16}
    )
    with pytest.raises(ConfigError, match="--objective mae hides patches"):
        start_spec(config, ROLES)


def test_mae_does_not_ask_for_absent_channels() -> None:
    """Patches with NaN are those without these pixels."""
    random = torch.Generator().manual_seed(0)
    patches, painted = torch.randn(2, 3, 4, 5, 6, generator=random).flatten(2, 3).unbind(0)
    hidden = torch.tensor([[True, False] * 10, [True, True] * 10, [False, True] * 10])
    lacking = patches.clone()
    lacking[..., ::3] = torch.nan
    painted = painted.requires_grad_()
    found = mae.mae_loss(painted, lacking, hidden)
    kept = [1, 2, 4, 5]
    torch.testing.assert_close(found, mae.mae_loss(painted[..., kept], patches[..., kept], hidden))
    found.backward()
    assert painted.grad is not None
    assert painted.grad.isfinite().all()
    assert (painted.grad[..., ::3] == 0).all()
