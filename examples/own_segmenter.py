"""A segmenter of your own: any function of one field, mapped over shards, resumable like the rest.

python examples/own_segmenter.py [STORE]
"""

import sys

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu

import zarrloc


def nuclei_by_otsu(image: np.ndarray, roles: tuple[str, ...]) -> np.ndarray:
    """`image` (channel, y, x) and its roles -> mask (y, x): 0 background, 1..n objects."""
    nucleus = gaussian(image[roles.index("nucleus")].astype(float), 2)
    mask, _ = ndimage.label(nucleus > threshold_otsu(nucleus))
    return mask


if __name__ == "__main__":  # workers are spawned, and import this file
    store = sys.argv[1] if len(sys.argv) > 1 else "demo/demo.zarr"
    result = zarrloc.segment(store, name="otsu", function=nuclei_by_otsu, dashboard=":0")
    print(*result.notes, sep="\n")
