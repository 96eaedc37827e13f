"""Stages that read fields and masks by zarrs, where it is installed, give the same values."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.stages.conftest import SERIAL
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.stages.embed import embed
from zarrloc.stages.segment import segment
from zarrloc.store import pipeline

TINY = {"backbone": "timm:test_vit", "weights": "random:0", "size": "64"}
CELLS = {"level": "cell", "cells": "ws", "size": "48"}


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each read of an array in shards went through zarrs to its end."""
    zarrs = pytest.importorskip("zarrs", reason="needs zarrloc[zarrs]")
    pipeline.reader.cache_clear()
    inner, found = zarrs.ZarrsCodecPipeline.read, []

    async def read(self: Any, *arguments: Any, **named: Any) -> Any:
        found.append(False)
        done = await inner(self, *arguments, **named)
        found[-1] = True
        return done

    monkeypatch.setattr(zarrs.ZarrsCodecPipeline, "read", read)
    yield found
    pipeline.reader.cache_clear()


def _run(store: Path) -> dict[str, dict[str, Any]]:
    """All stages that read shards; the arrays they made."""
    segment(store, SegmentConfig(model="watershed"), "ws", crop_um=20.0, run=SERIAL)
    for name, settings in {
        "fields": TINY, "classic": {"backbone": "classic"},
        "cells": {**TINY, **CELLS, "crop_um": 20.0},
    }.items():  # fmt: skip
        embed(store, EmbedConfig.of(settings), name, run=SERIAL)
    groups = {"segmentations/ws": "mask", "cells/ws": "area_px"} | {
        f"embeddings/{name}": "embedding" for name in ("fields", "classic", "cells")
    }
    return {
        path: {"values": (group := xr.open_zarr(store, group=path))[array].values,
               "digest": group["block_output"].values}
        for path, array in groups.items()
    }  # fmt: skip


def test_stages_read_by_zarrs_and_their_values_are_equal(
    fresh: Callable[[str], Path], decodes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_zarrs = _run(fresh("a.zarr"))
    assert len(decodes) >= 4 * 3  # segment and three embeddings, of three shards each
    assert all(decodes)
    count = len(decodes)
    monkeypatch.setattr(pipeline, "reader", lambda: "")
    without = _run(fresh("b.zarr"))
    assert len(decodes) == count
    assert with_zarrs["embeddings/cells"]["values"].shape[0] > 0
    for path, made in without.items():
        for what, values in made.items():
            np.testing.assert_array_equal(with_zarrs[path][what], values, err_msg=f"{path} {what}")
