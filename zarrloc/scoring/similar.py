"""Which groups of rows look alike: proteins, by the mean of their fields' embeddings."""

import numpy as np
import numpy.typing as npt


def group_means(
    features: npt.NDArray[np.float32], groups: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    """Names of the groups, sorted, and their centred mean directions, float64 `(group, f)`.

    Each feature is standardised over all rows, each group's mean is taken, the mean of the groups'
    means comes off, and what remains has length 1: so a product of two is the cosine of how each
    differs from the average group. Rows with a NaN are left out.
    """
    finite = np.isfinite(features).all(axis=1)
    x, names = features[finite].astype(np.float64), groups[finite]
    scale = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1)
    found, code, size = np.unique(names, return_inverse=True, return_counts=True)
    sums = np.zeros((len(found), x.shape[1]))
    np.add.at(sums, code, x)
    means = sums / size[:, None]
    means -= means.mean(axis=0)
    length = np.linalg.norm(means, axis=1, keepdims=True)
    return found, means / np.where(length > 0, length, 1)


def own_similarity(
    features: npt.NDArray[np.float32], groups: npt.NDArray[np.str_]
) -> npt.NDArray[np.float64]:
    """Cosine of each row to the mean of the other rows of its group, float64 `(n,)`.

    Rows are standardised as in `group_means`. NaN for a row with a NaN, and where a group has
    fewer than two other rows.
    """
    finite = np.isfinite(features).all(axis=1)
    x = features[finite].astype(np.float64)
    scale = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1)
    _, code, size = np.unique(groups[finite], return_inverse=True, return_counts=True)
    sums = np.zeros((len(size), x.shape[1]))
    np.add.at(sums, code, x)
    others = sums[code] - x
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(others, axis=1)
    cosine = (x * others).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    cosine[size[code] < 3] = np.nan
    result = np.full(len(features), np.nan)
    result[finite] = cosine
    return result
