"""Split: the fields of a store dealt into folds and a test set, in `splits/<name>`."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.config.split import SplitConfig
from zarrloc.engine.plan import Before, Plan, carry_out
from zarrloc.errors import ConfigError
from zarrloc.groups.embeddings import proteins_of, read_labels, read_text
from zarrloc.groups.splits import Leakage, read_fold
from zarrloc.scoring.metrics import truth_of
from zarrloc.scoring.splits import leakage_of, make_folds
from zarrloc.store.attrs import StageAttrs, check_name
from zarrloc.store.location import Location
from zarrloc.store.read import need, stage_attrs


@dataclass(frozen=True)
class SplitSummary:
    """What was written, and what it lets through."""

    path: str
    fold: npt.NDArray[np.int8]
    leakage: Leakage
    group: str
    unlabelled: int
    made: bool
    exit_code: int = 0

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.path}: grouped by {self.group}{'' if self.made else ' (was there already)'}"
        ]
        told += [
            f"  {'test' if part.fold < 0 else f'fold {part.fold}'}: {part.fields} fields of "
            f"{part.proteins} proteins, {part.shared_proteins} of them also "
            f"{'in the folds' if part.fold < 0 else 'in other folds'}"
            for part in self.leakage.parts
        ]
        told.append(
            f"  leakage: {self.leakage.sibling_share:.1%} of the fields have a field of the same "
            "protein on the other side"
        )
        if self.leakage.thin_labels:
            thin = ", ".join(f"{label} ({n})" for label, n in self.leakage.thin_labels.items())
            told.append(f"  labels with fewer than two proteins in some fold: {thin}")
        if self.unlabelled:
            told.append(f"  {self.unlabelled} fields have no label")
        return told


def split(
    store: str | Path | Location,
    config: SplitConfig,
    name: str,
    *,
    overwrite: bool = False,
) -> SplitSummary:
    """Write `splits/<name>`: `fold (fov)` int8, -1 the test set.

    Stratified over grade-3 labels. Raises `ConfigError` for a grouping the fields don't have or
    another split of that name, `StoreError` where there are no fields.
    """
    location, path = Location.of(store), f"splits/{check_name(name)}"
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    fov, protein, labels = read_text(fovs, "fov"), proteins_of(fovs), read_labels(fovs)
    positive = truth_of(labels.grade).positive
    inputs = {"fovs": stage_attrs(fovs).fingerprint}
    wanted = StageAttrs.of("split", config.model_dump(), inputs)

    def make(before: Before) -> Plan:
        if before.attrs is not None:
            return Plan(wanted, {})
        fold = make_folds(
            positive, _groups(fovs, config.group), protein,
            folds=config.folds, test=config.test, seed=config.seed,
        )  # fmt: skip
        leakage = leakage_of(fold, positive, protein, labels.names)
        arrays = {"fold": (("fov",), fold), "fov": (("fov",), fov)}
        return Plan.whole(wanted, arrays, coordinates=["fov"], leakage=asdict(leakage))

    made = carry_out(location, path, make, overwrite=overwrite).made
    fold = read_fold(location, name)
    return SplitSummary(
        path,
        fold,
        leakage_of(fold, positive, protein, labels.names),
        config.group,
        int((~(labels.grade > 0).any(axis=1)).sum()),
        made,
    )


def _groups(fovs: zarr.Group, by: str) -> npt.NDArray[np.str_]:
    """What a field must not be parted from."""
    fov = read_text(fovs, "fov")
    if by == "image":
        return np.arange(len(fov)).astype(str)
    if by == "protein":
        return proteins_of(fovs)
    texts = [
        n for n, array in fovs.arrays() if array.dtype.kind == "T" and array.shape == fov.shape
    ]
    if by not in texts:
        raise ConfigError(
            f"no coordinate '{by}' along the fields; --group takes image, "
            f"{', '.join(sorted({*texts} - {'error', 'source'}))}"
        )
    return read_text(fovs, by)
