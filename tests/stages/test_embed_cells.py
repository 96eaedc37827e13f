"""Embedding cells: the same numbers as crops cut one by one, each field read once a block."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from tests.stages.conftest import SERIAL, bright_spots
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.groups import crops
from zarrloc.models import backbones, channels, preprocess
from zarrloc.models.inputs import Norm, Size
from zarrloc.stages.embed import embed
from zarrloc.stages.segment import segment
from zarrloc.tasks import embed_cells

Fresh = Callable[[str], Path]
MODEL = "timm:test_vit"


@pytest.fixture
def store(fresh: Fresh) -> Path:
    path = fresh("a.zarr")
    segment(
        path, SegmentConfig(), "spots", function=bright_spots, run=SERIAL,
        block_cells=5, keep_percentile=70.0,
    )  # fmt: skip
    return path


def config(**settings: Any) -> EmbedConfig:
    given = {"backbone": MODEL, "weights": "random:0", "size": "64", "level": "cell"}
    return EmbedConfig.of({**given, "cells": "spots", **settings})


def run(store: Path, **settings: Any) -> xr.Dataset:
    embed(store, config(**settings), "e", run=SERIAL, overwrite=True)
    return xr.open_zarr(store, group="embeddings/e").load()


def plainly(store: Path, norm: Norm = "zscore", over_mask: bool = False) -> np.ndarray:
    """One crop at a time through the backbone."""
    backbone = backbones.load(MODEL, "random:0")
    mapping = channels.resolve("protein=1,nucleus=2", backbone.roles, ("nucleus", "protein"), "")
    found = []
    every = crops.Crops(store, "spots", size=64)
    for cell in range(len(every)):
        cut = every.take(np.array([cell]))
        pixels = crops.z_score(cut.pixels, cut.inside) if over_mask else cut.pixels
        native = Size.parse("native")
        images, _ = preprocess.prepare(pixels, mapping, native, norm, backbone.patch, None)
        with torch.inference_mode():
            found.append(backbone(images[0]).numpy()[0])
    return np.stack(found)


def test_rows_are_the_crops_features_and_nan_where_not_kept(store: Path) -> None:
    e = run(store)
    keep = e.keep.values
    assert 0 < keep.sum() < len(keep)
    np.testing.assert_allclose(e.embedding.values[keep], plainly(store)[keep], atol=1e-4)
    assert np.isnan(e.embedding.values[~keep]).all()
    assert set(e.error.values) == {""}
    table = xr.open_zarr(store, group="cells/spots").load()
    np.testing.assert_array_equal(e.fov_index, table.fov_index)
    assert list(e.protein.values) == list(table.protein.values)


def test_all_cells_embeds_the_others_too(store: Path) -> None:
    e = run(store, all_cells=True)
    np.testing.assert_allclose(e.embedding.values, plainly(store), atol=1e-4)


def test_norm_cell_is_over_the_mask(store: Path) -> None:
    e = run(store, all_cells=True, norm="cell")
    expected = plainly(store, norm="none", over_mask=True)
    np.testing.assert_allclose(e.embedding.values, expected, atol=1e-4)


def test_each_field_is_read_once_a_block(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = embed_cells.read_fields

    def counting(location: Any, name: str, start: int, stop: int, expect: Any, clock: Any) -> Any:
        read.extend(range(start, stop))
        return original(location, name, start, stop, expect, clock)

    monkeypatch.setattr(embed_cells, "read_fields", counting)
    e = run(store)
    index, keep = e.fov_index.values, e.keep.values
    blocks = [slice(start, start + 5) for start in range(0, len(index), 5)]
    runs = [np.arange(index[b][0], index[b][-1] + 1) for b in blocks if keep[b].any()]
    assert read == np.concatenate(runs).tolist()


def test_a_second_run_does_nothing_and_new_keep_redoes(store: Path) -> None:
    run(store)
    assert embed(store, config(), "e", run=SERIAL).blocks_run == 0


def test_what_does_not_fit_is_refused(store: Path) -> None:
    with pytest.raises(ConfigError, match="--cells"):
        embed(store, config(cells=None), "x", run=SERIAL)
    with pytest.raises(StoreError, match="zarrloc segment"):
        embed(store, config(cells="nothing"), "x", run=SERIAL)
    with pytest.raises(ConfigError, match="--norm cell"):
        embed(store, config(level="fov", norm="cell"), "x", run=SERIAL)
