"""What a score must be held against: chance, brightness, and the answer given away by siblings."""

from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.scoring.metrics import Truth

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def permuted(truth: Truth, seed: int) -> Truth:
    """The labels permuted among the rows: what their frequencies alone would score."""
    return truth[np.random.default_rng(seed).permutation(len(truth.known))]


def intensity_statistics(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Mean, sd and percentiles of each channel: `(channel, y, x)` -> float32 `(channel, 9)`.

    Of every second pixel each way: a quarter of the pixels says the same in a quarter of the time.
    """
    pixels = image[:, ::2, ::2].reshape(len(image), -1).astype(np.float32)
    percentiles = np.percentile(pixels, PERCENTILES, axis=1).T
    return np.column_stack([pixels.mean(1), pixels.std(1), percentiles]).astype(np.float32)


def siblings_in_training(
    truth: Truth, protein: npt.NDArray[Any], train: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Look up the labels of a row's protein among the training rows: float32 `(fold, n, label)`.

    `train` bool `(fold, n)`. All siblings share their labels, so the nearest one tells what any
    does. 0 where no sibling is there: under a split grouped by protein, everywhere.
    """
    _, code = np.unique(protein, return_inverse=True)
    found = np.zeros((len(train), *truth.positive.shape), np.float32)
    for rows, out in zip(train, found, strict=True):
        known = np.zeros((code.max() + 1, truth.positive.shape[1]), np.float32)
        np.maximum.at(known, code[rows], truth.positive[rows].astype(np.float32))
        out[:] = known[code]
    return found


def siblings_elsewhere(
    truth: Truth, protein: npt.NDArray[Any], fov: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """The same among rows of other fields, float32 `(n, label)`: what leave-one-out leaks."""
    _, by_protein = np.unique(protein, return_inverse=True)
    _, by_fov = np.unique(fov, return_inverse=True)
    positive = truth.positive.astype(np.int64)
    in_protein = np.zeros((by_protein.max() + 1, positive.shape[1]), np.int64)
    in_fov = np.zeros((by_fov.max() + 1, positive.shape[1]), np.int64)
    np.add.at(in_protein, by_protein, positive)
    np.add.at(in_fov, by_fov, positive)
    return (in_protein[by_protein] > in_fov[by_fov]).astype(np.float32)
