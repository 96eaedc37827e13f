"""A labelled folder to try `learn.py` on: simulated cells, a folder a class, plates in their names.

    python examples/own_data/simulated.py cells
    python examples/own_data/learn.py cells --channels nucleus,protein --group-from 'protein(\\d+)'

Each file is one cell, 96 px, nucleus and protein; its name says which of 60 proteins it shows. All
cells of a protein have its brightness, grain and background: an image's siblings give it away.
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from zarrloc.simulate import Protein, simulate_fov

CLASSES = ("golgi", "er", "vesicles", "nucleoplasm", "cytoskeleton", "membrane")
SIDE, FIELD = 96, 360


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--proteins", type=int, default=10, help="of each class")
    given = parser.parse_args()
    for number in range(given.proteins * len(CLASSES)):
        kind = CLASSES[number % len(CLASSES)]
        drawn = Protein.draw(np.random.default_rng(number))
        field = simulate_fov({kind: 3}, shape=(FIELD, FIELD), protein=drawn, seed=number)
        (given.folder / kind).mkdir(parents=True, exist_ok=True)
        numbers = np.unique(field.nuclei[field.nuclei > 0])
        centres = ndimage.center_of_mass(field.nuclei > 0, field.nuclei, numbers)
        for cell, (y, x) in zip(numbers, centres, strict=True):
            top, left = round(y) - SIDE // 2, round(x) - SIDE // 2
            if min(top, left) < 0 or max(top, left) + SIDE > FIELD:
                continue  # reaches over the edge
            tifffile.imwrite(
                given.folder / kind / f"protein{number:03d}_cell{cell:02d}.tif",
                field.image[:, top : top + SIDE, left : left + SIDE],
                photometric="minisblack",
                metadata={"axes": "CYX"},
            )


if __name__ == "__main__":
    main()
