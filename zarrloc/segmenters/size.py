"""Cellpose's size model: the diameter of the objects from the style of an image."""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.errors import WeightsError
from zarrloc.store.digest import digest

SMALLEST_PX = 5.0


@dataclass(frozen=True)
class SizeModel:
    """A linear regression of log diameter on style, `(256,)`."""

    slope: npt.NDArray[np.float64]
    mean_style: npt.NDArray[np.float32]
    mean_log: float
    diam_mean: float

    def diameter_px(self, style: npt.NDArray[np.float32]) -> float:
        """Diameter of the objects in an image of `style`, at least 5 px; without one, the mean."""
        log = self.slope @ (style - self.mean_style) + np.log(self.diam_mean) + self.mean_log
        diameter = float(np.maximum(SMALLEST_PX, np.exp(log)))
        return self.diam_mean if np.isnan(diameter) else diameter

    def hash(self) -> str:
        """Hex digest of the numbers."""
        values = asdict(self)
        return hex(digest({name: np.asarray(value) for name, value in values.items()}))


def load(path: Path) -> SizeModel:
    """Read a Cellpose size model: a pickled dictionary in a .npy file, unpickled safely.

    Raises `WeightsError` for anything else than numbers and arrays under the expected names.
    """
    try:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            values = _Unpickler(file).load().item()
        return SizeModel(
            slope=np.asarray(values["A"], np.float64).ravel(),
            mean_style=np.asarray(values["smean"], np.float32).ravel(),
            mean_log=float(values["ymean"]),
            diam_mean=float(values["diam_mean"]),
        )
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{path} is no Cellpose size model ({error}); expected a .npy with A, smean, ymean "
            "and diam_mean, as size_cyto3.npy"
        ) from error


class _Unpickler(pickle.Unpickler):
    """Knows the constructors of numpy's arrays and scalars, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        allowed = {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return super().find_class(module, name)
