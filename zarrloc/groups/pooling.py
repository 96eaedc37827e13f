"""From the cells of a field to the field: a mean, or a mean weighted by gated attention.

A field is called by the weighted mean of its cells' logits (Ilse et al. 2018, "Attention-based Deep
Multiple Instance Learning", eq. 7 to 9; Javed et al. 2022, "Additive MIL", for the order of
classifying and pooling). So the classifier of fields is one of cells, too, though only fields were
labelled. Logits of cells that are never attended to mean nothing, though: a cell by itself is
called as much by its own logit as it is attended to, and else as fields are called on average.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def gated(hidden: Tensor, gates: Sequence[Tensor]) -> Tensor:
    """How much each cell is to count, before the softmax over a field's: `(fold, n, 1)`.

    `hidden` `(fold, n, h)`; `gates`: v and u `(fold, h, d)`, their biases
    `(fold, 1, d)`, w `(fold, d, 1)`.
    """
    v, v_bias, u, u_bias, w = gates
    gate = torch.baddbmm(v_bias, hidden, v).tanh() * torch.baddbmm(u_bias, hidden, u).sigmoid()
    return torch.bmm(gate, w)


def pooled(logits: Tensor, attention: Tensor, inside: Tensor) -> Tensor:
    """Logits of fields whose cells lie in padded rows: `(fold, field, label)`.

    `logits` `(fold, field, cell, label)`, `attention` `(fold, field, cell, 1)`; `inside` bool
    `(fold, field, cell)` says which are cells, one at least in each field.
    """
    weight = attention.masked_fill(~inside[..., None], -torch.inf).softmax(2)
    return (weight * logits).sum(2)


def pooled_by(logits: Tensor, attention: Tensor, of: Tensor, fields: int) -> Tensor:
    """The same of cells in any order: `(fold, n, label)` and `(fold, n, 1)`, of fields `of` `(n,)`.

    A field without cells gets NaN.

    Examples
    --------
    >>> logits, alike = torch.tensor([[[1.0], [3.0], [8.0]]]), torch.zeros(1, 3, 1)
    >>> pooled_by(logits, alike, torch.tensor([0, 0, 1]), 2).flatten().tolist()
    [2.0, 8.0]
    """
    folds, _, labels = logits.shape
    total = logits.new_zeros(folds, fields, labels)
    weight = (attention - _by_field(attention, of, fields)[:, of]).exp()
    total = total.scatter_add(1, of[None, :, None].expand_as(logits), weight * logits)
    return total / total.new_zeros(folds, fields, 1).scatter_add(
        1, of[None, :, None].expand_as(weight), weight
    )


def _by_field(attention: Tensor, of: Tensor, fields: int) -> Tensor:
    """The highest of each field, `(fold, fields, 1)`."""
    lowest = attention.new_full((len(attention), fields, 1), -torch.inf)
    return lowest.scatter_reduce(1, of[None, :, None].expand_as(attention), attention, "amax")


def typical(logits: Tensor, attention: Tensor, of: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """What a fold's training fields, `train` bool `(fold, field)`, are like on average.

    The attention of a cell, log-mean-exp in its field: `(fold,)`; and the logits of a field:
    `(fold, label)`.
    """
    fields = train.shape[1]
    calls = pooled_by(logits, attention, of, fields)
    highest = _by_field(attention, of, fields)
    weight = (attention - highest[:, of]).exp()
    sums = torch.zeros_like(highest).scatter_add(1, of[None, :, None].expand_as(weight), weight)
    level = highest + (sums / of.bincount(minlength=fields)[:, None]).log()
    share = train / train.sum(1, keepdim=True)
    # Fields without cells are NaN, and in no fold's training.
    known = [torch.nan_to_num(part, 0, 0, 0) for part in (level, calls)]
    level, rest = (torch.einsum("kf,kfl->kl", share.to(part.dtype), part) for part in known)
    return level[:, 0], rest


def alone(logits: Tensor, attention: Tensor, level: Tensor, rest: Tensor) -> Tensor:
    """Logits of cells that stand for themselves, `(fold, n, label)`.

    A cell of the usual attention, `level` `(fold,)`, is half what its logit says and half what
    fields are called, `rest` `(fold, label)`.
    """
    return torch.lerp(rest[:, None], logits, (attention - level[:, None, None]).sigmoid())
