"""From the cells of a field to the field: a mean, or a mean weighted by gated attention.

A field is called by the weighted mean of its cells' logits, one set of weights a label. So the
classifier of fields is one of cells, too, though only fields were labelled (Ilse et al. 2018,
"Attention-based Deep Multiple Instance Learning", eq. 7 to 9; Javed et al. 2022, "Additive MIL",
for the order of classifying and pooling).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def gated(hidden: Tensor, gates: Sequence[Tensor]) -> Tensor:
    """How much each cell is to count, before the softmax over a field's: `(fold, n, label)`.

    `hidden` `(fold, n, h)`; `gates`: v and u `(fold, h, d)`, their biases
    `(fold, 1, d)`, w `(fold, d, label)`.
    """
    v, v_bias, u, u_bias, w = gates
    gate = torch.baddbmm(v_bias, hidden, v).tanh() * torch.baddbmm(u_bias, hidden, u).sigmoid()
    return torch.bmm(gate, w)


def pooled(logits: Tensor, attention: Tensor, inside: Tensor) -> Tensor:
    """Logits of fields whose cells lie in padded rows: `(fold, field, label)`.

    `logits` and `attention` `(fold, field, cell, label)`; `inside` bool `(fold, field, cell)` says
    which are cells, one at least in each field.
    """
    weight = attention.masked_fill(~inside[..., None], -torch.inf).softmax(2)
    return (weight * logits).sum(2)


def pooled_by(logits: Tensor, attention: Tensor, of: Tensor, fields: int) -> Tensor:
    """The same of cells in any order: `(fold, n, label)` of `of` `(n,)` fields; NaN without cells.

    Examples
    --------
    >>> logits, alike = torch.tensor([[[1.0], [3.0], [8.0]]]), torch.zeros(1, 3, 1)
    >>> pooled_by(logits, alike, torch.tensor([0, 0, 1]), 2).flatten().tolist()
    [2.0, 8.0]
    """
    folds, _, labels = logits.shape
    where = of[None, :, None].expand_as(attention)
    highest = attention.new_full((folds, fields, labels), -torch.inf)
    highest = highest.scatter_reduce(1, where, attention, "amax")
    weight = (attention - highest.gather(1, where)).exp()
    nothing = torch.zeros_like(highest)
    return nothing.scatter_add(1, where, weight * logits) / nothing.scatter_add(1, where, weight)
