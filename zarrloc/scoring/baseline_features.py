"""Baselines that are features: brightness, which knows no pattern, the nucleus alone, and the
classic features that a network has to beat."""

import numpy as np
import numpy.typing as npt

from zarrloc.groups.embeddings import Samples, read_samples
from zarrloc.groups.fovs import Fovs, read_fovs
from zarrloc.models.backbones import CLASSIC
from zarrloc.scoring.baselines import intensity_statistics
from zarrloc.store.columns import read_column
from zarrloc.store.document import groups
from zarrloc.store.location import Location, StoreClock
from zarrloc.store.read import committed, need, stage_attrs

Array32 = npt.NDArray[np.float32]


def baseline_features(location: Location, samples: Samples) -> dict[str, Array32]:
    """Features of every row by title: intensity of all channels and of the nucleus, and classic.

    An embedding that saw each channel by itself (`replicate`) has the nucleus's own features, and
    those stand for it: what they score, the protein's pattern had no part in. Classic features are
    an embedding by `--backbone classic` of the same rows, where the store has one.
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
    if samples.stage.config.get("backbone") != CLASSIC and (name := _classic(location, samples)):
        found["classic features"] = np.nan_to_num(read_samples(location, name).features)
    return found


def without_classic(found: dict[str, Array32], samples: Samples) -> list[str]:
    """A note where the classic features' row is missing from a table."""
    if "classic features" in found or samples.stage.config.get("backbone") == CLASSIC:
        return []
    cells = f" --level cell --cells {samples.cells.split('/')[1]}" if samples.cells else ""
    return [
        "classic features are not in the table: "
        f"`zarrloc embed STORE --backbone classic{cells} --name classic` brings them in"
    ]


def _classic(location: Location, samples: Samples) -> str | None:
    """The name of an embedding of the same rows by classic features."""
    for path in sorted(groups(location)):
        group = committed(location, path) if path.startswith("embeddings/") else None
        if group is not None:
            stage = stage_attrs(group)
            same = stage.inputs == samples.stage.inputs
            whole = len(read_column(group, "error")) == len(samples.features)
            if stage.config.get("backbone") == CLASSIC and same and whole:
                return path.split("/")[1]
    return None


def _field_statistics(location: Location, fovs: Fovs, start: int, stop: int) -> Array32:
    block = read_fovs(location, start, stop, fovs.expect(start, stop), StoreClock())
    return np.stack(
        [
            intensity_statistics(image[:, : max(height, 1), : max(width, 1)])
            for image, height, width in zip(block.image, block.height, block.width, strict=True)
        ]
    )
