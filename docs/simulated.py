"""Draws docs/simulated.png: one simulated field a label, protein white, nuclei blue.

python docs/simulated.py
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from zarrloc.simulate import LABELS, Protein, simulate_fov

TILE_PX = 216
COLUMNS = 6


def scaled(channel: npt.NDArray[np.uint16], low: float, high: float) -> npt.NDArray[np.float64]:
    """0 at the `low` percentile, 1 at the `high` one."""
    dark, bright = np.percentile(channel, [low, high])
    return np.asarray(np.clip((channel - dark) / (bright - dark), 0, 1))


def tile(grades: dict[str, int], seed: int) -> npt.NDArray[np.uint8]:
    """A field without stray cells, `(y, x, 3)`, with its labels' names and a white border."""
    protein = Protein(diffuse=0.04)
    fovs = (
        simulate_fov(grades, shape=(TILE_PX, TILE_PX), protein=protein, seed=100 * seed + more)
        for more in range(100)
    )
    image = next(fov.image for fov in fovs if all(shown == grades for shown in fov.grades.values()))
    nucleus = scaled(image[0], 2, 99.8)[..., None] * np.array([0.15, 0.25, 0.75])
    tagged = scaled(image[1], 2, 99.7)[..., None] ** 0.8
    picture = Image.fromarray((255 * np.clip(0.6 * nucleus + tagged, 0, 1)).astype(np.uint8))
    ImageDraw.Draw(picture).text(
        (6, 4), " + ".join(grades), fill="white", font_size=14, stroke_width=2, stroke_fill="black"
    )
    return np.pad(np.asarray(picture), ((0, 4), (0, 4), (0, 0)), constant_values=255)


def main() -> None:
    """All labels, in rows of six."""
    shown = [*({label: 3} for label in LABELS), {"nucleoplasm": 3, "vesicles": 2}]
    tiles = [tile(grades, seed) for seed, grades in enumerate(shown, start=1)]
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    picture = Image.fromarray(np.vstack(rows)[:-4, :-4])
    # An adaptive palette keeps the file small enough for a README.
    picture.quantize(64, dither=Image.Dither.NONE).save(
        Path(__file__).with_suffix(".png"), optimize=True
    )


if __name__ == "__main__":
    main()
