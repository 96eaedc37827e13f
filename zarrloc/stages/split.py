"""Split: the fields of a store dealt into folds and a test set, in `splits/<name>`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from zarrloc.config.split import FOLDS, SplitConfig
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import AnyPlan, Before, Plan
from zarrloc.groups.embeddings import group_of, read_labels, read_text, siblings_of
from zarrloc.groups.splits import Leakage, read_fold
from zarrloc.scoring.evaluation import from_one_group
from zarrloc.scoring.metrics import truth_of
from zarrloc.scoring.splits import folds_that_fit, leakage_of, make_folds
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
    alone: tuple[str, ...] = ()
    """Labels that only one group shows."""
    exit_code: int = 0

    def lines(self) -> list[str]:
        """What was done, as lines of text."""
        lines = [
            f"{self.path}: grouped by {self.group}{'' if self.made else ' (was there already)'}"
        ]
        by = self.leakage.by
        for part in self.leakage.parts:
            title = "test" if part.fold < 0 else f"fold {part.fold}"
            others = "the folds" if part.fold < 0 else "other folds"
            shared = f" of {part.proteins} {by}s, {part.shared_proteins} of them also in {others}"
            lines.append(f"  {title}: {part.fields} fields{'' if by == 'field' else shared}")
        lines.append(f"  {self.leakage.sentence()}")
        if self.leakage.thin_labels:
            thin = ", ".join(f"{label} ({n})" for label, n in self.leakage.thin_labels.items())
            lines.append(f"  labels with fewer than two {by}s in some fold: {thin}")
        if self.alone:
            lines.append(
                f"  labels that only one {self.group} shows, so that no fold can both learn and "
                f"score them: {', '.join(self.alone)}; show them in more {self.group}s, or group "
                "more finely (--group)"
            )
        if self.unlabelled:
            lines.append(f"  {self.unlabelled} fields have no label")
        return lines


def split(
    store: str | Path | Location,
    config: SplitConfig,
    name: str,
    *,
    overwrite: bool = False,
) -> SplitSummary:
    """Deal the fields of a store into folds, and a test set, in `splits/<name>`.

    Labels of grade 3, or the classes of `config.target`, are spread evenly; fields that
    `config.group` holds together share a fold. What that lets through is counted among siblings:
    fields of one protein, or of one well where no field names a protein.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Folds, test set, what stays together, target and seed.
    name
        Name of the split.
    overwrite
        Replace a split of that name.

    Returns
    -------
    SplitSummary
        With `fold`, int8 `(fov,)`: -1 the test set, else 0 to the number of folds - 1.

    Raises
    ------
    ConfigError
        Where the fields have no such grouping or target, its groups do not fill the folds, or
        another split has that name.
    StoreError
        Where there are no fields.

    Examples
    --------
    >>> split("my.zarr", SplitConfig(target="condition"), "honest").fold  # doctest: +SKIP
    array([0, 0, 1, 1, 2, 2], dtype=int8)
    """
    location, path = Location.of(store), f"splits/{check_name(name)}"
    fovs = need(location, "fovs", "ingest SOURCE STORE")
    fov, labels = read_text(fovs, "fov"), read_labels(fovs, config.target)
    siblings = siblings_of(fovs, config.target)
    by = siblings.by if config.group == "auto" else config.group
    group = siblings.group if config.group == "auto" else group_of(fovs, by)
    positive = truth_of(labels.grade).positive
    folds = config.folds or FOLDS
    if config.target and not config.folds:
        folds = folds_that_fit(positive, group, FOLDS)
    settings = config.model_dump() | {"group": by, "folds": folds}
    if config.target is None:
        del settings["target"]
    inputs = {"fovs": stage_attrs(fovs).fingerprint}
    wanted = StageAttrs.of("split", settings, inputs)

    def make(before: Before) -> AnyPlan:
        if before.attrs is not None:
            return Plan(wanted, {})
        fold = make_folds(
            positive, group, siblings.group,
            folds=folds, test=config.test, seed=config.seed,
        )  # fmt: skip
        leakage = leakage_of(fold, positive, siblings, labels.names)
        arrays = {"fold": (("fov",), fold), "fov": (("fov",), fov)}
        return Plan.whole(
            wanted, arrays, coordinates=["fov"], leakage=asdict(leakage),
            made_by=_columns(fovs, {by, siblings.by}),
        )  # fmt: skip

    made = carry_out(location, path, make, overwrite=overwrite).made
    fold = read_fold(location, name)
    return SplitSummary(
        path,
        fold,
        leakage_of(fold, positive, siblings, labels.names),
        by,
        int((~(labels.grade > 0).any(axis=1)).sum()),
        made,
        tuple(from_one_group(truth_of(labels.grade), group, labels.names)),
    )


def _columns(fovs: zarr.Group, groups: set[str]) -> dict[str, str]:
    """Digests of what is kept together: `info` sees by them that it changed."""
    digests: Any = fovs.attrs.get("column_digests", {})
    names = {*groups, *(["plate"] if "well" in groups else [])}
    return {name: str(digests[name]) for name in sorted(names) if name in digests}
