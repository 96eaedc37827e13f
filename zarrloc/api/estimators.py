"""Heads and nearest neighbours as scikit-learn estimators: `fit`, `predict`, `predict_proba`."""

from abc import ABC, abstractmethod
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.config.train import HeadConfig
from zarrloc.scoring.metrics import Truth

_HEAD = HeadConfig()
_TEMPERATURE: float = EvaluateConfig.model_fields["temperature"].default

BLOCK_ROWS = 1024
"""Rows whose similarities to all training rows are held at once."""


class _Labels(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """One label a row (any values), or several (a 0/1 matrix `(n, label)`)."""

    classes_: npt.NDArray[Any]
    multilabel_: bool

    def _truth(self, y: Any) -> Truth:
        """`y` as positives `(n, label)`, all known; notes what the labels are."""
        kind = type_of_target(y, raise_unknown=True)
        if kind == "multilabel-indicator":
            positive = np.asarray(y.toarray() if hasattr(y, "toarray") else y, bool)
            self.classes_ = np.arange(positive.shape[1])
        elif kind in ("binary", "multiclass"):
            self.classes_, code = np.unique(column_or_1d(y, warn=True), return_inverse=True)
            positive = code[:, None] == np.arange(len(self.classes_))
        else:
            raise ValueError(
                f"Unknown label type: y is {kind}; expected one label a row, or a 0/1 matrix "
                "(n, label)"
            )
        self.multilabel_ = kind == "multilabel-indicator"
        if positive.shape[1] < 2:
            raise ValueError(f"Classifier can't train when only one class is present: {y[:1]}")
        return Truth(positive, np.ones_like(positive))

    @abstractmethod
    def _score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
        """Of each label, `(n, label)`, before it is cut to 0 to 1."""

    def predict_proba(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Probability of each label, `(n, label)`; a row sums to 1 where it has one label.

        Parameters
        ----------
        X
            Features `(n, f)`.
        """
        check_is_fitted(self, "classes_")
        x = validate_data(self, X, dtype=np.float32, reset=False)
        score = np.clip(self._score(x), 0, 1)
        if self.multilabel_:
            return np.asarray(score)
        total = score.sum(axis=1, keepdims=True)
        share = np.full(score.shape, 1 / score.shape[1], score.dtype)
        return np.asarray(np.divide(score, total, out=share, where=total > 0))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The likeliest label of each row `(n,)`; of several labels, those from 0.5 `(n, label)`.

        Parameters
        ----------
        X
            Features `(n, f)`.
        """
        probability = self.predict_proba(X)
        if self.multilabel_:
            return (probability >= 0.5).astype(int)
        return np.asarray(self.classes_[probability.argmax(axis=1)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class HeadClassifier(_Labels):
    """zarrloc's classification head (paper, section 2.6.1): an MLP on standardised features.

    Rows are drawn by how rare their rarest label is, so that rare labels are learned too.

    Parameters
    ----------
    hidden
        Widths of the hidden layers; `()` is a linear probe.
    dropout, lr, weight_decay, epochs, batch
        As in `TrainConfig`.
    random_state
        Seed of weights, samples and dropout.
    device
        Where torch computes.

    Attributes
    ----------
    classes_
        The labels, or their columns' numbers.
    heads_
        The trained weights, as `zarrloc train` stores them, of one fold.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrloc import HeadClassifier
    >>> x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    >>> y = np.where(x[:, 0] > 0, "er", "golgi")
    >>> head = HeadClassifier(hidden=(), lr=0.05, epochs=200).fit(x, y)
    >>> bool(head.score(x, y) > 0.9)
    True
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = _HEAD.hidden,
        dropout: float = _HEAD.dropout,
        lr: float = _HEAD.lr,
        weight_decay: float = _HEAD.weight_decay,
        epochs: int | None = _HEAD.epochs,
        batch: int = _HEAD.batch,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch = batch
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Train on features `(n, f)` and labels: `(n,)` one a row, or `(n, label)` of 0 and 1."""
        from zarrloc.scoring.heads import train_heads

        config = HeadConfig(
            hidden=tuple(self.hidden), dropout=self.dropout, lr=self.lr,
            weight_decay=self.weight_decay, epochs=self.epochs, batch=self.batch,
            seed=self.random_state, precision="fp32",
        )  # fmt: skip
        x = validate_data(self, X, dtype=np.float32)
        truth = self._truth(y)
        if len(truth.positive) != len(x):
            raise ValueError(f"X has {len(x)} rows and y {len(truth.positive)}")
        rows = np.ones((1, len(x)), bool)
        self.heads_ = train_heads(x, truth, rows, config, device=self.device)
        return self

    def _score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
        return np.asarray(self.heads_.probability(x, self.device)[0])


class NeighbourClassifier(_Labels):
    """Soft votes of the nearest rows by cosine (paper, section 2.6.2, equation 4).

    A neighbour of similarity s weighs exp(s / temperature).

    Parameters
    ----------
    n_neighbors
        How many vote.
    temperature
        Of the votes.
    norm
        `sum` divides by the weights of those who vote, `max` by the row's largest score.

    Examples
    --------
    >>> import numpy as np
    >>> from zarrloc import NeighbourClassifier
    >>> x = np.eye(4, dtype="float32")[[0, 0, 1, 1]]
    >>> near = NeighbourClassifier(n_neighbors=1).fit(x, ["er", "er", "golgi", "golgi"])
    >>> near.predict(x[1:3]).tolist()
    ['er', 'golgi']
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        temperature: float = _TEMPERATURE,
        norm: Literal["sum", "max"] = "sum",
    ) -> None:
        self.n_neighbors = n_neighbors
        self.temperature = temperature
        self.norm = norm

    def fit(self, X: Any, y: Any) -> Self:
        """Remember features `(n, f)` and labels: `(n,)` one a row, or `(n, label)` of 0 and 1."""
        x = validate_data(self, X, dtype=np.float32)
        self.truth_ = self._truth(y)
        if len(self.truth_.positive) != len(x):
            raise ValueError(f"X has {len(x)} rows and y {len(self.truth_.positive)}")
        if not self.n_neighbors >= 1:
            raise ValueError(f"n_neighbors is {self.n_neighbors}; expected at least 1")
        self.unit_ = _unit(x)
        return self

    def _score(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating[Any]]:
        from zarrloc.scoring.knn import Neighbours, vote

        k = min(self.n_neighbors, len(self.unit_))
        parts = []
        for start in range(0, len(x), BLOCK_ROWS):
            similarity = _unit(x[start : start + BLOCK_ROWS]) @ self.unit_.T
            index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
            found = Neighbours(np.take_along_axis(similarity, index, axis=1), index)
            parts.append(vote(found, self.truth_, k, self.temperature, self.norm))
        return np.concatenate(parts)


def _unit(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(length, 1e-12), np.float32)
