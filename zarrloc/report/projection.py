"""The embedding on a plane, by UMAP."""

import numpy as np
import numpy.typing as npt

from zarrloc.config.report import ReportConfig

COMPONENTS = 50
"""Wider embeddings are reduced to these principal components first: it costs UMAP nothing that a
map could show, and spares it most of the time and memory at 160,000 x 768."""
FEW = 4
"""UMAP makes nothing of so few rows: they lie on their own first two principal components."""


def project(features: npt.NDArray[np.float32], config: ReportConfig) -> npt.NDArray[np.float32]:
    """Finite `features` `(n, f)` as points `(n, 2)`; equal for equal seeds.

    Cosine distances, as the neighbours of the paper's section 2.6.2.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    if len(unit) <= FEW:
        left, size, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
        plane = (left * size)[:, :2]
        return np.pad(plane, ((0, 0), (0, 2 - plane.shape[1]))).astype(np.float32)
    if min(unit.shape) > COMPONENTS:
        from sklearn.decomposition import PCA

        unit = PCA(COMPONENTS, random_state=config.seed).fit_transform(unit)
    import umap

    mapper = umap.UMAP(
        n_neighbors=min(config.umap_neighbours, len(unit) - 1),
        min_dist=config.umap_min_dist,
        metric="cosine",
        random_state=config.seed,
        n_jobs=1,  # a seed allows no more; said here, or umap warns
    )
    return np.asarray(mapper.fit_transform(unit), dtype=np.float32)
