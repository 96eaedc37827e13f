"""Small stores of known truth, in the layout of the contract: square cells on a noisy field."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.written import write_group
from zarrloc.pixels import measure
from zarrloc.store.attrs import StageAttrs
from zarrloc.store.document import ensure_root
from zarrloc.store.location import Location

BACKGROUND = (500.0, 700.0)
LABELS = ("big_aggregates", "er", "golgi")


def make_field(
    cells: int, side: int = 96, seed: int = 0
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """Image (2, side, side) and mask: `cells` squares on a grid, brighter than the background."""
    rng = np.random.default_rng(seed)
    image = rng.poisson(np.array(BACKGROUND)[:, None, None], (2, side, side))
    mask = np.zeros((side, side), np.uint32)
    step = side // 3
    for label in range(1, cells + 1):
        y, x = divmod(label - 1, 3)
        top, left = y * step + int(rng.integers(0, 4)), x * step + int(rng.integers(0, 4))
        area = slice(top, top + step - 9), slice(left, left + step - 7)
        mask[area] = label
        image[0][area] += rng.poisson(900, image[0][area].shape)
        image[1][area] += rng.poisson(100 * label, image[1][area].shape)
    return image.astype(np.uint16), mask


def make_store(
    path: Path,
    *,
    cells: tuple[int, ...] = (4, 0, 6),
    side: int = 96,
    window_px: int = 256,
    pixel_size_um: float = 0.2063,
    grades: npt.NDArray[np.uint8] | None = None,
    errors: tuple[str, ...] = (),
    name: str = "cp",
) -> Path:
    """A store of `len(cells)` FOVs with segmentation and cell table `name`."""
    location = Location.of(path)
    ensure_root(location)
    n = len(cells)
    fields = [make_field(count, side, seed) for seed, count in enumerate(cells)]
    images = np.stack([image for image, _ in fields])
    masks = np.stack([mask for _, mask in fields])
    if grades is None:
        grades = np.tile(np.array([0, 3, 1], np.uint8), (n, 1))
    background = np.tile(np.float32(BACKGROUND), (n, 1))
    fovs = [f"FID{index:08d}" for index in range(n)]
    _write(
        location,
        "fovs",
        {
            "image": (("fov", "channel", "y", "x"), images),
            "background": (("fov", "channel"), background),
            "grade": (("fov", "label"), grades),
            "fov": (("fov",), np.array(fovs)),
            "channel": (("channel",), np.array(["nucleus", "protein"])),
            "label": (("label",), np.array(LABELS[: grades.shape[1]])),
            "protein": (("fov",), np.array([f"P{index // 2}" for index in range(n)])),
            "height": (("fov",), np.full(n, side)),
            "width": (("fov",), np.full(n, side)),
            "error": (("fov",), np.array(errors or [""] * n)),
        },
        pixel_size_um=pixel_size_um,
    )
    _write(
        location,
        f"segmentations/{name}",
        {
            "mask": (("fov", "y", "x"), masks),
            "cell_count": (("fov",), np.array(cells)),
            "error": (("fov",), np.array([""] * n)),
        },
    )
    tables = [
        measure.cells(image, mask, np.float32(BACKGROUND), window_px) for image, mask in fields
    ]
    table = {key: np.concatenate([part[key] for part in tables]) for key in tables[0]}
    table["fov_index"] = np.repeat(np.arange(n), cells)
    table["keep"] = measure.keep(table["blank_fraction"])
    _write(
        location,
        f"cells/{name}",
        {key: (column.dims, table[key]) for key, column in measure.COLUMNS.items()},
    )
    return path


def _write(
    location: Location,
    path: str,
    arrays: dict[str, tuple[tuple[str, ...], npt.NDArray[Any]]],
    **attrs: Any,
) -> None:
    settings: dict[str, Any] = {}
    if path == "fovs":
        height, width = arrays["image"][1].shape[2:]
        settings = {"height": height, "width": width, "dtype": "uint16"}
    stage = StageAttrs.of("ingest" if path == "fovs" else "segment", settings, {})
    attrs["zarrloc"] = stage.model_dump()
    coords = ("fov", "channel", "label", "protein", "height", "width", "error")
    write_group(location, path, arrays, attrs=attrs, coords=coords)
