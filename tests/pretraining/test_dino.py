"""Loss, centre, teacher and schedules against the plain formulas, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.models.specs import BackboneSpec
from zarrloc.pretraining.dino import Dino, Head, dino_loss, teacher_probabilities
from zarrloc.pretraining.objective import Network
from zarrloc.pretraining.schedule import Schedule, parameter_groups, update_teacher


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def test_loss_is_equation_2_of_the_paper() -> None:
    """Sum over global x and all x' != x of -P_t(x) log P_s(x'), as a mean over pairs and images."""
    rng = np.random.default_rng(0)
    n, k, views = 3, 7, 5
    student, teacher = rng.normal(size=(views, n, k)), rng.normal(size=(2, n, k))
    center, t_s, t_t = rng.normal(size=k), 0.1, 0.04
    total = [
        -softmax((teacher[g, i] - center) / t_t) @ np.log(softmax(student[v, i] / t_s))
        for i in range(n)
        for g in range(2)
        for v in range(views)
        if v != g
    ]
    targets = teacher_probabilities(torch.from_numpy(teacher), torch.from_numpy(center), t_t)
    loss = dino_loss(torch.from_numpy(student), targets, t_s)
    assert float(loss) == pytest.approx(np.mean(total), rel=1e-12)


def objective_of(**settings: object) -> Dino:
    """With 10 prototypes on 6 features."""
    given = {"arch": "none", "prototypes": 10, "head_hidden": 8, "bottleneck": 4, **settings}
    return Dino(PretrainConfig.of(given), BackboneSpec("toy", "none", ("protein",), 4, 6, ""))


def test_the_centre_follows_the_teachers_mean() -> None:
    """Equation 4, from 0 on; it is taken off the teacher's logits, and each has its temperature."""
    rng = np.random.default_rng(0)
    objective = objective_of(student_temperature=0.3, teacher_temperature=0.2, center_momentum=0.8)
    center = np.zeros(10)
    for _ in range(3):
        answer, teacher = rng.normal(size=(4, 3, 10)), rng.normal(size=(2, 3, 10)) + 2
        targets = torch.from_numpy(teacher).float()
        total = [
            -softmax((teacher[g, i] - center) / 0.2) @ np.log(softmax(answer[v, i] / 0.3))
            for i in range(3)
            for g in range(2)
            for v in range(4)
            if v != g
        ]
        loss = objective.loss(torch.from_numpy(answer), targets, torch.empty(3, 0))
        assert float(loss) == pytest.approx(np.mean(total), rel=1e-5)
        seen = objective.probabilities(Network(nn.Identity(), nn.Identity()), targets[0])
        expected = [softmax((teacher[0, i] - center) / 0.2) for i in range(3)]
        np.testing.assert_allclose(seen, expected, rtol=1e-5)
        objective.remember(objective.tally(targets))
        center = 0.8 * center + 0.2 * teacher.mean((0, 1))
        np.testing.assert_allclose(objective.center, center, rtol=1e-5)


def test_the_teacher_is_asked_for_the_global_views_alone() -> None:
    """Two of them, the first; each prototype of all views answers once, the teacher's of two."""
    objective = objective_of(local_views=3)
    network = objective.network(nn.Flatten(), nn.Linear(6, 10, bias=False))
    views = [torch.rand(5, 6, 1, 1) for _ in range(5)]
    targets = objective.targets(network, views, torch.empty(5, 0))
    torch.testing.assert_close(targets, network(views)[:2])
    assert objective.outputs() == network(views)[:, 0].numel() + targets[:, 0].numel()
    head = objective.head()
    assert head(torch.rand(3, 6)).shape == (3, 10)
    assert [*objective.frozen(Network(None, head))] == [head.prototypes.weight]


def test_no_gradient_reaches_the_teacher() -> None:
    """Its probabilities are targets."""
    logits = torch.randn(2, 3, 4, requires_grad=True)
    assert not teacher_probabilities(logits, torch.zeros(4), 0.04).requires_grad


def test_teacher_is_a_moving_average() -> None:
    """theta_t = m theta_t + (1 - m) theta_s, over several steps."""
    student, teacher = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    expected = teacher.weight.detach().clone()
    for momentum in (0.9, 0.99, 1.0):
        nn.init.normal_(student.weight)
        expected = momentum * expected + (1 - momentum) * student.weight.detach()
        update_teacher(teacher, student, momentum)
    torch.testing.assert_close(teacher.weight.detach(), expected)


def test_the_teacher_has_the_running_statistics_of_its_student() -> None:
    """A batch norm's are no parameters, and without them the teacher would norm by 0 and 1."""
    student, teacher = nn.BatchNorm1d(3), nn.BatchNorm1d(3).eval()
    student(torch.randn(50, 3) * 4 + 7)
    update_teacher(teacher, student, 0.9)
    for name, value in student.named_buffers():
        assert torch.equal(teacher.get_buffer(name), value)
    assert teacher.running_mean is not student.running_mean


def test_schedules() -> None:
    """Linear to the start, half a cosine to the end, and the end thereafter."""
    plain = Schedule(0.996, 1.0, 101)
    assert plain.at(0) == 0.996
    assert plain.at(50) == pytest.approx(0.998)
    assert plain.at(100) == 1.0
    warm = Schedule(1.0, 0.1, 110, warmup=10)
    assert [warm.at(step) for step in (0, 5, 10)] == [0.0, 0.5, 1.0]
    quarter = 10 + 99 / 4
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (round(quarter) - 10) / 99)) / 2
    assert warm.at(round(quarter)) == pytest.approx(expected)
    assert warm.at(109) == pytest.approx(0.1)
    assert warm.at(500) == pytest.approx(0.1)
    assert [Schedule(0.5, 0.1, 2).at(step) for step in (0, 1)] == [0.5, 0.1]
    assert Schedule(0.5, 0.1, 1).at(0) == 0.5


def test_head_gives_cosines() -> None:
    """Logits do not depend on the prototypes' lengths and lie in -1 to 1."""
    head = Head(dim=6, hidden=8, bottleneck=4, prototypes=10).double()
    features = torch.randn(5, 6).double()
    with torch.no_grad():
        before = head(features)
        point, prototypes = head.mlp(features).numpy(), head.prototypes.weight.numpy()
        lengths = np.linalg.norm(point, axis=1)[:, None] * np.linalg.norm(prototypes, axis=1)
        np.testing.assert_allclose(before.numpy(), point @ prototypes.T / lengths)
        head.prototypes.weight.mul_(torch.rand(10, 1).double() + 0.5)
        torch.testing.assert_close(head(features), before)


def test_a_fresh_head_is_small_and_without_biases() -> None:
    """Truncated normal of sd 0.02 in every layer, as in the reference implementation."""
    torch.manual_seed(0)
    head = Head(dim=64, hidden=256, bottleneck=64, prototypes=512)
    weights = [layer.weight for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert [tuple(w.shape) for w in weights] == [(256, 64), (256, 256), (64, 256), (512, 64)]
    for weight in weights:
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.03)
        assert float(weight.detach().mean()) == pytest.approx(0, abs=6e-4)
    biases = [layer.bias for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert biases[-1] is None
    for bias in biases[:-1]:
        assert not bias.detach().any()


def test_network_keeps_views_apart() -> None:
    """Views of two sizes come back in their order, as each alone would."""
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 6))
    network = Network(backbone, Head(6, 8, 4, 10))
    views = [torch.rand(3, 2, size, size) for size in (8, 8, 4, 4, 4)]
    together = network(views)
    assert together.shape == (5, 3, 10)
    for view, logits in zip(views, together, strict=True):
        torch.testing.assert_close(network([view])[0], logits)


def test_only_matrices_decay() -> None:
    """Every parameter is in one group, vectors without weight decay."""
    network = Network(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), Head(4, 8, 4, 10))
    decaying, plain = parameter_groups(network)
    assert all(p.ndim > 1 for p in decaying["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    assert plain["weight_decay"] == 0
    assert (decaying["decays"], plain["decays"]) == (True, False)
    together = [*decaying["params"], *plain["params"]]
    assert {id(p) for p in together} == {id(p) for p in network.parameters()}
