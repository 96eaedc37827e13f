"""Baselines that are features: brightness, which knows no pattern, and the nucleus alone."""

import numpy as np
import numpy.typing as npt

from zarrloc.groups.embeddings import Samples
from zarrloc.groups.fovs import Fovs, read_fovs
from zarrloc.scoring.baselines import intensity_statistics
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.read import need

Array32 = npt.NDArray[np.float32]


def baseline_features(location: Location, samples: Samples) -> dict[str, Array32]:
    """Intensity statistics of every row: of all channels, and of the nucleus alone.

    An embedding that saw each channel by itself (`replicate`) has the nucleus's own features, and
    those stand for it: what they score, the protein's pattern had no part in.
    """
    fovs = Fovs.of(location)
    if samples.cells is not None:
        table = need(location, samples.cells, "segment STORE")
        names = ("mean", "sd", "p5", "p50", "p95")
        columns = [read_column(table, f"intensity_{name}") for name in names]
        statistics = np.stack(columns, axis=-1).astype(np.float32)
    else:
        statistics = np.concatenate(
            [
                _field_statistics(location, fovs, start, min(start + fovs.shard, fovs.rows))
                for start in range(0, fovs.rows, fovs.shard)
            ]
        )
    statistics = np.nan_to_num(statistics)
    found = {"intensity statistics": statistics.reshape(len(statistics), -1)}
    if "nucleus" in fovs.roles:
        nucleus = fovs.roles.index("nucleus")
        found["nucleus channel only, intensity"] = statistics[:, nucleus]
        if samples.stage.config.get("channels") == "replicate":
            parts = np.split(samples.features, len(fovs.roles), axis=1)
            found["nucleus channel only, embedded"] = parts[nucleus]
    return found


def _field_statistics(location: Location, fovs: Fovs, start: int, stop: int) -> Array32:
    block = read_fovs(location, start, stop, fovs.expect(start, stop), StoreClock())
    return np.stack(
        [
            intensity_statistics(image[:, : max(height, 1), : max(width, 1)])
            for image, height, width in zip(block.image, block.height, block.width, strict=True)
        ]
    )
