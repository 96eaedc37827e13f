"""The linear probe: one logistic regression per label and fold, all solved at once."""

import numpy as np
import numpy.typing as npt
import torch

from zarrloc.groups.heads import Heads
from zarrloc.scoring.heads import Array32, rarest_label_weights, standardisation
from zarrloc.scoring.metrics import Truth

ITERATIONS = 200


def train_probe(
    features: Array32,
    truth: Truth,
    train: npt.NDArray[np.bool_],
    *,
    strength: float = 1.0,
    device: str = "cpu",
) -> Heads:
    """Heads without hidden layers, at the optimum: scikit-learn's `LogisticRegression(C=strength)`.

    One a label; of classes that exclude one another, one multinomial regression.

    Features are standardised and rows weighted (rarest label, mean 1) as for a head. The
    problems share nothing, so the minimum of their summed losses is each one's own; L-BFGS finds
    it without a draw of chance.

    Args:
        features: float32 `(n, f)`, finite.
        truth: `(n, label)`; what is not known is left out of the loss.
        train: bool `(fold, n)`, each fold's training rows.
        strength: inverse of the L2 penalty.
        device: torch device.
    """
    folds, f, labels = len(train), features.shape[1], truth.positive.shape[1]
    weight = rarest_label_weights(truth, train)
    weight *= (weight > 0).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    mean, scale = standardisation(features, train)

    def put(values: npt.NDArray[np.floating]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    x, y = put(features), put(truth.positive.astype(np.float32))
    each = put(weight[:, :, None] * truth.known).movedim(0, 1)  # (n, fold, label)
    inverse, centre = put(1 / scale)[:, :, None], put(mean)[:, None]
    w = torch.zeros(folds, f, labels, device=device, requires_grad=True)
    b = torch.zeros(folds, 1, labels, device=device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [w, b], max_iter=ITERATIONS, tolerance_grad=1e-4, line_search_fn="strong_wolfe"
    )
    answer = y[:, None].expand(-1, folds, -1)

    def loss() -> torch.Tensor:
        solver.zero_grad()
        # The folds' standardisations go into the weights: one product over the features as read.
        inner = w * inverse
        offset = b - centre @ inner
        logits = (x @ inner.movedim(0, 1).reshape(f, -1)).view(-1, folds, labels)
        logits = logits + offset[:, 0]
        if truth.exclusive:
            misfit = -(each * answer * logits.log_softmax(2)).sum()
        else:
            misfit = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, answer, weight=each, reduction="sum"
            )
        total = 0.5 * w.square().sum() + strength * misfit
        torch.autograd.backward(total)
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    weights, biases = w.detach().cpu().numpy(), b.detach().cpu().numpy()[:, 0]
    return Heads(mean, scale, (weights,), (biases,), truth.exclusive)
