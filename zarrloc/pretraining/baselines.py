"""What the guard's figure is to be held against: chance, brightness, and classic features."""

import numpy as np
import numpy.typing as npt

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.groups.embeddings import read_samples
from zarrloc.models.backbones import CLASSIC
from zarrloc.pretraining.data import Rows, Source
from zarrloc.pretraining.guard import knn_macro_f1
from zarrloc.pretraining.samples import Data
from zarrloc.scoring.baselines import intensity_statistics
from zarrloc.store.columns import read_column
from zarrloc.store.document import groups
from zarrloc.store.location import Location
from zarrloc.store.read import committed, need, stage_attrs

Array32 = npt.NDArray[np.float32]


def neighbour_baselines(
    location: Location, config: PretrainConfig, data: Data, rows: Rows
) -> dict[str, float | None]:
    """What `knn_macro_f1` finds on samples `rows` without a network, by title.

    Classic features are of an embedding by `--backbone classic`, where the store has one of these
    samples. None where no label can be found so.
    """
    grade, protein = data.grade[rows], data.protein[rows]
    brightness = standardised(brightness_of(data.source, rows))
    found = {
        "permuted labels": knn_macro_f1(brightness, dealt(grade, config.seed), protein),
        "intensity statistics": knn_macro_f1(brightness, grade, protein),
    }
    classic = None if config.also else _classic(location, config, data, rows)
    if classic is not None:
        found["classic features"] = knn_macro_f1(standardised(classic), grade, protein)
    return found


def dealt(grade: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """The same answers `(n, label)`, each given to another sample."""
    return grade[np.random.default_rng(seed).permutation(len(grade))]


def standardised(features: Array32) -> Array32:
    """Features `(n, f)` of units of their own, each with mean 0 and sd 1."""
    sd = features.std(0)
    found: Array32 = (features - features.mean(0)) / np.where(sd > 0, sd, 1)
    return found


def brightness_of(source: Source, rows: Rows) -> Array32:
    """Intensity statistics of samples `rows`, `(n, channel * 9)`, of their real pixels."""
    found: dict[int, npt.NDArray[np.float32]] = {}
    for shard in np.unique(source.shard[rows]):
        mine = rows[source.shard[rows] == shard]
        for row, image in zip(mine.tolist(), source.load(mine), strict=True):
            height, width = source.extents[row]
            found[row] = intensity_statistics(image[:, :height, :width]).ravel()
    return np.stack([found[row] for row in rows.tolist()])


def _classic(location: Location, config: PretrainConfig, data: Data, rows: Rows) -> Array32 | None:
    """Classic features `(n, f)` of samples `rows`, where all have some."""
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    for path in sorted(groups(location)):
        group = committed(location, path) if path.startswith("embeddings/") else None
        given = {} if group is None else stage_attrs(group).config
        if group is None or (given.get("backbone"), given.get("level")) != (CLASSIC, config.level):
            continue
        if config.level == "cell" and given.get("cells") != config.cells:
            continue
        wanted, held = data.source.stored[rows], len(read_column(group, "error"))
        if config.level == "fov" and held != len(read_column(fovs, "fov")):
            continue  # of before the last ingest
        if wanted.max() < held:
            features = read_samples(location, path.split("/")[1]).features[wanted]
            if np.isfinite(features).all():
                return features
    return None
