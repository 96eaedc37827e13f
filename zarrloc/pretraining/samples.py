"""Where samples come from: the training fields of a store, or their cells."""

import itertools
import math
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import zarr

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups.crops import Crops
from zarrloc.groups.embeddings import proteins_of, read_labels, siblings_of
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs
from zarrloc.groups.receipts import ROW_DIGEST, check_array
from zarrloc.models.channels import ChannelMap
from zarrloc.models.inputs import Detail
from zarrloc.pixels.window import window_px
from zarrloc.pretraining.data import (
    ALONE,
    Arrays,
    Beside,
    Image,
    Pixels,
    Rows,
    Siblings,
    Source,
    decode_all,
    nested_subset,
    pixels,
)
from zarrloc.pretraining.launch import World
from zarrloc.store.columns import array_of, read_column
from zarrloc.store.digest import combine, digest
from zarrloc.store.location import Location
from zarrloc.store.read import need

ENOUGH = 16
"""Samples that tell a channel's mean and sd."""


class FovSource:
    """Whole fields; only the chunks of its own rows are ever read."""

    def __init__(self, location: Location, fovs: Fovs, rows: Rows) -> None:
        group = need(location, FOVS, "ingest SOURCE STORE")
        self._image = image = array_of(group, "image")
        self._digests = fovs.receipts[ROW_DIGEST]
        self.roles, self.shape, self.dtype = fovs.roles, image.shape[1:], image.dtype
        self.fov = self.stored = rows
        self.shard = rows // fovs.shard
        real = [read_column(group, name)[rows] for name in ("height", "width")]
        self.extents = np.stack(real, axis=1).astype(np.int64)
        self.digest = digest({"rows": rows, "output": fovs.block_output})
        self.decodes = 0
        self._counting = threading.Lock()  # several threads load

    def load(self, rows: Rows) -> Image:
        """Fields `rows` as `(n, channel, y, x)`, each run of neighbours in one read."""
        stored = self.fov[rows]
        images = np.empty((len(rows), *self.shape), self.dtype)
        starts = np.flatnonzero(np.diff(stored, prepend=-2) != 1)
        for start, stop in itertools.pairwise([*starts, len(stored)]):
            images[start:stop] = self._image[stored[start] : stored[stop - 1] + 1]
        check_array(FOVS, images, self._digests[stored])
        with self._counting:
            self.decodes += len(rows)
        return images


class CellSource:
    """Kept cells in their windows: background off, the rest of the field black, unscaled."""

    def __init__(
        self, location: Location, fovs: Fovs, rows: Rows, cells: str, crop_um: float | None
    ) -> None:
        window = window_px(crop_um, fovs.pixel_size_um)
        self._crops = Crops(location, cells, size=window, crop_um=crop_um, cached_fovs=1)
        mine = self._crops.keep & np.isin(self._crops.fov_index, rows)
        self.stored = np.flatnonzero(mine).astype(np.int64)
        self.roles = self._crops.channels
        self.shape = (len(self.roles), window, window)
        self.dtype = np.dtype(np.float32 if fovs.dtype == "float32" else np.uint16)
        self.fov = self._crops.fov_index[self.stored].astype(np.int64)
        self.shard = self.fov // fovs.shard
        self.extents = np.full((len(self.stored), 2), window)
        which = {"fov": self.fov, "label": self._crops.labels[self.stored]}
        self.digest = digest({**which, "output": fovs.block_output})
        self.decodes = 0
        self._counting = threading.Lock()  # several threads load

    def load(self, rows: Rows) -> Image:
        """Cells `rows` as `(n, channel, y, x)`, above the background; whole counts where stored."""
        images = np.empty((len(rows), *self.shape), self.dtype)
        for fov in np.unique(self.fov[rows]):  # one field at a time: crops come as float32
            inside = self.fov[rows] == fov
            pixels = self._crops.take(self.stored[rows[inside]]).pixels
            if self.dtype == np.uint16:
                pixels = pixels.round().clamp(max=65535)
            images[inside] = pixels.numpy()
            with self._counting:
                self.decodes += 1
        return images


class JoinedSource:
    """Samples of several stores, with the channels of all; those a store lacks are 0 there."""

    def __init__(self, sources: Sequence[FovSource | CellSource]) -> None:
        dtypes = {source.dtype for source in sources}
        if len(dtypes) > 1:
            raise ConfigError(
                "stores that are trained on together need pixels of one type; got "
                + " and ".join(sorted(map(str, dtypes)))
            )
        self._sources = sources
        self.roles = tuple(dict.fromkeys(role for source in sources for role in source.roles))
        largest = np.max([source.shape[1:] for source in sources], axis=0).tolist()
        self.shape, self.dtype = (len(self.roles), *largest), sources[0].dtype
        self._channels = [[self.roles.index(role) for role in one.roles] for one in sources]
        counts = [len(source.shard) for source in sources]
        self._first = np.cumsum([0, *counts])
        self.shard, self.fov = (
            _apart([getattr(source, name) for source in sources]) for name in ("shard", "fov")
        )
        self.stored = np.concatenate([source.stored for source in sources])
        self.extents = np.concatenate([source.extents for source in sources])
        self.digest = combine([source.digest for source in sources])
        self.present = np.zeros((sum(counts), len(self.roles)), bool)
        for start, stop, own in zip(self._first, self._first[1:], self._channels, strict=False):
            self.present[start:stop, own] = True

    @property
    def decodes(self) -> int:
        """Fields decoded so far."""
        return sum(source.decodes for source in self._sources)

    def load(self, rows: Rows) -> Image:
        """Samples `rows`, ascending and of one shard, as `(n, channel, y, x)`."""
        which = int(np.searchsorted(self._first, rows[0], side="right")) - 1
        images = self._sources[which].load(rows - self._first[which])
        whole = np.zeros((len(rows), *self.shape), self.dtype)
        whole[:, self._channels[which], : images.shape[2], : images.shape[3]] = images
        return whole


def _apart(numbers: list[Rows]) -> Rows:
    """Numbers of several stores, made different from store to store."""
    found, start = [], 0
    for each in numbers:
        found.append(each + start)
        start += int(each.max(initial=-1)) + 1
    return np.concatenate(found)


@dataclass(frozen=True)
class Data:
    """A store's training part: the samples, and what the guard knows of each."""

    source: FovSource | CellSource | JoinedSource
    fields: int
    grade: npt.NDArray[np.uint8]
    """(sample, label) of the sample's field; no columns where the store has no labels."""
    protein: npt.NDArray[np.str_]
    """(sample,) of the sample's field; where no field names one its well, else the field itself."""
    held_out: str
    """A phrase for the fields that are never read."""
    pixel_size_um: float | None
    """Of the store; of the first where there are several."""
    beside: Beside = ALONE

    def detail(self, config: PretrainConfig) -> Detail:
        """How fine the largest global view of a usual sample is."""
        area = np.median(self.source.extents.prod(axis=1)) * config.global_scale[1]
        shrunk = float(np.sqrt(area)) / config.size
        return Detail.of(shrunk, self.pixel_size_um)

    def some(self, count: int, seed: int) -> Rows:
        """`count` of the samples, ascending, and a few with each channel that none of them has."""
        n, present = len(self.protein), self.beside.present
        rows = nested_subset(n, min(n, count), seed)
        if present is None:
            return rows
        for has in present.T:
            if not has[rows].any():
                mine = np.flatnonzero(has)
                rows = np.union1d(rows, mine[nested_subset(len(mine), ENOUGH, seed)])
        return rows


def open_data(location: Location, config: PretrainConfig) -> Data:
    """The samples that `config` trains on; with a split, none of its test rows is among them.

    Those of `--also` come after the store's own, and have no labels here.

    Raises `StoreError` where a group is missing and `ConfigError` where nothing is left, or where
    two fields of one protein are wanted and a split holds out fields of proteins that are trained
    on.
    """
    stores = [location, *map(Location.of, config.also)]
    if config.views == "protein":
        _refuse_shared_proteins(stores, config.split)
    each = [_open_one(store, config, number) for number, store in enumerate(stores)]
    data = each[0] if len(each) == 1 else _joined(stores, each)
    if config.views == "protein":
        siblings = Siblings(data.protein, data.source.fov)
        if not siblings.any:
            raise ConfigError(
                "--views protein: no protein has two fields here; name proteins with `zarrloc "
                "annotate`, or leave --views out"
            )
        data = replace(data, beside=replace(data.beside, siblings=siblings))
    return data


def refuse_blank(data: Data, channels: ChannelMap) -> None:
    """Raise `ConfigError` where a store has no channel that goes into the network."""
    if data.beside.present is None:
        return
    blank = ~data.beside.present[:, [*channels.channel_of.values()]].any(axis=1)
    if blank.any():
        raise ConfigError(
            f"{int(blank.sum())} of {len(data.protein)} samples have none of the channels that go "
            f"into the backbone, {', '.join(channels.channel_of)}: leave their store out of "
            "--also, or give a channel of it an input (--channels)"
        )


def _joined(stores: Sequence[Location], each: Sequence[Data]) -> Data:
    """The samples of several stores; only the first's have labels."""
    sources = [one.source for one in each]
    source = JoinedSource([one for one in sources if not isinstance(one, JoinedSource)])
    grade = np.zeros((len(source.shard), each[0].grade.shape[1]), np.uint8)
    grade[: len(each[0].grade)] = each[0].grade
    held_out = "; ".join(f"{s.name}: {one.held_out}" for s, one in zip(stores, each, strict=True))
    return Data(
        source,
        sum(one.fields for one in each),
        grade,
        np.concatenate([one.protein for one in each]),
        held_out,
        each[0].pixel_size_um,
        Beside(source.present),
    )


def _open_one(location: Location, config: PretrainConfig, number: int) -> Data:
    fovs, group = Fovs.of(location), need(location, FOVS, "ingest SOURCE STORE")
    trainable, held_out = _trainable(location, group, config.split)
    rows = np.flatnonzero(trainable)
    if len(rows) == 0:
        raise ConfigError(
            f"{location.name}: all {len(trainable)} fields have an error or are held out, so that "
            "none is left to train on; `zarrloc info STORE --errors` lists the errors"
        )
    count = round(config.fraction * len(rows))
    if count == 0:
        raise ConfigError(
            f"--fraction {config.fraction} of {len(rows)} training fields leaves none; raise it"
        )
    rows = rows[nested_subset(len(rows), count, config.seed)]
    source: FovSource | CellSource
    if config.level == "cell":
        source = CellSource(location, fovs, rows, config.cells, config.crop_um)
        if len(source.stored) == 0:
            raise ConfigError(
                f"{location.name}: cells/{config.cells} has no cell that was kept in the {count} "
                "fields to train on; segment with other settings, or train on fields (--level fov)"
            )
    else:
        source = FovSource(location, fovs, rows)
    grade = read_labels(group).grade
    by_protein = config.views == "protein"
    protein = _proteins(group, number) if by_protein else siblings_of(group).group
    return Data(source, count, grade[source.fov], protein[source.fov], held_out, fovs.pixel_size_um)


def _refuse_shared_proteins(stores: Sequence[Location], split: str | None) -> None:
    """Refuse a split whose held-out fields show proteins that are trained on, in any store."""
    trained, held = set[str](), set[str]()
    for number, location in enumerate(stores):
        fovs = need(location, FOVS, "ingest SOURCE STORE")
        protein, sound = _proteins(fovs, number), read_column(fovs, "error") == ""
        trainable, _ = _trainable(location, fovs, split)
        trained.update(protein[trainable].tolist())
        held.update(protein[sound & ~trainable].tolist())
    shared = sorted(trained & held)
    if shared:
        each = " with the same proteins held out in each store" if len(stores) > 1 else ""
        raise ConfigError(
            f"--views protein learns proteins by name, and split '{split}' holds out fields of "
            f"{len(shared)} that it trains on, such as {shared[0]}: their scores would be no "
            f"proof. Use a split grouped by protein (`zarrloc split --group protein`){each}"
        )


def _proteins(fovs: zarr.Group, number: int) -> npt.NDArray[np.str_]:
    """The protein of each field of a store; fields that name none are apart, in any store."""
    return proteins_of(fovs, f"store {number} field ")


def _trainable(
    location: Location, fovs: zarr.Group, split: str | None
) -> tuple[npt.NDArray[np.bool_], str]:
    """Fields without an error, outside the split's test part `(fov,)`; a phrase for that part."""
    sound: npt.NDArray[np.bool_] = read_column(fovs, "error") == ""
    if split is None:
        return sound, "nothing, every field is trained on (--split NAME holds its test part out)"
    fold = read_column(need(location, f"splits/{split}", f"split --name {split}"), "fold")
    if len(fold) != len(sound):
        raise StoreError(
            f"'splits/{split}' knows {len(fold)} fields, the store has {len(sound)}; "
            "make the split again"
        )
    test = int((fold < 0).sum())
    if test == 0:
        return sound, f"nothing, split '{split}' has no test part: every field is trained on"
    return sound & (fold >= 0), f"the test part of split '{split}', {test} fields"


def cached(
    config: PretrainConfig,
    source: FovSource | CellSource | JoinedSource,
    location: Location,
    world: World,
    device: torch.device,
) -> tuple[Source, Pixels | None]:
    """The source as `--cache` wants it, and its pixels where they lie on the device."""
    if config.cache == "none":
        return source, None
    if config.cache == "device":
        held = decode_all(source)
        if device.type == "cpu":  # numpy gathers there: torch's threads would fight the step's own
            return held, None
        return held, pixels(held.images, held.extents).to(device)
    images = _in_file(source, location, world)
    return Arrays(images, source.roles, source.shard, source.extents), None


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # Windows' folder is the user's own


def _in_file(
    source: FovSource | CellSource | JoinedSource, location: Location, world: World
) -> Image:
    """All samples in a file that the processes of this run on this node map, and no others."""
    what = f"{combine([location.uri, source.digest]):016x}-{world.shared(uuid.uuid4().hex)}"
    path = Path(tempfile.gettempdir()) / f"zarrloc-{_user()}-{what}.npy"
    owner, shape = world.local == 0, (len(source.shard), *source.shape)
    if owner:
        wanted = math.prod(shape) * source.dtype.itemsize
        free = shutil.disk_usage(path.parent).free
        if wanted > free:  # a map that outgrows its disk ends the process without a message
            raise ConfigError(
                f"--cache ram needs {wanted / 2**30:.1f} GiB in {path.parent}, where "
                f"{free / 2**30:.1f} are free; set TMPDIR to a larger place, or use --cache none"
            )
        path.touch(0o600, exist_ok=False)
        np.lib.format.open_memmap(path, "w+", source.dtype, shape)
    try:
        world.barrier()
        images: Image = np.load(path, mmap_mode="r+" if owner else "r")
        world.barrier()
    finally:
        if owner:
            path.unlink()  # the maps keep it alive, and no crash can leave its pixels behind
    if owner:
        decode_all(source, images)
    world.barrier()
    return images
