"""Is it still learning? Numbers that fall when training collapses or undoes its start."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zarrloc.pretraining.augment import resample
from zarrloc.pretraining.data import Rows, Source, pixels
from zarrloc.pretraining.inputs import Inputs
from zarrloc.pretraining.objective import Network, Objective
from zarrloc.scoring.knn import neighbours, vote
from zarrloc.scoring.metrics import counts, f1_of, macro, truth_of

NEIGHBOURS = 20
WORSE_BY = 0.01
"""Macro-F1 that may be lost to chance before a run counts as worse than its start."""
LEAST_SPREAD = 0.01
"""Share of the start's spread; by benchmarks/guard.py, it separates runs that lose what their start
knew from all others."""
LEAST_RANK = 2.0


@dataclass(frozen=True)
class Health:
    """The teacher at one step."""

    step: int
    knn_macro_f1: float | None
    """On the probe, neighbours of the sample's own protein left out; None where no label can be
    found so."""
    spread: float
    """Share of the features' squared length by which images differ: 0 where all look alike."""
    effective_rank: float
    teacher_entropy: float | None
    """Mean entropy of the teacher's output as a share of its largest, log k; None where the
    objective has no such output."""
    information: float | None
    """Nats the output tells about the image: entropy of the mean output less the mean entropy.

    Near 0 for long in runs whose neighbours improve: by itself it says nothing of collapse.
    """

    def as_dict(self) -> dict[str, Any]:
        """The values, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        f1 = "not measurable" if self.knn_macro_f1 is None else f"{self.knn_macro_f1:.3f}"
        text = (
            f"kNN macro-F1 {f1}, spread {self.spread:.2g}, effective rank {self.effective_rank:.1f}"
        )
        if self.teacher_entropy is None or self.information is None:
            return text
        return (
            f"{text}, teacher entropy {self.teacher_entropy:.3f}, "
            f"information {self.information:.2f} nats"
        )


def effective_rank(embeddings: npt.NDArray[np.floating[Any]]) -> float:
    """exp of the entropy of centred rows' normalised singular values (Roy & Vetterli 2007)."""
    values = np.linalg.svd(embeddings - embeddings.mean(0), compute_uv=False).astype(np.float64)
    share = values / max(values.sum(), np.finfo(np.float64).tiny)
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-300))).sum()))


def spread(embeddings: npt.NDArray[np.floating[Any]]) -> float:
    """Variance between rows `(n, f)` as a share of their mean squared length, 0 to 1."""
    rows = embeddings.astype(np.float64)
    length = np.square(rows).sum(1).mean()
    return float(np.square(rows - rows.mean(0)).sum(1).mean() / max(length, 1e-300))


def knn_macro_f1(
    embeddings: npt.NDArray[np.float32],
    grade: npt.NDArray[np.uint8],
    protein: npt.NDArray[Any],
) -> float | None:
    """Leave-one-out kNN macro-F1 without the own protein's rows; one without a name stands alone.

    Labels that only one protein shows are left out: none of its neighbours could vote for them.
    None where no label is left.
    """
    truth = truth_of(grade)
    labelled = truth.labelled
    names = np.where(
        protein == "", np.char.add("row ", np.arange(len(protein)).astype(str)), protein
    )
    truth, names = truth[labelled], names[labelled]
    shared = [len(np.unique(names[column])) > 1 for column in truth.positive.T]
    if not any(shared):
        return None
    found = neighbours(embeddings[labelled], NEIGHBOURS, [names])[1]
    called = vote(found, truth, NEIGHBOURS) >= 0.5
    return float(macro(f1_of(counts(truth, called).sum(axis=0))[shared]))


def unmeasurable(grade: npt.NDArray[np.uint8], protein: npt.NDArray[Any]) -> str:
    """Why `knn_macro_f1` is None."""
    if not truth_of(grade).labelled.any():
        return "the samples have no labels"
    return f"no label is shown by two proteins or more, among {len(np.unique(protein))}"


def whole_images(source: Source, rows: Rows, size: int) -> Tensor:
    """Samples `rows` unaugmented, `(n, c, size, size)` in [0, 1], float16 to be kept."""
    images = []
    for shard in np.unique(source.shard[rows]):
        mine = rows[source.shard[rows] == shard]
        batch = pixels(source.load(mine), source.extents[mine])
        whole = torch.eye(3).expand(len(mine), -1, -1)
        images.append(resample(batch.unit(), batch.extents, whole, size).half())
    order = np.argsort(np.argsort(source.shard[rows], kind="stable"))
    return torch.cat(images)[torch.from_numpy(order)]


@dataclass(frozen=True)
class Guard:
    """A fixed part of the training samples, on which the teacher is looked at."""

    images: Tensor
    grade: npt.NDArray[np.uint8]
    protein: npt.NDArray[Any]
    inputs: Inputs

    def check(self, teacher: Network, objective: Objective, step: int, batch: int = 32) -> Health:
        """The teacher's health now."""
        embeddings = []
        total, entropy = torch.zeros(1), 0.0  # total: (pass, k)
        for features, outputs in self._outputs(teacher, objective, batch):
            embeddings.append(features)
            total = total + outputs.sum(1)
            entropy += float(_entropy(outputs).mean(0).sum()) / len(self.images)
        # Weights that are no numbers give features that are all the same.
        found = torch.cat(embeddings).nan_to_num().numpy()
        width = total.shape[-1]
        information = float(_entropy(total / len(self.images)).mean()) - entropy
        return Health(
            step,
            knn_macro_f1(found, self.grade, self.protein),
            spread(found),
            effective_rank(found),
            entropy / float(np.log(width)) if width > 1 else None,
            information if width > 1 else None,
        )

    @torch.no_grad()
    def _outputs(
        self, teacher: Network, objective: Objective, batch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Features `(n, pass x feature)` and probabilities `(pass, n, k)`, a batch at a time.

        An objective that has no such output gives one that is always 1.
        """
        device = next(teacher.parameters()).device
        for images in torch.split(self.images, batch):
            views = self.inputs.passes(images.to(device).float())
            features = torch.stack([teacher.backbone(view) for view in views])
            outputs = objective.probabilities(teacher, features.flatten(0, 1))
            if outputs is None:
                outputs = torch.ones(features.shape[0] * features.shape[1], 1)
            apart = outputs.cpu().unflatten(0, features.shape[:2])  # type: ignore[no-untyped-call]
            yield features.transpose(0, 1).flatten(1).cpu(), apart.nan_to_num()


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp(min=1e-300).log()).sum(-1)


def collapse(start: Health, now: Health) -> str | None:
    """A message if all images have come to look alike to the teacher, else None."""
    if (
        now.spread >= LEAST_SPREAD * start.spread
        # A few samples span little from the start.
        and now.effective_rank >= min(LEAST_RANK, start.effective_rank)
    ):
        return None
    return (
        f"COLLAPSE at step {now.step}: all images look alike to the teacher "
        f"({now}; at the start: {start}). Lower --learning-rate, or raise --batch, "
        "or --momentum where there is a teacher."
    )


def worse(start: Health, now: Health) -> str | None:
    """A message if neighbours have become worse than at the start, else None."""
    if (
        start.knn_macro_f1 is None
        or now.knn_macro_f1 is None
        or now.knn_macro_f1 >= start.knn_macro_f1 - WORSE_BY
    ):
        return None
    return (
        f"WORSE THAN ITS START at step {now.step}: kNN macro-F1 {start.knn_macro_f1:.3f} -> "
        f"{now.knn_macro_f1:.3f}. Use the start, or train with more data or a lower "
        "--learning-rate."
    )
